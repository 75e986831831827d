"""
Where clients run splits them only where it must: classes, clusters and assignments are shared.

What is served by place is in the golden stories; here it is what stays one node (ADR 11).
"""

from dataclasses import replace

import yaml

from pilothouse.api.decode import decode
from pilothouse.api.destination_rule import LocalityDistribute, LocalityLbSetting
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import MESH_CONFIG, TABLES, THE_MESH
from pilothouse.model.proxies import Locality, NodeType, Proxy
from pilothouse.model.resource import CDS, EDS, LDS
from pilothouse.translators.envoy import roots

SERVICES = """
- &service
  apiVersion: v1
  kind: Service
  metadata: {name: near, namespace: default}
  spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
- <<: *service
  metadata: {name: plain, namespace: default}
- &slice
  apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: near, namespace: default, labels: {kubernetes.io/service-name: near}}
  addressType: IPv4
  ports: [{name: http, port: 80}]
  endpoints: [{addresses: [10.1.0.1], nodeName: a}, {addresses: [10.1.0.2], nodeName: b}]
- <<: *slice
  metadata: {name: plain, namespace: default, labels: {kubernetes.io/service-name: plain}}
- apiVersion: v1
  kind: Node
  metadata: {name: a, labels: {topology.kubernetes.io/region: eu}}
"""
RULE = """
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: near, namespace: default}
  spec: {host: near, trafficPolicy: {outlierDetection: {}}}
"""
LOCAL = """
- apiVersion: v1
  kind: Service
  metadata: {name: near, namespace: default}
  spec: {clusterIP: 10.0.0.1, internalTrafficPolicy: Local, ports: [{name: http, port: 80}]}
"""
NAMES = """
- apiVersion: networking.istio.io/v1
  kind: ServiceEntry
  metadata: {name: names, namespace: default}
  spec:
    hosts: [names.example]
    resolution: DNS
    ports: [{number: 80, name: http, protocol: HTTP}]
    endpoints: [{address: a.example, locality: eu}, {address: b.example, locality: us}]
"""

HERE = Proxy(
    id="eu", type=NodeType.SIDECAR, ips=("10.2.0.1",), name="eu", namespace="default",
    domain="default.svc.cluster.local", locality=Locality(region="eu"), node_name="a",
)  # fmt: skip
THERE = replace(HERE, id="us", ips=("10.2.0.2",), locality=Locality(region="us"), node_name="b")
ASIDE = replace(THERE, id="us-2", ips=("10.2.0.3",), node_name="c")


def mesh(*texts):
    graph = Graph()
    rows = [decode(document).object for text in texts for document in yaml.safe_load(text)]
    graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows)
    return graph


def classes(graph, *proxies):
    return [graph.value(roots.proxy_class, proxy) for proxy in proxies]


def assigned(graph, known, name):
    root = roots.named(EDS, known, f"outbound|80||{name}.default.svc.cluster.local")
    return graph.value(*root)


def test_where_nobody_asks_all_are_one_class():
    """NM-09, NM-26: a place that no object reads is no part of the class."""
    here, there = classes(mesh(SERVICES), HERE, THERE)
    assert here == there


def test_a_rule_splits_clients_by_locality_for_its_host_only():
    """3.10: the other host's assignment is one resource for all; so are clusters and listeners."""
    graph = mesh(SERVICES, RULE)
    here, there, aside = classes(graph, HERE, THERE, ASIDE)
    assert here != there
    assert there == aside, "nodes are not asked for"
    assert assigned(graph, here, "plain") is assigned(graph, there, "plain")
    assert assigned(graph, here, "near").data != assigned(graph, there, "near").data
    assert roots.wildcard(CDS, here) == roots.wildcard(CDS, there)
    assert roots.wildcard(LDS, here) == roots.wildcard(LDS, there)


def test_a_node_local_service_splits_clients_by_node():
    """K8-06, NM-09"""
    graph = mesh(SERVICES, LOCAL)
    here, there, aside = classes(graph, HERE, THERE, ASIDE)
    assert len({here, there, aside}) == 3
    sizes = [
        assigned(graph, known, "near").data.count(b"10.1.0.") for known in (here, there, aside)
    ]
    assert sizes == [1, 1, 0]


def test_clusters_are_made_per_place_only_if_they_list_names():
    """CL-03: DNS clusters hold their endpoints, and with them the ranks."""
    graph = mesh(SERVICES, RULE, NAMES)
    here, there = classes(graph, HERE, THERE)
    assert roots.wildcard(CDS, here) != roots.wildcard(CDS, there)
    mine, other = (graph.value(*roots.wildcard(CDS, known)) for known in (here, there))
    name = "outbound|80||names.example"
    assert mine[name] is other[name], "no rule asks for a rank here"
    assert roots.wildcard(LDS, here) == roots.wildcard(LDS, there)


def test_the_mesh_config_splits_clients_too():
    """MC-11: shares for the whole mesh hold for every service."""
    graph = mesh(SERVICES)
    everywhere = LocalityDistribute(from_="eu", to={"eu": 100})
    row = MeshConfig(locality_lb_setting=LocalityLbSetting(distribute=(everywhere,)))
    graph.commit([(MESH_CONFIG, THE_MESH, row)])
    here, there = classes(graph, HERE, THERE)
    assert assigned(graph, here, "plain").data.count(b"10.1.0.") == 1
    assert assigned(graph, there, "plain").data.count(b"10.1.0.") == 2
