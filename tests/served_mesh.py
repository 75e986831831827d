"""
What one proxy of a mesh written as text is served, as plain data by name.

For tests of single facts: a golden story shows everything, this shows what is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import story
from fake_proxy import node
from mesh_of import mesh_of

from pilothouse.graph.core import Graph
from pilothouse.graph.findings import Finding
from pilothouse.model.proxies import Proxy
from pilothouse.xds.node import read_proxy

Json = dict[str, Any]
CLIENT = "sidecar~10.9.0.1~client-0.default~default.svc.cluster.local"
EMPTY = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n"


@dataclass(frozen=True)
class Told:
    """Resources by name, each as `story.content` shows it, and what there is to say."""

    clusters: Mapping[str, Json]
    endpoints: Mapping[str, Json]
    listeners: Mapping[str, Json]
    routes: Mapping[str, Json]
    findings: tuple[Finding, ...]

    def codes(self) -> set[str]:
        """Return the codes of all findings."""
        return {each.code for each in self.findings}

    def chains(self, listener: str) -> list[Json]:
        """Return all filter chains of a listener, the default one last."""
        found = self.listeners[listener]
        default = found.get("default_filter_chain")
        return [*found.get("filter_chains", ()), *([default] if default else [])]

    def host(self, route: str, name: str) -> Json:
        """Return a virtual host by its name."""
        (found,) = (each for each in self.routes[route]["virtual_hosts"] if each["name"] == name)
        return dict(found)


def proxy(node_id: str = CLIENT, **metadata: Any) -> Proxy:
    """Return a proxy as the server knows it once it has introduced itself."""
    return read_proxy(node(node_id, metadata))


def served(graph: Graph, node_id: str = CLIENT, **metadata: Any) -> Told:
    """Serve a proxy out of a graph."""
    found = story.served_to(graph, proxy(node_id, **metadata))
    by_kind = {
        kind: {each.name: story.content(each) for each in resources}
        for kind, resources in found.items()
    }
    return Told(
        by_kind["cds"],
        by_kind["eds"],
        by_kind["lds"],
        by_kind["rds"],
        tuple(sorted(graph.findings())),
    )


def told(text: str = EMPTY, mesh: str = "", node_id: str = CLIENT, **metadata: Any) -> Told:
    """Serve a proxy of a mesh that is this YAML, with this mesh config (YAML)."""
    return served(mesh_of(text, mesh), node_id, **metadata)
