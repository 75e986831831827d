"""Which VirtualServices apply, and what Sidecars take along because of them (VS-50, 3.3)."""

from typing import Any

import pytest
import yaml

from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.imports import Imports
from pilothouse.model.inputs import TABLES
from pilothouse.model.routing import (
    Clients,
    RoutingQuestion,
    connection_virtual_services,
    http_virtual_services,
    needed_hosts,
)
from pilothouse.model.visibility import Reach, is_exported, reach

HOST = "web.shop.svc.cluster.local"
TO_WEB = "route: [{destination: {host: web}}]"


@query
def http_choice(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    return http_virtual_services(ctx, asked)


@query
def connection_choice(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    return connection_virtual_services(ctx, asked)


def rule(name: str, spec: str, namespace: str = "shop", year: int = 2026) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": f"{year}-01-01T00:00:00Z",
        },
        "spec": yaml.safe_load(f"{{{spec}}}"),
    }


def graph_of(*documents: dict[str, Any]) -> Graph:
    graph = Graph()
    rows = [decode(each).object for each in documents]
    graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows if row is not None)
    return graph


def chosen(graph: Graph, namespace: str = "shop", host: str = HOST, *imports: str) -> list[str]:
    clients = Clients(namespace, Imports.parse(imports or ("*/*",), namespace))
    return [key.name for key in graph.value(http_choice, RoutingQuestion(clients, host))]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("hosts: [web], http: [{%s}]", "hosts: [web], http: [{%s}]", ["first"]),
        ("hosts: [web], http: [{match: [{port: 81}], %s}]", "hosts: [web], http: [{%s}]",
         ["first", "second"]),
        ("hosts: [web], http: [{match: [{sourceLabels: {a: b}}], %s}]",
         "hosts: [web], http: [{%s}]", ["first", "second"]),
        ("hosts: [web], http: [{match: [{gateways: [mesh], sourceLabels: {a: b}}], %s}]",
         "hosts: [web], http: [{%s}]", ["first"]),
        ("hosts: ['*.svc.cluster.local'], http: [{%s}]", "hosts: [web], http: [{%s}]", ["second"]),
        ("hosts: ['*.svc.cluster.local'], http: [{%s}]",
         "hosts: ['*.shop.svc.cluster.local'], http: [{%s}]", ["second"]),
        ("hosts: [web], http: [{%s}]", "hosts: [web], exportTo: ['.'], http: [{%s}]", ["second"]),
        ("hosts: [web], http: [{%s}]", "hosts: [web], exportTo: [shop], http: [{%s}]", ["second"]),
        ("hosts: [web], gateways: [edge], http: [{%s}]", "hosts: [web], http: [{%s}]", ["second"]),
        ("hosts: [web], exportTo: [office], http: [{%s}]", "hosts: [web], http: [{%s}]",
         ["second"]),
        ("hosts: [web], tcp: [{%s}]", "hosts: [web], http: [{%s}]", ["second"]),
    ],
)  # fmt: skip
def test_the_choice_of_two(first: str, second: str, expected: list[str]) -> None:
    """VS-50: by name before by wildcard, private before public, then the oldest with a route."""
    old = rule("first", first % TO_WEB, year=2025)
    assert chosen(graph_of(old, rule("second", second % TO_WEB))) == expected


def test_all_apply_to_connections() -> None:
    """VS-43: TLS and TCP rules of several VirtualServices add up, wildcards too."""
    graph = graph_of(
        rule("b", f"hosts: ['*.svc.cluster.local'], tcp: [{{{TO_WEB}}}]", year=2025),
        rule("a", f"hosts: [web], tcp: [{{{TO_WEB}}}]"),
        rule("http", f"hosts: [web], http: [{{{TO_WEB}}}]"),
    )
    asked = RoutingQuestion(Clients("shop"), HOST)
    assert [key.name for key in graph.value(connection_choice, asked)] == ["b", "a"]


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        (("shop/*",), ["web"]),
        (("office/*",), []),
        (("*/web.shop.svc.cluster.local",), ["web"]),
        (("*/other.shop.svc.cluster.local",), []),
        (("*/*", "~shop/*"), []),
        (("*/*", "~office/*"), ["web"]),
        (("~/*",), []),
    ],
)
def test_a_listener_sees_what_it_imports(imports: tuple[str, ...], expected: list[str]) -> None:
    """3.3: egress hosts limit VirtualServices by their namespace and hosts."""
    graph = graph_of(rule("web", f"hosts: [web], http: [{{{TO_WEB}}}]"))
    assert chosen(graph, "office", HOST, *imports) == expected


def test_what_rules_send_to() -> None:
    """3.3: destinations and mirrors, of delegates too; rules for other namespaces do not count."""
    graph = graph_of(
        rule(
            "web",
            "hosts: [web], http: ["
            "{match: [{uri: {prefix: /a}}], delegate: {name: leaf, namespace: team}},"
            "{match: [{sourceNamespace: office}], route: [{destination: {host: desk}}]},"
            "{route: [{destination: {host: web, port: {number: 80}}}], mirror: {host: copy}}]",
        ),
        rule("leaf", "http: [{route: [{destination: {host: cart}}]}]", "team"),
    )
    common = {
        "cart.team.svc.cluster.local": (0,),
        HOST: (80,),
        "copy.shop.svc.cluster.local": (0,),
    }
    assert graph.value(needed_hosts, Clients("shop")) == common
    desk = {"desk.shop.svc.cluster.local": (0,)}
    assert graph.value(needed_hosts, Clients("office")) == {**common, **desk}


@pytest.mark.parametrize(
    ("export_to", "client", "seen", "how"),
    [
        (("*",), "b", True, Reach.EVERYWHERE),
        ((".",), "a", True, Reach.OWN_NAMESPACE),
        ((".",), "b", False, Reach.OWN_NAMESPACE),
        ((".", "b"), "b", True, Reach.NAMED),
        (("b", "*"), "b", True, Reach.EVERYWHERE),
        (("~",), "a", False, Reach.OWN_NAMESPACE),
    ],
)
def test_export_to(export_to: tuple[str, ...], client: str, seen: bool, how: Reach) -> None:
    """3.3: own namespace, names, everywhere, nowhere."""
    assert is_exported(export_to, "a", client) is seen
    assert reach(export_to, client) is how
