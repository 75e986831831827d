"""
Which proxies are served the same bytes: those whose differences change nothing (section 4, CA-).

Sharing is by value: whatever an answer was worked out from is part of its key, and nothing else.
"""

from typing import Any

import pytest
import story
from mesh_of import mesh_of
from served_mesh import CLIENT, proxy

from pilothouse.graph.core import Graph
from pilothouse.model.proxies import Proxy
from pilothouse.translators.envoy import roots

MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.2.0.1]}]
"""
RULE = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {%s}}
"""
ROUTE = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.shop.svc.cluster.local]
  http:
  - match: [{%s}]
    timeout: 1s
    route: [{destination: {host: web}}]
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: %s}
spec: {mtls: {mode: DISABLE}}
"""
WEB = "outbound|80||web.shop.svc.cluster.local"


def node(ip: str = "10.1.0.1", namespace: str = "default", name: str = "a") -> str:
    return f"sidecar~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"


def differing(graph: Graph, one: Proxy, other: Proxy) -> set[str]:
    """The types in which two proxies are served different things."""
    left, right = story.served_to(graph, one), story.served_to(graph, other)
    return {kind for kind in left if left[kind] != right[kind]}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ISTIO_VERSION": "1.20.3"},
        {"MESH_ID": "m", "WORKLOAD_NAME": "w", "OWNER": "kubernetes://x", "NAME": "n"},
        {"PLATFORM_METADATA": {"gcp_project": "p"}, "APP_CONTAINERS": "a,b"},
        {"METADATA_DISCOVERY": "true", "STS_PORT": "15463", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "1"},
        {"LABELS": {"app": "nobody-asks"}},
        {"CLUSTER_ID": "Kubernetes"},
        {"POD_PORTS": '[{"name": "x", "containerPort": 8080}]'},
        {"NODE_NAME": "node-1"},
    ],
    ids=lambda metadata: next(iter(metadata)),
)
def test_what_shapes_nothing_sets_nobody_apart(metadata: dict[str, Any]) -> None:
    """NM-05, NM-23, NM-25, CA-02: such proxies are of one class, so that they share every byte."""
    graph = mesh_of(MESH)
    plain = graph.value(roots.proxy_class, proxy())
    assert graph.value(roots.proxy_class, proxy(CLIENT, **metadata)) == plain


def test_proxies_of_one_class_are_given_the_same_objects() -> None:
    """CA-01: made and encoded once, whoever asks."""
    graph = mesh_of(MESH)
    one, other = (story.served_to(graph, proxy(node(name=name))) for name in ("a", "b"))
    for kind, resources in one.items():
        assert resources
        for mine, theirs in zip(resources, other[kind], strict=True):
            assert mine is theirs


def test_what_differs_elsewhere_is_shared_all_the_same() -> None:
    """CA-01, CA-05: clusters, assignments and virtual hosts do not know of what they do not use."""
    graph = mesh_of(MESH)
    first, second = (
        proxy(node("10.1.0.1")),
        proxy(node("10.1.0.2", "other", "b"), IDLE_TIMEOUT="5s"),
    )
    found = [story.served_to(graph, each) for each in (first, second)]
    for kind in ("cds", "eds"):
        mine, theirs = ({each.name: each for each in served[kind]} for served in found)
        assert mine[WEB] is theirs[WEB]
    assert differing(graph, first, second) == {"lds"}


@pytest.mark.parametrize(
    ("more", "metadata", "types"),
    [
        ("", {"INSTANCE_IPS": "10.9.0.1,fd00::1"}, {"cds", "lds"}),
        ("", {"INTERCEPTION_MODE": "NONE"}, {"lds"}),
        ("", {"PILOTHOUSE_CERTIFICATES": "ads"}, {"cds", "lds"}),
        ("", {"PILOTHOUSE_PROFILE": "istio-proxy"}, {"lds"}),
        (RULE % "outlierDetection: {interval: 1s}", {}, set()),
        (ROUTE % "sourceLabels: {app: x}", {"LABELS": {"app": "x"}}, {"rds"}),
        (ROUTE % "uri: {prefix: /x}", {"LABELS": {"app": "x"}}, set()),
    ],
    ids=["family", "interception", "certificates", "profile", "nothing", "labels", "other labels"],
)
def test_what_an_answer_reads_sets_clients_apart_in_it(
    more: str, metadata: dict[str, Any], types: set[str]
) -> None:
    """CA-02, CA-05, NM-03, NM-06: in these types, and in no other."""
    assert differing(mesh_of(MESH + more), proxy(), proxy(CLIENT, **metadata)) == types


POOL = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pool, namespace: shop}
spec:
  hosts: [pool.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.3.0.1, locality: r1/z1}, {address: 10.3.0.2, locality: r2/z2}]
"""
EJECTION = RULE.replace("host: web", "host: pool.example") % "outlierDetection: {interval: 1s}"


def test_clients_of_other_places_are_told_apart_only_where_places_count() -> None:
    """CA-02, 3.10: the assignment of a host that fails over, and of no other."""
    places = [
        proxy(CLIENT, LABELS={"topology.istio.io/locality": where}) for where in ("r1.z1", "r2.z2")
    ]
    assert differing(mesh_of(MESH + POOL), *places) == set()
    ejecting = mesh_of(MESH + POOL + EJECTION)
    assert differing(ejecting, *places) == {"eds"}
    here, there = (
        {each.name: each for each in story.served_to(ejecting, place)["eds"]} for place in places
    )
    assert {name for name in here if here[name] != there[name]} == {"outbound|80||pool.example"}
    assert here[WEB] is there[WEB]


@pytest.mark.parametrize(
    ("namespace", "changed"), [("other", set()), ("shop", {"outbound|80||pool.example"})]
)
def test_a_policy_changes_what_it_is_for(namespace: str, changed: set[str]) -> None:
    """CA-04: assignments of its workloads; those of others are not thrown away for it."""
    labelled = POOL.replace("locality: r1/z1", "labels: {security.istio.io/tlsMode: istio}")
    internal = labelled.replace("resolution:", "location: MESH_INTERNAL\n  resolution:")
    one = proxy(CLIENT, PILOTHOUSE_CERTIFICATES="ads")
    before = story.served_to(mesh_of(MESH + internal), one)
    after = story.served_to(mesh_of(MESH + internal + POLICY % namespace), one)
    assert {each.name for each in set(after["eds"]) - set(before["eds"])} == changed
