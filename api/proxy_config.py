"""
ProxyConfig: the parts that shape what a control plane sends (traffic.md PC-05 to PC-07).

Types of mesh.istio.io, used by MeshConfig.defaultConfig and by the ProxyConfig that a proxy brings
along in its node metadata. The fields that only the agent reads are in `mesh_config`.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from pilothouse.api.duration import Duration
from pilothouse.api.problem import Problem, duration, not_negative, warning
from pilothouse.api.structs import ApiStruct

ForwardClientCert = Literal[
    "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
]
UnderscoresAction = Literal[
    "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
    "HEADERS_WITH_UNDERSCORES_ALLOW",
    "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
    "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
]
EscapedSlashesAction = Literal[
    "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
    "KEEP_UNCHANGED",
    "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
]


class ServerHeader(ApiStruct, frozen=True):
    """The response header `server`: passed through if disabled, else set to `value`."""

    disabled: bool | None = None
    value: str = ""


class Disabling(ApiStruct, frozen=True):
    """A header that is sent unless it is disabled."""

    disabled: bool | None = None


class Enabling(ApiStruct, frozen=True):
    """A header that is not sent unless it is enabled."""

    enabled: bool | None = None


class MetadataExchangeHeaders(ApiStruct, frozen=True):
    """Where peer metadata may be sent in headers."""

    mode: Literal["UNDEFINED", "IN_MESH"] = "UNDEFINED"


class ClientCertDetails(ApiStruct, frozen=True):
    """What x-forwarded-client-cert says of a client's certificate; None is Istio's default."""

    subject: bool | None = None
    cert: bool | None = None
    chain: bool | None = None
    dns: bool | None = None
    uri: bool | None = None


class ProxyHeaders(ApiStruct, frozen=True):
    """PC-05, PC-06: the headers a proxy adds by itself."""

    forwarded_client_cert: ForwardClientCert = "UNDEFINED"
    set_current_client_cert_details: ClientCertDetails | None = None
    request_id: Disabling | None = None
    server: ServerHeader | None = None
    attempt_count: Disabling | None = None
    envoy_debug_headers: Disabling | None = None
    metadata_exchange_headers: MetadataExchangeHeaders | None = None
    preserve_http1_header_case: bool | None = None
    x_forwarded_host: Enabling | None = None
    x_forwarded_port: Enabling | None = None


class ConnectionSettings(ApiStruct, frozen=True):
    """PC-07: times and limits of the connections a proxy accepts."""

    profile: Literal["SIDECAR", "EDGE"] = "SIDECAR"
    listener_per_connection_buffer_limit_bytes: int | None = None
    cluster_per_connection_buffer_limit_bytes: int | None = None
    http_idle_timeout: Duration | None = None
    http_max_connection_duration: Duration | None = None
    http_drain_timeout: Duration | None = None
    http_request_timeout: Duration | None = None
    http_request_headers_timeout: Duration | None = None
    http_stream_idle_timeout: Duration | None = None
    http_max_stream_duration: Duration | None = None
    http_max_concurrent_streams: int | None = None
    http2_initial_stream_window_size: int | None = None
    http2_initial_connection_window_size: int | None = None
    http_headers_with_underscores_action: UnderscoresAction = "HEADERS_WITH_UNDERSCORES_UNSPECIFIED"
    http_merge_slashes: bool | None = None
    http_path_with_escaped_slashes_action: EscapedSlashesAction = (
        "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED"
    )
    listener_connection_limit: int | None = None
    global_downstream_connection_limit: int | None = None


class OwnProxyConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of the ProxyConfig in a proxy's metadata; its other fields are skipped."""

    proxy_headers: ProxyHeaders | None = None
    connection_settings: ConnectionSettings | None = None


_MOST_STREAMS = 2**31 - 1
_SMALLEST_WINDOW = 65_535
_LIMITS = (
    "listener_per_connection_buffer_limit_bytes",
    "cluster_per_connection_buffer_limit_bytes",
    "global_downstream_connection_limit",
)


def check_proxy_headers(headers: ProxyHeaders, path: str) -> Iterator[Problem]:
    """Yield what is doubtful about a proxy's headers."""
    server = headers.server
    if server is not None and server.disabled and server.value:
        message = "The header is passed through when it is disabled, so the value is not used."
        yield warning(f"{path}.server.value", message, "Remove one of the two.")


def check_connection_settings(settings: ConnectionSettings, path: str) -> Iterator[Problem]:
    """Yield what Envoy would refuse in a proxy's limits and times."""
    yield from not_negative(settings, path, *_LIMITS)
    for name in ("http_max_connection_duration", "http_max_stream_duration"):
        yield from duration(getattr(settings, name), f"{path}.{_SPELLED[name]}")
    streams = settings.http_max_concurrent_streams
    if streams is not None and not 1 <= streams <= _MOST_STREAMS:
        message = f"{streams} streams are no limit: it must be from 1 to {_MOST_STREAMS}."
        yield Problem(f"{path}.httpMaxConcurrentStreams", message)
    for name in ("http2_initial_stream_window_size", "http2_initial_connection_window_size"):
        size = getattr(settings, name)
        if size is not None and not _SMALLEST_WINDOW <= size <= _MOST_STREAMS:
            message = f"A window of {size} bytes is not from {_SMALLEST_WINDOW} to {_MOST_STREAMS}."
            yield Problem(f"{path}.{_SPELLED[name]}", message)
    limit = settings.listener_connection_limit
    if limit is not None and limit <= 0:
        yield Problem(f"{path}.listenerConnectionLimit", f"{limit} connections are no limit.")


_SPELLED = {
    "http_max_connection_duration": "httpMaxConnectionDuration",
    "http_max_stream_duration": "httpMaxStreamDuration",
    "http2_initial_stream_window_size": "http2InitialStreamWindowSize",
    "http2_initial_connection_window_size": "http2InitialConnectionWindowSize",
}
