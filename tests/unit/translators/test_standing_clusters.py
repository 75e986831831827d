"""The clusters that every sidecar has, and what statistics call clusters (N-05 to N-07, N-14)."""

from typing import Any

import pytest
from served_mesh import told

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def test_the_black_hole_has_no_endpoints() -> None:
    """N-05: connections fail at once; nothing is looked up."""
    hole = told().clusters["BlackHoleCluster"]
    assert hole["type"] == "STATIC"
    assert "load_assignment" not in hole
    assert "upstream_bind_config" not in hole


@pytest.mark.parametrize("name", ["PassthroughCluster", "InboundPassthroughCluster"])
def test_what_passes_keeps_its_destination_and_protocol(name: str) -> None:
    """N-06, N-07: where the client wanted to, in the HTTP it speaks, closed after five minutes."""
    passing = told().clusters[name]
    assert (passing["type"], passing["lb_policy"]) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")
    assert "cleanup_interval" not in passing
    assert "transport_socket" not in passing
    options = passing["typed_extension_protocol_options"][OPTIONS]
    assert options["common_http_protocol_options"] == {"idle_timeout": "300s"}
    spoken = options["use_downstream_protocol_config"]
    assert spoken == {"http_protocol_options": {}, "http2_protocol_options": {}}


@pytest.mark.parametrize(
    ("ips", "first", "more"),
    [
        ("10.1.0.2", "127.0.0.6", []),
        ("fd00::2", "::6", []),
        ("10.1.0.2,fd00::2", "127.0.0.6", ["::6"]),
        ("fd00::2,10.1.0.2", "127.0.0.6", ["::6"]),
    ],
)
def test_inbound_connections_come_from_an_address_of_their_own(
    ips: str, first: str, more: list[str]
) -> None:
    """N-07, NM-03, 3.16: of each family the workload has; outbound ones from wherever."""
    node = f"sidecar~{ips.partition(',')[0]}~a-0.default~default.svc.cluster.local"
    clusters = told(node_id=node, INSTANCE_IPS=ips).clusters
    bind = clusters["InboundPassthroughCluster"]["upstream_bind_config"]
    assert bind["source_address"]["address"] == first
    found = [each["address"]["address"] for each in bind.get("extra_source_addresses", ())]
    assert found == more
    assert "upstream_bind_config" not in clusters["PassthroughCluster"]


@pytest.mark.parametrize("name", ["PassthroughCluster", "InboundPassthroughCluster"])
def test_what_passes_keeps_the_case_of_headers_too(name: str) -> None:
    """PC-06: for a proxy that preserves it, wherever its requests go."""
    config = {"proxyHeaders": {"preserveHttp1HeaderCase": True}}
    passing = told(PROXY_CONFIG=config).clusters[name]
    spoken = passing["typed_extension_protocol_options"][OPTIONS]["use_downstream_protocol_config"]
    formatter = spoken["http_protocol_options"]["header_key_format"]["stateful_formatter"]
    assert formatter["name"] == "preserve_case"


SERVED = """
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}
"""


def test_statistics_call_clusters_by_their_names() -> None:
    """N-14: with a semicolon at the end, by which tags are told from what follows."""
    clusters = told(SERVED, LABELS={"app": "a"}).clusters
    assert {"inbound|80||", "outbound|80|v1|a.default.svc.cluster.local"} <= set(clusters)
    for name, each in clusters.items():
        assert each["alt_stat_name"] == f"{name};"


def test_statistics_call_clusters_as_the_mesh_config_says() -> None:
    """N-14, MC-15: a pattern is filled in, and ends in the same way."""
    mesh = (
        "outboundClusterStatName: '%SERVICE%_%SUBSET_NAME%'\ninboundClusterStatName: in_%SERVICE%"
    )
    clusters: dict[str, Any] = dict(told(SERVED, mesh, LABELS={"app": "a"}).clusters)
    host = "a.default.svc.cluster.local"
    assert clusters[f"outbound|80|v1|{host}"]["alt_stat_name"] == "a.default_v1;"
    assert clusters["inbound|80||"]["alt_stat_name"] == "in_a.default;"
    assert clusters["BlackHoleCluster"]["alt_stat_name"] == "BlackHoleCluster;"
