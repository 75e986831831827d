"""What Kubernetes objects are in the mesh's own words (traffic.md 2.12)."""

import yaml
from mesh_rows import commit

from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Graph
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.inputs import DOMAIN, THE_MESH, MeshDomain
from pilothouse.model.services import kubernetes_service

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-0, namespace: shop}}]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: keeper}
status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}
"""


def test_the_host_of_a_service() -> None:
    """K8-01: name, namespace and the mesh's domain."""
    graph = Graph()
    commit(graph, yaml.safe_load(SERVICE))
    found = graph.value(kubernetes_service, ObjectKey("shop", "web"))
    assert found is not None
    assert found.host == "web.shop.svc.cluster.local"
    graph.commit([(DOMAIN, THE_MESH, MeshDomain("mesh.example"))])
    found = graph.value(kubernetes_service, ObjectKey("shop", "web"))
    assert found is not None
    assert found.host == "web.shop.svc.mesh.example"


def test_who_runs_an_endpoint() -> None:
    """K8-15: the pod's service account, under the pod's namespace."""
    graph = Graph()
    commit(graph, *map(yaml.safe_load, (SERVICE, SLICE, POD)))
    service = graph.value(kubernetes_service, ObjectKey("shop", "web"))
    assert service is not None
    [found] = graph.value(endpoints, EndpointsKey(service.key, 80))
    assert found.account == "ns/shop/sa/keeper"


def test_a_port_of_a_rule_has_a_number() -> None:
    """DR-64: there is no port by name; whoever writes one is told."""
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: shop}
spec:
  host: web
  trafficPolicy: {portLevelSettings: [{port: {name: http}, tls: {mode: DISABLE}}]}
"""
    decoded = decode(yaml.safe_load(rule))
    where = "spec.trafficPolicy.portLevelSettings[0].port"
    assert f"{where}.name" in [finding.ref.path for finding in decoded.findings]
