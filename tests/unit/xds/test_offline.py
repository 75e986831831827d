"""A proxy without a stream, and the references Envoy would follow."""

import pytest

from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.resource import CDS, LDS, Resource
from pilothouse.xds.node import InvalidNode
from pilothouse.xds.offline import endpoint_names, proxy_of, route_names

NODE = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"


def test_proxy_of_id_and_metadata() -> None:
    """Metadata as JSON is read as it would be from a stream (NM-01, NM-02, NM-06)."""
    proxy = proxy_of(NODE, {"LABELS": {"app": "web"}, "INTERCEPTION_MODE": "NONE"})
    assert proxy.namespace == "shop"
    assert proxy.labels == (("app", "web"),)
    assert proxy.interception_mode is InterceptionMode.NONE


def test_bad_node_is_refused() -> None:
    """A malformed id is the same error as on a stream (NM-27)."""
    with pytest.raises(InvalidNode):
        proxy_of("web-1", {})


def test_names_are_followed_once() -> None:
    """Each load assignment and route configuration is asked for once, in order."""
    clusters = [Resource(CDS, name, b"", endpoints_name=name) for name in ("b", "a")]
    clusters.append(Resource(CDS, "static", b""))
    clusters.append(Resource(CDS, "b2", b"", endpoints_name="b"))
    assert list(endpoint_names(clusters)) == ["b", "a"]

    listener = Listener(name="l")
    for name in ("80", "9080", "80", ""):
        manager = hcm_pb2.HttpConnectionManager(stat_prefix="x")
        if name:
            manager.rds.route_config_name = name
        else:
            manager.route_config.name = "inline"
        listener.filter_chains.add().filters.add(name="h").typed_config.Pack(manager)
    fallback = hcm_pb2.HttpConnectionManager()
    fallback.rds.route_config_name = "last"
    listener.default_filter_chain.filters.add(name="h").typed_config.Pack(fallback)
    assert list(route_names([Resource(LDS, "l", listener.SerializeToString())])) == [
        "80",
        "9080",
        "last",
    ]
