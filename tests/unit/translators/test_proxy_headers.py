"""Header settings that stories show by name only (traffic.md PC-06)."""

import pytest

from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse._pb.envoy.extensions.filters.http.router.v3 import router_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.api.mesh_config import DefaultProxyConfig, MeshConfig
from pilothouse.api.mesh_config_check import check
from pilothouse.api.proxy_config import ConnectionSettings, Disabling, ProxyHeaders, ServerHeader
from pilothouse.model.proxies import Profile
from pilothouse.model.proxy_settings import ProxySettings
from pilothouse.translators.envoy.http_connection import (
    HttpSettings,
    inbound_connection,
    outbound_connection,
)

QUIET = ProxySettings(headers=ProxyHeaders(envoy_debug_headers=Disabling(disabled=True)))


def managers(settings: ProxySettings) -> tuple[hcm_pb2.HttpConnectionManager, ...]:
    """The connection managers of both directions."""
    wanted = HttpSettings(settings)
    return (
        outbound_connection("0.0.0.0_80", "80", Profile.ENVOY, wanted),
        inbound_connection("inbound;", route_pb2.RouteConfiguration(), wanted),
    )


@pytest.mark.parametrize(("settings", "is_quiet"), [(QUIET, True), (ProxySettings(), False)])
def test_debug_headers_are_kept_in(settings: ProxySettings, is_quiet: bool) -> None:
    """PC-06: envoyDebugHeaders.disabled makes the router of both directions quiet."""
    for manager in managers(settings):
        router = router_pb2.Router()
        last = manager.http_filters[-1]
        assert last.name == "envoy.filters.http.router"
        assert last.typed_config.Unpack(router)
        assert router.suppress_envoy_headers is is_quiet


def test_the_servers_name() -> None:
    """N-76, PC-06: inbound answers as istio-envoy, outbound as Envoy does, unless told more."""
    outbound, inbound = managers(ProxySettings())
    assert (outbound.server_name, inbound.server_name) == ("", "istio-envoy")
    named = ProxySettings(headers=ProxyHeaders(server=ServerHeader(value="shop")))
    assert [each.server_name for each in managers(named)] == ["shop", "shop"]
    passed = ProxySettings(headers=ProxyHeaders(server=ServerHeader(disabled=True)))
    for manager in managers(passed):
        assert manager.server_name == ""
        transformation = manager.server_header_transformation
        assert transformation == hcm_pb2.HttpConnectionManager.PASS_THROUGH


def test_limits_envoy_would_refuse_are_refused_first() -> None:
    """PC-07: each is told with its field."""
    config = MeshConfig(
        default_config=DefaultProxyConfig(
            connection_settings=ConnectionSettings(
                http_max_concurrent_streams=0,
                http2_initial_stream_window_size=1024,
                listener_connection_limit=0,
                cluster_per_connection_buffer_limit_bytes=-1,
            )
        )
    )
    assert {problem.path.rpartition(".")[2] for problem in check(config)} == {
        "httpMaxConcurrentStreams",
        "http2InitialStreamWindowSize",
        "listenerConnectionLimit",
        "clusterPerConnectionBufferLimitBytes",
    }
