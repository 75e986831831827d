"""Which ports a workload serves (traffic.md K8-18, NM-10)."""

import yaml
from mesh_rows import commit

from pilothouse.graph.core import Graph
from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.model.workloads import targets

NAMED = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {containers: [{ports: [{name: web, containerPort: 9090}]}]}
status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}
"""
PROXY = {
    "id": "sidecar~10.1.0.1~web-0.shop~shop.svc.cluster.local",
    "type": NodeType.SIDECAR,
    "ips": ("10.1.0.1",),
    "name": "web-0",
    "namespace": "shop",
    "domain": "shop.svc.cluster.local",
    "labels": (("app", "web"),),
}


def numbers(*documents: str, **more) -> list[int]:
    """The ports a proxy serves in a mesh of these objects."""
    graph = Graph()
    commit(graph, *map(yaml.safe_load, documents))
    return [each.number for each in graph.value(targets, Proxy(**PROXY, **more))]


def test_a_named_target_port_is_the_pods() -> None:
    """K8-04: where the pod is known, whatever the proxy says."""
    assert numbers(NAMED, POD, ports=(("web", 8080),)) == [9090]


def test_without_the_pod_the_proxy_knows_its_ports() -> None:
    """NM-10: POD_PORTS names them; a name nobody knows is served by nobody."""
    assert numbers(NAMED, ports=(("web", 8080),)) == [8080]
    assert numbers(NAMED) == []
