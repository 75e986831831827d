"""
Golden stories: a folder with a small mesh, the proxies in it, and what each is to be served.

`input.yaml` is read as the file store reads a directory, `clusters/NAME.yaml` (if there are any) as
that of a remote cluster, `tls_policy.yaml` (if there is one) as a setting of the server, and
`proxies.yaml` names each proxy's node as it would introduce itself on
a stream. Resources are found as Envoy finds them: clusters lead to endpoints, listeners to routes.
What comes out is shown as plain data with every Any expanded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from google.protobuf import json_format

from pilothouse._pb._pool import POOL, message_class
from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import Finding
from pilothouse.model.inputs import TABLES, THE_MESH, TLS_POLICY
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import CDS, EDS, LDS, RDS, Resource
from pilothouse.model.tls_policy import TlsPolicy
from pilothouse.model.topology_labels import LOCAL_CLUSTER
from pilothouse.providers.directory_state import Change
from pilothouse.providers.validate import FileCheck
from pilothouse.translators.envoy import roots
from pilothouse.xds.node import read_proxy
from pilothouse.xds.offline import endpoint_names, route_names

GOLDEN: Final = Path(__file__).parent / "golden"
TYPES: Final = {"cds": CDS, "eds": EDS, "lds": LDS, "rds": RDS}
BARE: Final = "bare_sidecar"
"""The story of an empty mesh; what other stories have in common with it is not shown again."""

FILTERS_SHOWN_IN: Final = frozenset({BARE, "istio_proxy_profile"})

ONE_LINE: Final = 72
"""Lists and maps up to this width are written on one line."""

Served = Mapping[str, tuple[Resource, ...]]
"""Resources by short type name (a key of `TYPES`)."""


@dataclass(frozen=True)
class Story:
    """A mesh and its proxies, read but not yet translated."""

    name: str
    proxies: Mapping[str, Node]
    graph: Graph
    changes: tuple[Change, ...]
    reading: tuple[Finding, ...]

    def proxy(self, name: str) -> Proxy:
        """Return a proxy as the server would know it."""
        return read_proxy(self.proxies[name])

    def served(self, name: str) -> Served:
        """Translate the mesh for one proxy."""
        return served_to(self.graph, self.proxy(name))

    def findings(self) -> list[Finding]:
        """Return what reading and (so far) translating had to say."""
        return sorted({*self.reading, *self.graph.findings()})


def names() -> list[str]:
    """Return the names of all stories."""
    return sorted(path.parent.name for path in GOLDEN.glob("*/input.yaml"))


def load(name: str) -> Story:
    """Read a story's mesh and proxies."""
    folder = GOLDEN / name
    check = FileCheck([("input.yaml", (folder / "input.yaml").read_text())])
    others = {path.stem: path for path in (folder / "clusters").glob("*.yaml")}
    if others:
        texts = {name: [(path.name, path.read_text())] for name, path in others.items()}
        check.add_clusters(texts, LOCAL_CLUSTER)
    changes = list(check.changes)
    policy = folder / "tls_policy.yaml"
    if policy.exists():
        row = msgspec.convert(yaml.safe_load(policy.read_text()), TlsPolicy)
        changes.append(Change(TLS_POLICY.name, THE_MESH, row))
    graph = Graph()
    graph.commit(
        (TABLES[change.kind], change.key, change.row) for change in changes if change.kind in TABLES
    )
    described = yaml.safe_load((folder / "proxies.yaml").read_text())
    proxies = {each: json_format.ParseDict(node, Node()) for each, node in described.items()}
    return Story(name, proxies, graph, tuple(changes), check.findings())


def served_to(graph: Graph, proxy: Proxy) -> Served:
    """Return everything a proxy would ask for, following references as Envoy does."""
    known = graph.value(roots.proxy_class, proxy)

    def whole(type_url: str) -> tuple[Resource, ...]:
        root = roots.wildcard(type_url, known)
        assert root is not None
        return tuple(graph.value(*root).values())

    def named(type_url: str, wanted: Iterator[str]) -> tuple[Resource, ...]:
        found = []
        for name in wanted:
            root = roots.named(type_url, known, name)
            assert root is not None
            resource = graph.value(*root)
            assert resource is not None, f"{name} is referred to and not served"
            found.append(resource)
        return tuple(found)

    clusters, listeners = whole(CDS), whole(LDS)
    return {
        "cds": clusters,
        "eds": named(EDS, endpoint_names(clusters)),
        "lds": listeners,
        "rds": named(RDS, route_names(listeners)),
    }


def content(resource: Resource) -> dict[str, Any]:
    """Return what a resource's bytes say, under the names of the proto files."""
    message = message_class(resource.type_url.rpartition("/")[2]).FromString(resource.data)
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=POOL
    )


def shown(story: str, served: Mapping[str, Served]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """
    Yield (file, entries) for reading: by name, what was shown before by name only.

    Before are the story of an empty mesh and the proxies listed earlier. Filters of a connection
    manager are shown in full in two stories and by name in the others.
    """
    before: dict[Resource, dict[str, str]] = {}
    if story != BARE:
        before = {each: {"same_as_in": BARE} for each in _bare()}
    tidy = partial(_tidy, names_filters=story not in FILTERS_SHOWN_IN)
    for proxy, by_kind in served.items():
        for kind, resources in by_kind.items():
            entries = []
            for resource in sorted(resources, key=lambda each: each.name):
                if resource in before:
                    entries.append({"name": resource.name, **before[resource]})
                else:
                    entries.append(tidy(content(resource)))
            yield f"{proxy}/{kind}.yaml", entries
        for resources in by_kind.values():
            for resource in resources:
                before.setdefault(resource, {"same_as_for": proxy})


@cache
def _bare() -> frozenset[Resource]:
    served = load(BARE).served("client")
    return frozenset(resource for resources in served.values() for resource in resources)


def _tidy(data: Any, *, names_filters: bool) -> Any:
    """Order keys for people: the type and name first, the rest by alphabet."""
    tidy = partial(_tidy, names_filters=names_filters)
    if isinstance(data, dict):
        if names_filters and "http_filters" in data:
            data = {**data, "http_filters": [each["name"] for each in data["http_filters"]]}
        first = ("@type", "name", "cluster_name")
        keys = [key for key in first if key in data]
        keys += sorted(key for key in data if key not in first)
        return {key: tidy(data[key]) for key in keys}
    if isinstance(data, str):
        return data.removeprefix("type.googleapis.com/")
    if isinstance(data, list):
        return [tidy(each) for each in data]
    return data


def described(findings: list[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain data."""
    return [
        {
            "code": each.code,
            "severity": each.severity.name,
            "where": str(each.ref),
            "message": each.message,
            "remedy": each.remedy,
        }
        for each in findings
    ]


class _Dumper(yaml.SafeDumper):
    """Writes what is short on one line, indents lists under their key, never uses anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: Any = None) -> yaml.Node:
        return _folded(super().represent_sequence(tag, sequence, flow_style))

    def represent_mapping(self, tag: str, mapping: Any, flow_style: Any = None) -> yaml.Node:
        return _folded(super().represent_mapping(tag, mapping, flow_style))


def _folded(node: Any) -> yaml.Node:
    node.flow_style = _width(node) <= ONE_LINE
    return node


def _width(node: Any) -> int:
    if isinstance(node, yaml.ScalarNode):
        return len(node.value)
    if isinstance(node, yaml.MappingNode):
        return sum(_width(key) + _width(value) + 4 for key, value in node.value)
    return sum(_width(each) + 2 for each in node.value)


def dump(data: Any) -> str:
    """Write plain data as YAML for reading."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
