"""
Laws of what Sidecars let through (SC-01 to SC-05, 3.3).

Over all egress lists that can be written for a small mesh: nothing that was not imported is called,
and whatever a route sends to is there to be sent to.
"""

import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from story import Served, content, served_to

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.model.imports import EVERYTHING, Imports
from pilothouse.model.inputs import TABLES
from pilothouse.model.proxies import NodeType, Proxy

NAMESPACES = ("shop", "office")
HOSTS = (
    "web.shop.svc.cluster.local",
    "api.shop.svc.cluster.local",
    "web.office.svc.cluster.local",
    "far.example.com",
)
PATTERNS = (*HOSTS, "*", "*.office.svc.cluster.local", "*.example.com")

owners = st.sampled_from(("*", ".", "shop", "office", "~", "~shop", "~office", "~.", "~*"))
entries = st.builds("{}/{}".format, owners, st.sampled_from(PATTERNS))
hosts = st.lists(entries, min_size=1, max_size=5)
CLIENT = Proxy(
    id="client", type=NodeType.SIDECAR, ips=("10.1.0.5",), name="client", namespace="shop",
    domain="shop.svc.cluster.local", labels=(("app", "client"),),
)  # fmt: skip


def service(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80}, {"name": "http-alt", "port": 8080}],
        },
    }


def networking(kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec,
    }  # fmt: skip


MESH = (
    service("web", "shop"),
    service("api", "shop"),
    service("web", "office"),
    networking(
        "ServiceEntry", "far", "office",
        {
            "hosts": ["far.example.com"], "resolution": "DNS",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        },
    ),
)  # fmt: skip


def serve(*more: dict[str, Any]) -> Served:
    graph = Graph()
    rows = [decode(each).object for each in (*MESH, *more)]
    assert all(row is not None for row in rows)
    graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows if row is not None)
    served = served_to(graph, CLIENT)
    assert not list(graph.failing()), graph.findings()
    return served


def sidecar(*egress: dict[str, Any]) -> dict[str, Any]:
    return networking("Sidecar", "default", "shop", {"egress": list(egress)})


def clusters(served: Served) -> set[str]:
    return {each.name for each in served["cds"] if each.name.startswith("outbound|")}


def routed_to(served: Served) -> Iterator[str]:
    for resource in served["rds"]:
        yield from re.findall(r"'cluster': '(outbound\|[^']*)'", str(content(resource)))


def imported(text: list[str], host: str, namespace: str) -> bool:
    """Say by the words of the API whether a list imports a host."""

    def covers(entry: str) -> bool:
        owner, pattern = entry.split("/")
        owner = {"": "*", ".": "shop"}.get(owner, owner)
        fits = host.endswith(pattern[1:]) if pattern.startswith("*") else host == pattern
        return owner in ("*", namespace) and fits

    taken_away = any(covers(entry[1:]) for entry in text if entry.startswith("~"))
    return not taken_away and any(covers(entry) for entry in text if not entry.startswith("~"))


@settings(max_examples=150, deadline=None)
@given(hosts)
def test_exactly_what_is_imported_can_be_called(text: list[str]) -> None:
    """SC-02: no more and no less, with exclusions after everything else."""
    found = {name.split("|")[3] for name in clusters(serve(sidecar({"hosts": text})))}
    owners_of = {each: "office" if "shop" not in each else "shop" for each in HOSTS}
    assert found == {host for host, owner in owners_of.items() if imported(text, host, owner)}


@settings(max_examples=100, deadline=None)
@given(hosts, st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.sampled_from(NAMESPACES))
def test_what_routes_send_to_is_there(text: list[str], host: str, to: str, owner: str) -> None:
    """3.3: a VirtualService that is imported brings along what it sends to."""
    rule = networking(
        "VirtualService", "rule", owner,
        {"hosts": [host], "http": [{"route": [{"destination": {"host": to}}]}]},
    )  # fmt: skip
    served = serve(rule, sidecar({"hosts": text}))
    sent = set(routed_to(served))
    if to != "far.example.com":  # which has no port 8080
        assert sent <= clusters(served)
    if imported(text, host, owner):
        assert f"outbound|80||{to}" in clusters(served)


@settings(max_examples=60, deadline=None)
@given(hosts, hosts)
def test_a_port_carries_only_services_that_have_it(first: list[str], rest: list[str]) -> None:
    """SC-03, SC-04: clusters of a listener with a port are for that port."""
    port = {"number": 8080, "protocol": "HTTP", "name": "alt"}
    both = clusters(serve(sidecar({"port": port, "hosts": first}, {"hosts": rest})))
    only = clusters(serve(sidecar({"port": port, "hosts": first})))
    assert all(name.startswith("outbound|8080|") for name in only)
    assert both == only | clusters(serve(sidecar({"hosts": rest})))


@given(hosts)
def test_who_says_the_same_shares(text: list[str]) -> None:
    """Own namespace by name or by dot is one value; everything is everything."""
    spelled = [re.sub(r"^(~?)\./", r"\1shop/", entry) for entry in text]
    assert Imports.parse(text, "shop") == Imports.parse(spelled, "shop")
    assert Imports.parse(["*/*"], "shop") == EVERYTHING
