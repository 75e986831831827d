"""
Access logs to a file, as the mesh config words them (traffic.md MC-28, LS-22).

Connections and requests are logged by the filter that ends their chain. A listener itself logs only
what found no chain. Envoy refuses a listener whose format it cannot read, so a format is made
acceptable first.
"""

import json
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from pilothouse._pb.envoy.config.accesslog.v3 import accesslog_pb2
from pilothouse._pb.envoy.config.core.v3 import substitution_format_string_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_pb2
from pilothouse._pb.envoy.extensions.access_loggers.file.v3 import file_pb2
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.mesh import mesh_config
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.header_formats import acceptable

FILE_LOG: Final = "envoy.access_loggers.file"
NO_CHAIN: Final = "NR"
"""Envoy's flag for a connection or request that nothing was found for."""

_Form = substitution_format_string_pb2.SubstitutionFormatString

_WORDS: Final = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "route_name": "%ROUTE_NAME%",
}
"""What Istio logs, by the names it has in JSON."""

_LINE: Final = (
    '[{start_time}] "{method} {path} {protocol}" {response_code} {response_flags} '
    "{response_code_details} {connection_termination_details} "
    '"{upstream_transport_failure_reason}" {bytes_received} {bytes_sent} {duration} '
    '{upstream_service_time} "{x_forwarded_for}" "{user_agent}" "{request_id}" "{authority}" '
    '"{upstream_host}" {upstream_cluster} {upstream_local_address} {downstream_local_address} '
    "{downstream_remote_address} {requested_server_name} {route_name}\n"
).format(**_WORDS)


class AccessLogging(NamedTuple):
    """Where and how to log; an empty format is Istio's. `of_listeners`: what found no chain too."""

    file: str
    format: str
    encoding: Literal["TEXT", "JSON"]
    of_listeners: bool


@query
def access_logging(ctx: Ctx, _key: None) -> AccessLogging | None:
    """Return what the mesh config says of access logs, None if nothing is logged."""
    mesh = ctx.get(mesh_config, None)
    if not mesh.access_log_file:
        return None
    written = mesh.access_log_format
    if mesh.access_log_encoding == "JSON":
        if written and _fields(written) is None:
            ctx.report(_unusable("The format is no JSON object; Istio's own fields are logged."))
            written = ""
    elif acceptable(written) != written:
        ctx.report(_unusable("What Envoy does not know between % signs is logged as it is."))
    return AccessLogging(
        file=mesh.access_log_file,
        format=written,
        encoding=mesh.access_log_encoding,
        of_listeners=not mesh.disable_envoy_listener_log,
    )


def _unusable(problem: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "AccessLogFormat",
        ConfigRef("MeshConfig", "", "mesh", "accessLogFormat"),
        problem,
        "Compare it with Envoy's list of command operators.",
    )


def _fields(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@lru_cache(maxsize=8)
def access_log(logging: AccessLogging) -> accesslog_pb2.AccessLog:
    """Return the log of a connection manager or tcp_proxy; never to be changed."""
    config = file_pb2.FileAccessLog(path=logging.file, log_format=_form(logging))
    return accesslog_pb2.AccessLog(name=FILE_LOG, typed_config=pack(config))


def log_lost_connections(listener: listener_pb2.Listener, logging: AccessLogging | None) -> None:
    """Make a listener log connections that no chain of it takes."""
    if logging is None or not logging.of_listeners:
        return
    log = listener.access_log.add()
    log.CopyFrom(access_log(logging))
    log.filter.response_flag_filter.flags.append(NO_CHAIN)


def _form(logging: AccessLogging) -> _Form:
    form = _Form()
    if logging.encoding == "JSON":
        form.json_format.update(_written(_fields(logging.format) or _WORDS))
    else:
        line = acceptable(logging.format) or _LINE
        form.text_format_source.inline_string = line if line.endswith("\n") else f"{line}\n"
    return form


def _written(value: Any) -> Any:  # noqa: ANN401 (the user's own JSON)
    if isinstance(value, dict):
        return {name: _written(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_written(each) for each in value]
    return acceptable(value) if isinstance(value, str) else value
