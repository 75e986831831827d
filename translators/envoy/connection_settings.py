"""
A proxy's connectionSettings and header settings in Envoy's words (traffic.md PC-06, PC-07).

Limits of listeners and of gateways are not here: Istio gives them to gateways only.
"""

from typing import Final

from pilothouse._pb.envoy.config.core.v3 import protocol_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.http.header_formatters.preserve_case.v3 import (
    preserve_case_pb2,
)
from pilothouse.api.proxy_config import ConnectionSettings
from pilothouse.translators.envoy.encoding import pack

_HeaderFormat = protocol_pb2.Http1ProtocolOptions.HeaderKeyFormat
_UNDERSCORES: Final = {
    "HEADERS_WITH_UNDERSCORES_ALLOW": protocol_pb2.HttpProtocolOptions.ALLOW,
    "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST": protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
    "HEADERS_WITH_UNDERSCORES_DROP_HEADER": protocol_pb2.HttpProtocolOptions.DROP_HEADER,
}
_SLASHES: Final = {
    "KEEP_UNCHANGED": hcm_pb2.HttpConnectionManager.KEEP_UNCHANGED,
    "REJECT_REQUEST": hcm_pb2.HttpConnectionManager.REJECT_REQUEST,
    "UNESCAPE_AND_REDIRECT": hcm_pb2.HttpConnectionManager.UNESCAPE_AND_REDIRECT,
    "UNESCAPE_AND_FORWARD": hcm_pb2.HttpConnectionManager.UNESCAPE_AND_FORWARD,
}


def apply_connection_settings(
    manager: hcm_pb2.HttpConnectionManager, settings: ConnectionSettings
) -> None:
    """Set times, streams and paths; what is given wins over the mesh's defaults (PC-07)."""
    common = manager.common_http_protocol_options
    for target, given in (
        (manager.stream_idle_timeout, settings.http_stream_idle_timeout),
        (manager.request_timeout, settings.http_request_timeout),
        (manager.request_headers_timeout, settings.http_request_headers_timeout),
        (manager.drain_timeout, settings.http_drain_timeout),
        (common.idle_timeout, settings.http_idle_timeout),
        (common.max_connection_duration, settings.http_max_connection_duration),
        (common.max_stream_duration, settings.http_max_stream_duration),
    ):
        if given is not None:
            target.FromTimedelta(given)
    http2 = manager.http2_protocol_options
    for limit, number in (
        (http2.max_concurrent_streams, settings.http_max_concurrent_streams),
        (http2.initial_stream_window_size, settings.http2_initial_stream_window_size),
        (http2.initial_connection_window_size, settings.http2_initial_connection_window_size),
    ):
        if number is not None:
            limit.value = number
    if settings.http_headers_with_underscores_action in _UNDERSCORES:
        wanted = _UNDERSCORES[settings.http_headers_with_underscores_action]
        common.headers_with_underscores_action = wanted
    if settings.http_merge_slashes is not None:
        manager.merge_slashes = settings.http_merge_slashes
    if settings.http_path_with_escaped_slashes_action in _SLASHES:
        action = _SLASHES[settings.http_path_with_escaped_slashes_action]
        manager.path_with_escaped_slashes_action = action


def preserved_case() -> _HeaderFormat:
    """Return the format that writes headers of HTTP/1.x in the case they came in (PC-06)."""
    result = _HeaderFormat()
    result.stateful_formatter.name = "preserve_case"
    result.stateful_formatter.typed_config.CopyFrom(_PRESERVE)
    return result


_PRESERVE: Final = pack(preserve_case_pb2.PreserveCaseFormatterConfig())
