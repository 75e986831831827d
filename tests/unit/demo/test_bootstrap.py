"""The static config an Envoy starts with."""

import json

import pytest

from pilothouse.model.names import XDS_CLUSTER
from pilothouse.model.proxies import InterceptionMode, Locality
from pilothouse.translators.envoy.bootstrap import (
    Address,
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
    node,
)

WORKLOAD = Workload(
    name="reviews-v1",
    namespace="shop",
    addresses=("127.0.10.4", "fd00::4"),
    labels={"app": "reviews", "version": "v1"},
    service_account="bookinfo-reviews",
    interception_mode=InterceptionMode.NONE,
    locality=Locality(region="r1", zone="z1"),
)


def test_the_node_is_what_an_agent_would_send() -> None:
    """NM-01..06, NM-26"""
    made = node(WORKLOAD)

    assert made["id"] == "sidecar~127.0.10.4~reviews-v1.shop~shop.svc.cluster.local"
    assert made["cluster"] == "reviews.shop"
    assert made["locality"] == {"region": "r1", "zone": "z1"}
    metadata = made["metadata"]
    assert metadata["NAMESPACE"] == "shop"
    assert metadata["LABELS"] == {"app": "reviews", "version": "v1"}
    assert metadata["INSTANCE_IPS"] == "127.0.10.4,fd00::4"
    assert metadata["INTERCEPTION_MODE"] == "NONE"
    assert metadata["SERVICE_ACCOUNT"] == "bookinfo-reviews"
    assert metadata["CLUSTER_ID"] == "Kubernetes"
    assert "NETWORK" not in metadata


def test_given_metadata_wins() -> None:
    """PC-11: as an agent adds what proxyMetadata says, by which users switch features on."""
    workload = Workload(
        name="a",
        namespace="b",
        addresses=("10.0.0.1",),
        labels={},
        network="n1",
        metadata={"CLUSTER_ID": "west", "HTTP10": "1"},
    )

    metadata = node(workload)["metadata"]

    assert metadata["CLUSTER_ID"] == "west"
    assert metadata["HTTP10"] == "1"
    assert metadata["NETWORK"] == "n1"


@pytest.mark.parametrize(("delta", "api_type"), [(True, "DELTA_GRPC"), (False, "GRPC")])
def test_everything_comes_over_one_stream(delta: bool, api_type: str) -> None:
    made = bootstrap(
        WORKLOAD,
        control_plane=SocketAddress(address="127.0.0.1", port=15010),
        admin=PipeAddress(path="/x/admin.sock"),
        delta=delta,
    )

    dynamic = made["dynamic_resources"]
    assert dynamic["ads_config"]["api_type"] == api_type
    assert "ads" in dynamic["cds_config"]
    assert "ads" in dynamic["lds_config"]
    service = dynamic["ads_config"]["grpc_services"][0]["envoy_grpc"]
    (cluster,) = made["static_resources"]["clusters"]
    assert service["cluster_name"] == cluster["name"] == XDS_CLUSTER
    assert made["admin"]["address"] == {"pipe": {"path": "/x/admin.sock"}}
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            SocketAddress(address="10.0.0.9", port=15010),
            {"socket_address": {"address": "10.0.0.9", "port_value": 15010}},
        ),
        (PipeAddress(path="/run/xds"), {"pipe": {"path": "/run/xds"}}),
    ],
)
def test_the_control_plane_may_be_a_port_or_a_pipe(
    address: Address, expected: dict[str, object]
) -> None:
    made = bootstrap(WORKLOAD, control_plane=address, admin=SocketAddress(address="::1", port=0))

    (cluster,) = made["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    assert locality["lb_endpoints"][0]["endpoint"]["address"] == expected
