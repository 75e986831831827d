"""
What edits cost in a mesh of several clusters, as formulas: what one of ours costs (K8-20).

A made mesh of n services, each in every cluster with a slice of endpoints, watched by a proxy in
each. What a budget does not mention, it does not grow with.
"""

from typing import Any

import msgspec
import pytest

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import CLUSTERS, TABLES, THE_MESH
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.translators.envoy import roots
from pilothouse.xds.offline import endpoint_names, route_names

NAMES = ("", "east", "west")
Change = tuple[Any, Any, Any]


def service(number: int, cluster: str, port: int = 80) -> Change:
    """A Service of a cluster."""
    return _change(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"s{number}", "namespace": "shop"},
            "spec": {
                "clusterIP": f"10.{NAMES.index(cluster)}.{number // 250}.{number % 250}",
                "ports": [{"name": "http", "port": port, "targetPort": 8080}],
            },
        },
        cluster,
    )


def slice_of(number: int, cluster: str, last: int = 1) -> Change:
    """A slice of such a Service."""
    base = 100 + 10 * NAMES.index(cluster)
    labels = {"kubernetes.io/service-name": f"s{number}"}
    return _change(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": f"s{number}-1", "namespace": "shop", "labels": labels},
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": [f"10.{base + n}.{number // 250}.{number % 250}"]}
                for n in range(last)
            ],
        },
        cluster,
    )


def _change(document: dict[str, Any], cluster: str) -> Change:
    row = decode(document).object
    assert row is not None
    meta = msgspec.structs.replace(row.meta, cluster=cluster)
    return TABLES[meta.kind], meta.key, msgspec.structs.replace(row, meta=meta)


class Watched:
    """A mesh and one proxy in each cluster, whose roots are pinned."""

    def __init__(self, services: int) -> None:
        self.graph = Graph()
        self.graph.commit(
            [
                (CLUSTERS, THE_MESH, KnownClusters(others=NAMES[1:])),
                *(
                    made(number, cluster)
                    for number in range(services)
                    for cluster in NAMES
                    for made in (service, slice_of)
                ),
            ]
        )
        for cluster in NAMES:
            self._follow(cluster)

    def _follow(self, cluster: str) -> None:
        proxy = Proxy(
            id=f"p{cluster}", type=NodeType.SIDECAR, ips=("10.250.0.1",), name="p",
            namespace="shop", domain="shop.svc.cluster.local", cluster_id=cluster,
            certificates=CertificateSource.AGENT,
        )  # fmt: skip
        graph = self.graph
        graph.pin(roots.proxy_class, proxy)
        known = graph.value(roots.proxy_class, proxy)
        clusters = tuple(self._whole(CDS, known))
        listeners = tuple(self._whole(LDS, known))
        for kind, names in ((EDS, endpoint_names(clusters)), (RDS, route_names(listeners))):
            for name in names:
                root = roots.named(kind, known, name)
                assert root is not None
                graph.pin(*root)

    def _whole(self, kind: str, known: Any) -> Any:
        root = roots.wildcard(kind, known)
        assert root is not None
        self.graph.pin(*root)
        return self.graph.value(*root).values()

    def cost(self, *changes: Change) -> dict[str, int]:
        """Apply changes as one commit and settle what they woke; return how often what ran."""
        self.graph.commit(changes)
        for node in self.graph.take_dirty():
            self.graph.value(node.query, node.key)
        return {name.rpartition(".")[2]: n for name, n in self.graph.stats.recomputed.items()}


@pytest.fixture(scope="module")
def small() -> Watched:
    """Fifty services in three clusters."""
    return Watched(50)


@pytest.fixture(scope="module")
def large() -> Watched:
    """Four times as many."""
    return Watched(200)


def test_an_endpoint_of_any_cluster_costs_the_same(small: Watched, large: Watched) -> None:
    """The endpoints of one port, and one load assignment for all who see the same."""
    costs = [
        mesh.cost(slice_of(7, cluster, last=2)) for mesh in (small, large) for cluster in NAMES
    ]
    assert all(cost == costs[0] for cost in costs), costs
    assert costs[0]["endpoints"] == 1
    assert costs[0]["load_assignment"] == 1
    assert sum(costs[0].values()) <= 6


def test_words_that_do_not_count_stop_at_once(small: Watched, large: Watched) -> None:
    """Other ports in another cluster: its part, the merged service, and who may be served by it."""
    costs = [mesh.cost(service(9, "west", port=81)) for mesh in (small, large)]
    assert costs[0] == costs[1]
    assert costs[0]["declared_service"] == 1
    assert costs[0]["kubernetes_service"] == 1
    assert "cluster" not in costs[0]
    assert "load_assignment" not in costs[0]
    assert sum(costs[0].values()) <= 5


def test_a_mesh_of_one_cluster_asks_once() -> None:
    """Without other clusters there is no part to merge, and no node for one."""
    graph = Graph()
    graph.commit([service(1, ""), slice_of(1, "")])
    graph.value(roots.proxy_class, Proxy(
        id="p", type=NodeType.SIDECAR, ips=("10.250.0.1",), name="p", namespace="shop",
        domain="shop.svc.cluster.local",
    ))  # fmt: skip
    assert "model.kubernetes_services.declared_service" not in graph.stats.recomputed
