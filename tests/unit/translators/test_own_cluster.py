"""The workloads a proxy is one of, for Envoy's zone-aware routing (traffic.md NM-17, N-12)."""

import yaml
from mesh_rows import commit

from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse.graph.core import Graph
from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.model.resource import EDS
from pilothouse.translators.envoy import roots

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-%d, namespace: shop}
spec: {address: 10.1.0.%d, locality: eu/eu-%d, labels: {app: web}}
"""


def own(graph: Graph, **more: object) -> ClusterLoadAssignment | None:
    """What a proxy of the service is told of its own cluster."""
    proxy = Proxy(
        id="x",
        type=NodeType.SIDECAR,
        ips=("10.1.0.1",),
        name="web-1",
        namespace="shop",
        domain="shop.svc.cluster.local",
        **more,
    )
    root = roots.named(EDS, graph.value(roots.proxy_class, proxy), "local_cluster")
    assert root is not None
    found = graph.value(*root)
    return ClusterLoadAssignment.FromString(found.data) if found else None


def test_a_proxy_learns_of_its_own_kind() -> None:
    """NM-17, DR-19: all workloads of the service it serves, by zone."""
    graph = Graph()
    commit(graph, yaml.safe_load(SERVICE))
    commit(graph, *(yaml.safe_load(ENTRY % (n, n, n % 2)) for n in (1, 2, 3)))
    found = own(graph, discovers_itself=True)
    assert found is not None
    assert found.cluster_name == "local_cluster"
    zones = {group.locality.zone: len(group.lb_endpoints) for group in found.endpoints}
    assert zones == {"eu-0": 1, "eu-1": 2}


def test_who_does_not_ask_is_not_told() -> None:
    """Without ENABLE_SELF_DISCOVERY, or for a proxy that serves nothing, there is no such thing."""
    graph = Graph()
    commit(graph, yaml.safe_load(ENTRY % (1, 1, 1)))
    assert own(graph, discovers_itself=True) is None
    commit(graph, yaml.safe_load(SERVICE))
    assert own(graph) is None
