"""
The HTTP connection manager: what every HTTP filter chain has in common (traffic.md LS-15 to LS-17).

The filter order is data, one tuple per direction. Which filters a proxy may be sent is decided by
its profile: a stock Envoy refuses a listener that names a filter it was not built with.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple, cast

from google.protobuf.message import Message

from pilothouse._pb.envoy.config.core.v3 import config_source_pb2
from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse._pb.envoy.extensions.filters.http.cors.v3 import cors_pb2
from pilothouse._pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from pilothouse._pb.envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from pilothouse._pb.envoy.extensions.filters.http.router.v3 import router_pb2
from pilothouse._pb.envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.request_id.uuid.v3 import uuid_pb2
from pilothouse._pb.udpa.type.v1 import typed_struct_pb2
from pilothouse.api.mesh_config import PathNormalizationType
from pilothouse.api.proxy_config import ClientCertDetails, ProxyHeaders
from pilothouse.model.proxies import Profile
from pilothouse.model.proxy_settings import NO_SETTINGS, ProxySettings
from pilothouse.translators.envoy.access_logs import AccessLogging, access_log
from pilothouse.translators.envoy.connection_settings import (
    apply_connection_settings,
    preserved_case,
)
from pilothouse.translators.envoy.dynamic_dns import DynamicHost, dynamic_http_filter
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.stateful_sessions import session_filter

ALPN_FILTER: Final = "istio.alpn"
ALPN_OVERRIDE_FILTER: Final = "envoy.filters.http.set_filter_state"
"""Stands in for `istio.alpn` on a stock Envoy: routes override the upstream ALPN through it."""

_ALPN_CONFIG: Final = (
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
)
_ALPN_BY_PROTOCOL: Final = (
    ("HTTP10", ("istio-http/1.0", "istio", "http/1.0")),
    ("HTTP11", ("istio-http/1.1", "istio", "http/1.1")),
    ("HTTP2", ("istio-h2", "istio", "h2")),
)


class HttpSettings(NamedTuple):
    """What holds for all HTTP of a proxy: its own settings, the mesh's paths and logs (MC-18)."""

    own: ProxySettings = NO_SETTINGS
    normalization: PathNormalizationType = "DEFAULT"
    logging: AccessLogging | None = None


def outbound_connection(
    listener_name: str,
    routes: str | route_pb2.RouteConfiguration,
    profile: Profile,
    settings: HttpSettings,
    *,
    lookups: Iterable[DynamicHost] = (),
    keeps_sessions: bool = False,
) -> hcm_pb2.HttpConnectionManager:
    """
    Build the connection manager of an outbound chain; routes given by name come over RDS.

    `lookups` are the hosts whose names are looked up when they are called (SE-17). With
    `keeps_sessions` virtual hosts may say how sessions stick (K8-11).
    """
    manager = _common(f"outbound_{listener_name};", settings)
    if isinstance(routes, str):
        manager.rds.route_config_name = routes
        manager.rds.config_source.CopyFrom(_ADS)
    else:
        manager.route_config.CopyFrom(routes)
    *filters, router = _outbound_filters(profile, is_quiet=_is_quiet(settings.own.headers))
    manager.http_filters.extend((*filters, *map(dynamic_http_filter, lookups)))
    if keeps_sessions:
        manager.http_filters.append(session_filter())
    manager.http_filters.append(router)
    return manager


def inbound_connection(
    stat_prefix: str,
    routes: route_pb2.RouteConfiguration,
    settings: HttpSettings,
    *,
    is_own_tls: bool = False,
) -> hcm_pb2.HttpConnectionManager:
    """
    Build the connection manager of an inbound chain; its routes are inline (N-44).

    Where the TLS is not the mesh's, what a client writes of certificates is not passed on.
    """
    manager = _common(stat_prefix, settings, server_name="istio-envoy")
    _describe_client(manager, settings.own.headers, is_own_tls=is_own_tls)
    manager.route_config.CopyFrom(routes)
    manager.http_filters.extend(_inbound_filters(is_quiet=_is_quiet(settings.own.headers)))
    return manager


def _common(
    stat_prefix: str, settings: HttpSettings, *, server_name: str = ""
) -> hcm_pb2.HttpConnectionManager:
    manager = hcm_pb2.HttpConnectionManager(stat_prefix=stat_prefix)
    manager.codec_type = hcm_pb2.HttpConnectionManager.AUTO
    manager.use_remote_address.SetInParent()
    manager.stream_idle_timeout.SetInParent()
    _normalize(manager, settings.normalization)
    manager.proxy_100_continue = True
    manager.upgrade_configs.add(upgrade_type="websocket")
    manager.request_id_extension.typed_config.CopyFrom(_REQUEST_ID)
    own = settings.own
    if own.accepts_http10:
        manager.http_protocol_options.accept_http_10 = True
    if own.preserves_case:
        manager.http_protocol_options.header_key_format.CopyFrom(preserved_case())
    if own.idle_timeout is not None:
        manager.common_http_protocol_options.idle_timeout.FromTimedelta(own.idle_timeout)
    _apply_headers(manager, own.headers, server_name)
    if settings.logging is not None:
        manager.access_log.append(access_log(settings.logging))
    if own.connections is not None:
        apply_connection_settings(manager, own.connections)
    return manager


def _apply_headers(
    manager: hcm_pb2.HttpConnectionManager, headers: ProxyHeaders | None, server_name: str
) -> None:
    server = headers.server if headers else None
    if server is not None and server.disabled:
        passes = hcm_pb2.HttpConnectionManager.PASS_THROUGH
        manager.server_header_transformation = passes
    else:
        manager.server_name = (server.value if server else "") or server_name
    if headers is None:
        return
    if headers.request_id is not None and headers.request_id.disabled:
        manager.generate_request_id.SetInParent()
    if headers.x_forwarded_port is not None and headers.x_forwarded_port.enabled:
        manager.append_x_forwarded_port = True


def _describe_client(
    manager: hcm_pb2.HttpConnectionManager, headers: ProxyHeaders | None, *, is_own_tls: bool
) -> None:
    """Say what x-forwarded-client-cert tells the workload (PC-05)."""
    wanted = headers.forwarded_client_cert if headers else "UNDEFINED"
    if wanted == "UNDEFINED":
        wanted = "SANITIZE_SET" if is_own_tls else "APPEND_FORWARD"
    manager.forward_client_cert_details = cast(
        "hcm_pb2.HttpConnectionManager.ForwardClientCertDetails",
        hcm_pb2.HttpConnectionManager.ForwardClientCertDetails.Value(wanted),
    )
    told = headers.set_current_client_cert_details if headers else None
    told = told or ClientCertDetails()
    details = manager.set_current_client_cert_details
    details.subject.value = told.subject is not False
    details.uri = told.uri is not False
    details.dns = told.dns is not False
    details.cert = bool(told.cert)
    details.chain = bool(told.chain)


def _is_quiet(headers: ProxyHeaders | None) -> bool:
    """Tell whether the router keeps what only debugging needs to itself."""
    debug = headers.envoy_debug_headers if headers else None
    return bool(debug and debug.disabled)


def _normalize(
    manager: hcm_pb2.HttpConnectionManager, normalization: PathNormalizationType
) -> None:
    # Each step includes the ones before it (MC-18).
    if normalization != "NONE":
        manager.normalize_path.value = True
    if normalization in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"):
        manager.merge_slashes = True
    if normalization == "DECODE_AND_MERGE_SLASHES":
        action = hcm_pb2.HttpConnectionManager.UNESCAPE_AND_FORWARD
        manager.path_with_escaped_slashes_action = action


def _filter(name: str, config: Message) -> hcm_pb2.HttpFilter:
    return hcm_pb2.HttpFilter(name=name, typed_config=pack(config))


@lru_cache(maxsize=8)
def _outbound_filters(profile: Profile, *, is_quiet: bool) -> tuple[hcm_pb2.HttpFilter, ...]:
    return (_GRPC_STATS, _alpn(profile), _FAULT, _CORS, _router(is_quiet=is_quiet))


@lru_cache(maxsize=2)
def _inbound_filters(*, is_quiet: bool) -> tuple[hcm_pb2.HttpFilter, ...]:
    return (_GRPC_STATS, _FAULT, _CORS, _router(is_quiet=is_quiet))


def _router(*, is_quiet: bool) -> hcm_pb2.HttpFilter:
    router = router_pb2.Router(suppress_envoy_headers=is_quiet)
    return _filter("envoy.filters.http.router", router)


def _alpn(profile: Profile) -> hcm_pb2.HttpFilter:
    if profile is Profile.ENVOY:
        return _filter(ALPN_OVERRIDE_FILTER, set_filter_state_pb2.Config())
    config = typed_struct_pb2.TypedStruct(type_url=_ALPN_CONFIG)
    overrides = config.value.fields["alpn_override"].list_value
    for protocol, names in _ALPN_BY_PROTOCOL:
        fields = overrides.values.add().struct_value.fields
        fields["upstream_protocol"].string_value = protocol
        fields["alpn_override"].list_value.extend(names)
    return _filter(ALPN_FILTER, config)


def _ads() -> config_source_pb2.ConfigSource:
    source = config_source_pb2.ConfigSource(resource_api_version=config_source_pb2.V3)
    source.ads.SetInParent()
    source.initial_fetch_timeout.SetInParent()  # wait for ever (N-67)
    return source


def _grpc_stats() -> hcm_pb2.HttpFilter:
    config = grpc_stats_pb2.FilterConfig(emit_filter_state=True)
    config.stats_for_all_methods.SetInParent()
    return _filter("envoy.filters.http.grpc_stats", config)


_ADS: Final = _ads()
_REQUEST_ID: Final = pack(uuid_pb2.UuidRequestIdConfig())
_GRPC_STATS: Final = _grpc_stats()
_FAULT: Final = _filter("envoy.filters.http.fault", fault_pb2.HTTPFault())
_CORS: Final = _filter("envoy.filters.http.cors", cors_pb2.Cors())
