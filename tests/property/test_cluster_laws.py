"""
Laws of several clusters (K8-20): one is as ever, their order is nothing, edits are as from scratch.

Stories serve as meshes of one cluster; random meshes of several are made of the objects of
`mesh_pool.yaml`, spread over clusters.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import story
import yaml
from envoy_constraints import violations
from hypothesis import given, settings
from hypothesis import strategies as st
from story import served_to

from pilothouse._pb._pool import message_class
from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Graph
from pilothouse.graph.explain import mismatches
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import CLUSTERS, TABLES, THE_MESH
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import LDS, RDS, Resource
from pilothouse.providers.clusters import READ_OF_OTHERS, ClusterView

POOL = Path(__file__).with_name("mesh_pool.yaml")
ONE_CLUSTER = [each for each in story.names() if not (story.GOLDEN / each / "clusters").is_dir()]
TELLS_CLUSTERS_BY_LABEL = "locality_services"
"""Its workloads say by a label that they are elsewhere, which counts in our own cluster only."""

DIFFER_WHEN_MOVED = {
    TELLS_CLUSTERS_BY_LABEL,
    "entry_visibility",  # and how far ServiceEntries are seen
    "rare_fields",  # its ServiceEntries are local to our cluster, where config is
}


@pytest.mark.parametrize("name", ONE_CLUSTER)
def test_another_cluster_without_objects_changes_nothing(name: str) -> None:
    """The services of a mesh are what they were, byte for byte, when they are asked of two."""
    alone, beside = story.load(name), story.load(name)
    beside.graph.commit([(CLUSTERS, THE_MESH, KnownClusters(others=("elsewhere",)))])
    for proxy in alone.proxies:
        known = beside.proxy(proxy)
        if known.cluster_id == "west":
            continue
        assert served_to(beside.graph, known) == alone.served(proxy)
    found = {each for each in beside.graph.findings() if each.code != "UnknownCluster"}
    assert found == set(alone.graph.findings()) or name == TELLS_CLUSTERS_BY_LABEL


@pytest.mark.parametrize("name", sorted({*ONE_CLUSTER} - DIFFER_WHEN_MOVED))
def test_workloads_of_a_remote_cluster_alone_are_as_in_ours(name: str) -> None:
    """Config here, everything that runs there: the same but for the name of the cluster."""
    here, there = story.load(name), Graph()
    # Namespaces are in both: ours decide which config takes part, theirs which services.
    own = [each for each in here.changes if each.kind not in READ_OF_OTHERS - {"Namespace"}]
    moved = ClusterView("west").take(each for each in here.changes if each.kind in READ_OF_OTHERS)
    there.commit(
        [
            *((TABLES[each.kind], each.key, each.row) for each in own if each.kind in TABLES),
            *((TABLES[each.kind], each.key, each.row) for each in moved),
            (CLUSTERS, THE_MESH, KnownClusters(others=("west",))),
        ]
    )
    for proxy in here.proxies:
        served = served_to(there, replace(here.proxy(proxy), cluster_id="west"))
        for kind, resources in here.served(proxy).items():
            assert _shown(served[kind]) == _shown(resources)


def _shown(resources: Any) -> Any:
    text = json.dumps([story.content(each) for each in resources])
    return json.loads(re.sub(r";west\b", ";Kubernetes", re.sub(r" @west\b", "", text)))


def _rows() -> list[list[Any]]:
    documents = yaml.safe_load(POOL.read_text())
    return [[decode(document).object for document in variants] for variants in documents]


ROWS = _rows()
NAMES = ("", "east", "west")


def _proxy(cluster: str, name: str, ip: str) -> Proxy:
    return Proxy(
        id=f"{name}.{cluster}", type=NodeType.SIDECAR, ips=(ip,), name=name, namespace="shop",
        domain="shop.svc.cluster.local", labels=(("app", "web"),), cluster_id=cluster,
        certificates=CertificateSource.AGENT,
    )  # fmt: skip


PROXIES = tuple(
    _proxy(cluster, name, ip)
    for cluster in ("Kubernetes", "east", "west")
    for name, ip in (("client", "10.1.0.5"), ("web", "10.1.0.1"))
)

edits = st.tuples(
    st.integers(0, len(ROWS) - 1), st.none() | st.integers(0, 4), st.integers(0, len(NAMES) - 1)
)
commits = st.lists(edits, min_size=1, max_size=14)
known = st.sampled_from([(), ("west",), ("east", "west")])
scripts = st.lists(st.tuples(known, commits), min_size=1, max_size=6)


def changes(batch: list[tuple[int, int | None, int]]) -> Iterator[tuple[Any, ObjectKey, Any]]:
    """Turn (object, variant or None, cluster) into changes of tables; config is ours only."""
    for number, variant, place in batch:
        variants = ROWS[number]
        meta = variants[0].meta
        cluster = NAMES[place] if meta.kind in READ_OF_OTHERS else ""
        row = None if variant is None else variants[variant % len(variants)]
        if row is not None and cluster:
            stamped = msgspec.structs.replace(row.meta, cluster=cluster)
            row = msgspec.structs.replace(row, meta=stamped)
        yield TABLES[meta.kind], meta.key._replace(cluster=cluster), row


@settings(max_examples=60, deadline=None)
@given(scripts)
def test_incremental_equals_from_scratch_in_several_clusters(script: list[Any]) -> None:
    """Clusters that come and go, and objects in them: the same bytes and no mismatch."""
    graph = Graph()
    rows: dict[Any, Any] = {}
    for others, batch in script:
        edited = [*changes(batch), (CLUSTERS, THE_MESH, KnownClusters(others=others))]
        rows.update(((table, key), row) for table, key, row in edited)
        graph.commit(edited)
        served = [served_to(graph, proxy) for proxy in PROXIES]
        scratch = Graph()
        scratch.commit((table, key, row) for (table, key), row in rows.items())
        assert served == [served_to(scratch, proxy) for proxy in PROXIES]
        assert mismatches(graph) == []
        assert not list(graph.failing()), graph.findings()


@settings(max_examples=60, deadline=None)
@given(commits, st.randoms(use_true_random=False))
def test_the_order_of_clusters_is_nothing(batch: list[Any], order: random.Random) -> None:
    """Whatever is read first, and in whatever order clusters are named: the same mesh."""
    rows = {(table, key): row for table, key, row in changes(batch)}
    shuffled = list(rows.items())
    order.shuffle(shuffled)
    one, other = Graph(), Graph()
    one.commit((table, key, row) for (table, key), row in rows.items())
    one.commit([(CLUSTERS, THE_MESH, KnownClusters(others=("east", "west")))])
    other.commit([(CLUSTERS, THE_MESH, KnownClusters(others=("west", "east")))])
    other.commit((table, key, row) for (table, key), row in shuffled)
    for proxy in PROXIES:
        assert served_to(one, proxy) == served_to(other, proxy)
    assert set(one.findings()) == set(other.findings())


@settings(max_examples=60, deadline=None)
@given(commits)
def test_whatever_the_clusters_envoy_would_take_it(batch: list[Any]) -> None:
    """Envoy's own validation rules for any mix of objects in any clusters."""
    graph = Graph()
    graph.commit([*changes(batch), (CLUSTERS, THE_MESH, KnownClusters(others=("east", "west")))])
    for proxy in PROXIES:
        for resources in served_to(graph, proxy).values():
            for resource in resources:
                message = message_class(resource.type_url.rpartition("/")[2]).FromString(
                    resource.data
                )
                assert list(violations(message)) == [], resource
                assert list(refusals(resource, message)) == [], resource


def refusals(resource: Resource, message: Any) -> Iterator[str]:
    """Yield what Envoy refuses that no field rule says: addresses of clusters may well be alike."""
    listed: list[Any] = []
    if resource.type_url == RDS:
        listed = [domain.lower() for host in message.virtual_hosts for domain in host.domains]
    if resource.type_url == LDS:
        listed = [
            chain.filter_chain_match.SerializeToString(deterministic=True)
            for chain in message.filter_chains
        ]
    yield from {str(each) for each in listed if listed.count(each) > 1}
