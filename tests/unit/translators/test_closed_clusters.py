"""ADR 12: a cluster whose TLS cannot be had sends nothing, whatever it would have been."""

import pytest

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES
from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.model.resource import CDS
from pilothouse.providers.directory_state import DirectoryState
from pilothouse.translators.envoy import roots

MESH = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: default}}
spec:
  hosts: [api.example]
  addresses: [192.0.2.1]
  resolution: {resolution}
  endpoints: [{endpoint}]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api, namespace: default}}
spec:
  host: api.example
  trafficPolicy:
    tls: {{mode: ISTIO_MUTUAL}}
    loadBalancer: {balancer}
    proxyProtocol: {{version: V2}}
    outlierDetection: {{consecutive5xxErrors: 1}}
"""
CLIENT = Proxy(
    id="sidecar~10.0.0.1~client.default~default.svc.cluster.local",
    type=NodeType.SIDECAR,
    ips=("10.0.0.1",),
    name="client",
    namespace="default",
    domain="default.svc.cluster.local",
)


@pytest.mark.parametrize(
    ("resolution", "endpoint"),
    [
        ("STATIC", "{address: 192.0.2.2}"),
        ("DNS", "{address: a.example}"),
        ("DNS_ROUND_ROBIN", "{address: a.example}"),
        ("NONE", ""),
    ],
)
@pytest.mark.parametrize(
    "balancer",
    [
        "{simple: ROUND_ROBIN, warmup: {duration: 10s}}",
        "{simple: PASSTHROUGH}",
        "{consistentHash: {useSourceIp: true, maglev: {tableSize: 101}}}",
    ],
)
def test_nothing_is_left_to_send_to(resolution: str, endpoint: str, balancer: str) -> None:
    """DR-53, until there are certificates."""
    graph = Graph()
    text = MESH.format(resolution=resolution, endpoint=endpoint, balancer=balancer)
    changes = DirectoryState().update("mesh.yaml", text)
    graph.commit((TABLES[each.kind], each.key, each.row) for each in changes)
    root = roots.wildcard(CDS, graph.value(roots.proxy_class, CLIENT))
    assert root is not None
    name = "outbound|80||api.example"
    (served,) = [each for each in graph.value(*root).values() if each.name == name]
    cluster = cluster_pb2.Cluster.FromString(served.data)
    assert cluster.type == cluster_pb2.Cluster.STATIC
    assert not cluster.load_assignment.endpoints
    assert {field.name for field, _ in cluster.ListFields()} == {
        "name",
        "type",
        "alt_stat_name",
        "connect_timeout",
        "circuit_breakers",
        "load_assignment",
        "metadata",
    }
    assert [each.code for each in graph.findings()] == ["TlsUnavailable"]
