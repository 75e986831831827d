"""Who sees which service, and which rule of several is obeyed (traffic.md 3.1, 3.3, DR-05)."""

from typing import Any

import pytest
import yaml

from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES
from pilothouse.model.policies import RuleQuestion, rule_for
from pilothouse.model.scopes import (
    HostQuestion,
    Scope,
    SidecarQuestion,
    scope_services,
    service_for_host,
    sidecar_for,
    visible_services,
)

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotations}}}}}
spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec:
  hosts: [shared.example]
  exportTo: {export_to}
  resolution: DNS
  ports: [{{number: 80, name: http, protocol: HTTP}}]
"""
SIDECAR = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "{created}"}}
spec: {spec}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


def graph_of(*documents: str) -> Graph:
    """Return a graph with these objects."""
    made = Graph()
    rows = [decode(yaml.safe_load(text)).object for text in documents]
    assert all(row is not None for row in rows)
    made.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows)
    return made


def service(name: str, namespace: str, export_to: str = "") -> str:
    annotations = f'networking.istio.io/exportTo: "{export_to}"' if export_to else ""
    return SERVICE.format(name=name, namespace=namespace, annotations=annotations)


def entry(name: str, namespace: str, created: str = "2026-01-01T00:00:00Z", **more: Any) -> str:
    export_to = more.get("export_to", ["*"])
    return ENTRY.format(name=name, namespace=namespace, created=created, export_to=export_to)


def seen(graph: Graph, namespace: str) -> set[str]:
    return {each.host for each in graph.value(visible_services, namespace)}


@pytest.mark.parametrize(
    ("export_to", "own", "other", "third"),
    [
        ("", True, True, True),
        ("*", True, True, True),
        (".", True, False, False),
        ("~", False, False, False),
        ("other", False, True, False),
        (".,other", True, True, False),
    ],
)
def test_who_sees_an_exported_service(export_to: str, own: bool, other: bool, third: bool) -> None:
    """K8-10, 3.3."""
    graph = graph_of(service("a", "own", export_to))
    host = "a.own.svc.cluster.local"
    assert [host in seen(graph, ns) for ns in ("own", "other", "third")] == [own, other, third]


def test_of_several_with_one_host_ones_own_is_seen_then_the_oldest() -> None:
    """3.1, SE-13."""
    graph = graph_of(
        entry("young", "a", "2026-02-01T00:00:00Z"), entry("old", "b", "2026-01-01T00:00:00Z")
    )

    def owner(namespace: str) -> str:
        (found,) = graph.value(visible_services, namespace)
        return found.namespace

    assert [owner("a"), owner("b"), owner("c")] == ["a", "b", "b"]


def test_which_sidecar_is_obeyed() -> None:
    """3.3: selected, then the namespace's own, then the root's; the oldest of equals."""
    everything = "{egress: [{hosts: ['*/*']}]}"
    picky = "{workloadSelector: {labels: {app: a}}, egress: [{hosts: ['*/*']}]}"
    graph = graph_of(
        SIDECAR.format(name="young", namespace="n", created="2026-02-01T00:00:00Z", spec=picky),
        SIDECAR.format(name="old", namespace="n", created="2026-01-01T00:00:00Z", spec=picky),
        SIDECAR.format(name="all", namespace="n", created="2025-01-01T00:00:00Z", spec=everything),
        SIDECAR.format(
            name="root", namespace="istio-system", created="2020-01-01T00:00:00Z", spec=everything
        ),
    )

    def obeyed(namespace: str, **labels: str) -> Any:
        return graph.value(sidecar_for, SidecarQuestion(namespace, tuple(sorted(labels.items()))))

    assert obeyed("n", app="a", x="y") == ObjectKey("n", "old")
    assert obeyed("n", app="b") == ObjectKey("n", "all")
    assert obeyed("elsewhere") == ObjectKey("istio-system", "root")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["*/*"], {"a.n", "b.n", "c.m"}),
        (["./*"], {"a.n", "b.n"}),
        (["m/*"], {"c.m"}),
        (["./a.n.svc.cluster.local"], {"a.n"}),
        (["*/*", "~./b.n.svc.cluster.local"], {"a.n", "c.m"}),
        (["~/*"], set()),
    ],
)
def test_a_sidecar_limits_what_is_in_scope(hosts: list[str], expected: set[str]) -> None:
    """SC-02."""
    sidecar = SIDECAR.format(
        name="s",
        namespace="n",
        created="2026-01-01T00:00:00Z",
        spec={"egress": [{"hosts": hosts}]},
    )
    graph = graph_of(service("a", "n"), service("b", "n"), service("c", "m"), sidecar)
    found = graph.value(scope_services, Scope("n", ObjectKey("n", "s")))
    assert {each.host.removesuffix(".svc.cluster.local") for each in found} == expected


def test_an_alias_leads_to_its_target_once() -> None:
    """K8-05."""
    alias = """
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: n}
spec: {type: ExternalName, externalName: a.n.svc.cluster.local, ports: [{name: http, port: 80}]}
"""
    graph = graph_of(service("a", "n"), alias)
    asked = HostQuestion(Scope("n"), "alias.n.svc.cluster.local")
    found = graph.value(service_for_host, asked)
    assert found is not None
    assert found.host == "a.n.svc.cluster.local"


def test_which_destination_rule_is_obeyed() -> None:
    """DR-01, DR-05: the client's namespace, the service's, the root's; the closest host in each."""
    host = "web.shop.svc.cluster.local"
    own = RULE.format(name="own", namespace="client", spec="{host: '*.local', exportTo: ['.']}")
    shop = RULE.format(name="shop", namespace="shop", spec="{host: web}")
    wide = RULE.format(name="wide", namespace="shop", spec="{host: '*.shop.svc.cluster.local'}")
    root = RULE.format(name="root", namespace="istio-system", spec="{host: '*'}")

    def obeyed(*rules: str, namespace: str = "client") -> tuple[str, str] | None:
        found = graph_of(*rules).value(rule_for, RuleQuestion(namespace, (), host, "shop"))
        return None if found is None else (found.namespace, found.host)

    assert obeyed(own, shop, wide, root) == ("client", "*.local")
    assert obeyed(shop, wide, root) == ("shop", host)
    assert obeyed(wide, root) == ("shop", "*.shop.svc.cluster.local")
    assert obeyed(root) == ("istio-system", "*")
    assert obeyed(own, namespace="third") is None
    hidden = shop.replace("{host: web}", "{host: web, exportTo: ['.']}")
    assert obeyed(hidden, root) == ("istio-system", "*")
    assert obeyed(hidden, root, namespace="shop") == ("shop", host)


def test_a_rule_with_a_selector_is_for_its_clients_only() -> None:
    """DR-06: the same namespace, matching labels; before a rule for everybody."""
    picky = RULE.format(
        name="picky", namespace="shop",
        spec="{host: web, workloadSelector: {matchLabels: {app: a}}}",
    )  # fmt: skip
    plain = RULE.format(name="plain", namespace="shop", spec="{host: web}")
    graph = graph_of(picky, plain)
    host = "web.shop.svc.cluster.local"

    def selector(namespace: str, **labels: str) -> Any:
        asked = RuleQuestion(namespace, tuple(sorted(labels.items())), host, "shop")
        found = graph.value(rule_for, asked)
        return None if found is None else found.selector

    assert selector("shop", app="a") == (("app", "a"),)
    assert selector("shop", app="b") == ()
    assert selector("client", app="a") == ()
