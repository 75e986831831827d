"""
Random edits of a small mesh: what is served incrementally is what is served from scratch.

The pool holds the objects that meet each other: two hosts in two namespaces, their endpoints, rules
for them, Sidecars that limit who sees them. A script applies variants of them and deletes them; a
few proxies are followed as the server would follow them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from envoy_constraints import violations
from hypothesis import given, settings
from hypothesis import strategies as st
from story import TYPES, Served, served_to

from pilothouse._pb._pool import message_class
from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Graph
from pilothouse.graph.explain import mismatches, misranked
from pilothouse.model.inputs import TABLES
from pilothouse.model.proxies import CertificateSource, InterceptionMode, Locality, NodeType, Proxy
from pilothouse.model.resource import EDS, RDS, Resource
from pilothouse.translators.envoy import roots

POOL = Path(__file__).with_name("mesh_pool.yaml")


def _rows() -> list[list[Any]]:
    variants = []
    for documents in yaml.safe_load(POOL.read_text()):
        decoded = [decode(document) for document in documents]
        assert all(each.object is not None for each in decoded), [d.findings for d in decoded]
        variants.append([each.object for each in decoded])
    return variants


ROWS = _rows()

PROXIES = (
    Proxy(
        id="client", type=NodeType.SIDECAR, ips=("10.1.0.5",), name="client", namespace="shop",
        domain="shop.svc.cluster.local", labels=(("app", "client"),),
        certificates=CertificateSource.ADS,
    ),
    Proxy(
        id="web", type=NodeType.SIDECAR, ips=("10.1.0.1",), name="web", namespace="shop",
        domain="shop.svc.cluster.local", labels=(("app", "web"),),
        certificates=CertificateSource.AGENT,
    ),
    Proxy(
        id="clerk", type=NodeType.SIDECAR, ips=("10.1.0.3",), name="clerk", namespace="office",
        domain="office.svc.cluster.local", labels=(("app", "client"),),
        interception_mode=InterceptionMode.NONE, locality=Locality(region="eu", zone="z"),
        node_name="a",
    ),
    Proxy(
        id="both", type=NodeType.SIDECAR, ips=("10.1.0.7", "fd00:1::7"), name="both",
        namespace="shop", domain="shop.svc.cluster.local", labels=(("app", "client"),),
        dns_capture=True,
    ),
)  # fmt: skip

edits = st.tuples(st.integers(0, len(ROWS) - 1), st.none() | st.integers(0, 4))
commits = st.lists(edits, min_size=1, max_size=14)
scripts = st.lists(commits, min_size=1, max_size=8)


def changes(batch: list[tuple[int, int | None]]) -> Iterator[tuple[Any, ObjectKey, Any | None]]:
    """Turn (object, variant or None) into changes of tables."""
    for number, variant in batch:
        variants = ROWS[number]
        meta = variants[0].meta
        row = None if variant is None else variants[variant % len(variants)]
        yield TABLES[meta.kind], meta.key, row


class Follower:
    """Keeps the roots of one proxy pinned as the server does, whatever they become."""

    def __init__(self, graph: Graph, proxy: Proxy) -> None:
        self.graph = graph
        self.proxy = proxy
        self.pinned: set[roots.Root] = set()
        graph.pin(roots.proxy_class, proxy)

    def follow(self) -> Served:
        served = served_to(self.graph, self.proxy)
        known = self.graph.value(roots.proxy_class, self.proxy)
        wanted = {roots.wildcard(TYPES["cds"], known), roots.wildcard(TYPES["lds"], known)}
        wanted |= {roots.named(EDS, known, each.name) for each in served["eds"]}
        wanted |= {roots.named(RDS, known, each.name) for each in served["rds"]}
        for root in wanted - self.pinned:
            self.graph.pin(*root)
        for root in self.pinned - wanted:
            self.graph.unpin(*root)
        self.pinned = wanted
        return served


@settings(max_examples=60, deadline=None)
@given(scripts)
def test_incremental_equals_from_scratch_byte_for_byte(script: list[Any]) -> None:
    """
    After each commit: the same bytes, no mismatch in the graph's own check, same findings (CA-03).

    `served_to` also asserts that every name that is referred to is served.
    """
    graph = Graph()
    followers = [Follower(graph, proxy) for proxy in PROXIES]
    rows: dict[Any, Any] = {}
    for batch in script:
        edited = list(changes(batch))
        rows.update(((table, key), row) for table, key, row in edited)
        graph.commit(edited)
        served = [follower.follow() for follower in followers]
        scratch = Graph()
        scratch.commit((table, key, row) for (table, key), row in rows.items())
        assert served == [served_to(scratch, proxy) for proxy in PROXIES]
        assert mismatches(graph) == []
        assert misranked(graph) == []
        assert not list(graph.failing()), graph.findings()
        for each in served:
            for resources in each.values():
                assert [r.data for r in resources if not r.data] == []


@settings(max_examples=150, deadline=None)
@given(commits)
def test_whatever_the_mesh_envoy_would_take_it(batch: list[Any]) -> None:
    """Envoy's own validation rules, and what it checks beyond them, for any mix of objects."""
    graph = Graph()
    graph.commit(changes(batch))
    for proxy in PROXIES:
        for resources in served_to(graph, proxy).values():
            for resource in resources:
                message = message_class(resource.type_url.rpartition("/")[2]).FromString(
                    resource.data
                )
                assert list(violations(message)) == [], resource
                assert list(refusals(resource, message)) == [], resource


def refusals(resource: Resource, message: Any) -> Iterator[str]:
    """Yield what Envoy refuses that no field rule says (domains and chain matches repeat)."""
    if resource.type_url == RDS:
        domains = [domain.lower() for host in message.virtual_hosts for domain in host.domains]
        yield from {domain for domain in domains if domains.count(domain) > 1}
        hosts = [host.name for host in message.virtual_hosts]
        yield from {name for name in hosts if hosts.count(name) > 1}
    if resource.type_url == TYPES["lds"]:
        matches = [
            chain.filter_chain_match.SerializeToString(deterministic=True)
            for chain in message.filter_chains
        ]
        yield from {str(match) for match in matches if matches.count(match) > 1}
        if not message.filter_chains and not message.HasField("default_filter_chain"):
            yield "no filter chain"
