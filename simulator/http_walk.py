"""
The way of an HTTP request through a connection manager: host, route, filters, action.

Source: envoyproxy/envoy, docs of HttpConnectionManager and "HTTP routing".
"""

from dataclasses import dataclass, replace
from typing import Final

from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import RouteAction, VirtualHost
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from pilothouse.simulator.choice import Loss, Taken
from pilothouse.simulator.cors import answers_preflight
from pilothouse.simulator.faults import GRPC_TRANSPORT_STATUS, Fault, fault_of
from pilothouse.simulator.filter_overrides import Levels
from pilothouse.simulator.forwarding import Forwarding
from pilothouse.simulator.http_request import HttpRequest, MalformedRequest, Manager, receive
from pilothouse.simulator.outcome import (
    Action,
    Closed,
    CloseReason,
    LocalReply,
    NotSimulated,
    Outcome,
    ReplyReason,
)
from pilothouse.simulator.request import ApplicationProtocol, Request
from pilothouse.simulator.routes import choose_route
from pilothouse.simulator.served import ServedConfig, type_name, unpacked
from pilothouse.simulator.virtual_hosts import choose_virtual_host

_HTTP_FILTERS: Final = "envoy.extensions.filters.http."
_CORS: Final = f"{_HTTP_FILTERS}cors.v3.Cors"
_FAULT: Final = f"{_HTTP_FILTERS}fault.v3.HTTPFault"
_PASSIVE: Final = frozenset(
    {
        f"{_HTTP_FILTERS}dynamic_forward_proxy.v3.FilterConfig",
        f"{_HTTP_FILTERS}grpc_stats.v3.FilterConfig",
        f"{_HTTP_FILTERS}router.v3.Router",
        f"{_HTTP_FILTERS}set_filter_state.v3.Config",
        f"{_HTTP_FILTERS}stateful_session.v3.StatefulSession",
    }
)
"""HTTP filters that neither answer a request nor change where it goes."""
_AGREED_CODECS: Final = {"h2": Manager.HTTP2, "http/1.1": Manager.HTTP1}
_PASSIVE_NAMES: Final = frozenset({"istio.alpn", "istio.metadata_exchange", "istio.stats"})


@dataclass(slots=True)
class _Way:
    """What was found so far."""

    configuration: str = ""
    host: Taken | None = None
    route: Taken | None = None
    fault: Fault | None = None
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()


def walk_http(
    served: ServedConfig, manager: Manager, request: Request, *, is_tls: bool, agreed: str = ""
) -> Outcome:
    """
    Return the HTTP part of an outcome.

    `is_tls` says that the chain ended TLS, `agreed` on which protocol, if on any.
    """
    way = _Way()
    refused = _refused_by_codec(manager, request, agreed)
    action = refused or _walk(served, manager, request, way, is_tls=is_tls)
    return Outcome(
        action=action,
        route_configuration=way.configuration,
        virtual_host=way.host,
        route=way.route,
        fault=way.fault,
        losses=way.losses,
        notes=way.notes,
    )


def _walk(
    served: ServedConfig, manager: Manager, request: Request, way: _Way, *, is_tls: bool
) -> Action:
    try:
        http = receive(manager, request, is_tls=is_tls)
    except MalformedRequest as error:
        return _reply(400, ReplyReason.BAD_REQUEST, f"The request is refused: {error}.")
    configuration = _configuration(served, manager, way)
    if configuration is None:
        return NotSimulated(
            text=f"Route configuration {way.configuration!r} was not served; the listener waits."
            if way.configuration
            else "Scoped routes are not simulated."
        )
    chosen = choose_virtual_host(configuration, http)
    way.host, way.losses = chosen.taken, chosen.losses
    if chosen.host is None:
        return _reply(404, ReplyReason.NO_VIRTUAL_HOST, f"No virtual host is for {http.host!r}.")
    if chosen.host.HasField("matcher"):
        return NotSimulated(text="A virtual host's matcher tree is not simulated.")
    if _wants_tls(chosen.host, http):
        return replace(
            _reply(301, ReplyReason.TLS_REQUIRED, "The virtual host takes https only."),
            location=f"https://{http.host}{http.path}",
        )
    found = choose_route(
        chosen.host,
        http,
        is_tls=is_tls,
        ignores_path_parameters=configuration.ignore_path_parameters_in_path_matching,
    )
    way.route, way.losses = found.taken, way.losses + found.losses
    if found.route is None:
        upgrade = _refused_upgrade(manager, None, http)
        text = f"No route of {chosen.host.name} takes the request."
        return upgrade or _reply(404, ReplyReason.NO_ROUTE, text)
    levels = (configuration, chosen.host, found.route)
    refused = _refused_upgrade(manager, found.route.route, http)
    answer = refused or _filtered(manager, levels, http, way)
    return answer or Forwarding(served, request, http, levels).action()


def _reply(status: int, reason: ReplyReason, text: str) -> LocalReply:
    return LocalReply(status=status, reason=reason, text=text)


def _refused_by_codec(manager: Manager, request: Request, agreed: str) -> Action | None:
    protocol, codec = request.protocol, manager.codec_type
    if codec == Manager.AUTO:  # what TLS agreed on counts, else the first bytes
        codec = _AGREED_CODECS.get(agreed, codec)
    if not protocol.is_http:
        return Closed(reason=CloseReason.NOT_HTTP, text="The chain wants HTTP, and this is not.")
    is_http2 = protocol is ApplicationProtocol.HTTP_2
    if (codec == Manager.HTTP1 and is_http2) or (codec == Manager.HTTP2 and not is_http2):
        text = f"The chain wants {Manager.CodecType.Name(codec)} and gets {protocol}."
        return Closed(reason=CloseReason.NOT_HTTP, text=text)
    accepts_http10 = manager.http_protocol_options.accept_http_10
    if protocol is ApplicationProtocol.HTTP_1_0 and not accepts_http10:
        return _reply(426, ReplyReason.UPGRADE_REQUIRED, "HTTP/1.0 is not accepted.")
    return None


def _configuration(served: ServedConfig, manager: Manager, way: _Way) -> RouteConfiguration | None:
    if manager.HasField("rds"):
        way.configuration = manager.rds.route_config_name
        return served.route_configurations.get(way.configuration)
    if manager.HasField("route_config"):
        way.configuration = manager.route_config.name
        return manager.route_config
    return None


def _wants_tls(host: VirtualHost, http: HttpRequest) -> bool:
    if http.header("x-forwarded-proto") == "https":
        return False
    is_internal = http.header("x-envoy-internal") == "true"
    return host.require_tls == VirtualHost.ALL or (
        host.require_tls == VirtualHost.EXTERNAL_ONLY and not is_internal
    )


def _refused_upgrade(
    manager: Manager, action: RouteAction | None, http: HttpRequest
) -> LocalReply | None:
    wanted = "connect" if http.method == "CONNECT" else http.upgrade
    if not wanted:
        return None
    allowed = {
        each.upgrade_type.lower(): not each.HasField("enabled") or each.enabled.value
        for each in manager.upgrade_configs
    }
    if action is not None:
        for each in action.upgrade_configs:
            allowed[each.upgrade_type.lower()] = not each.HasField("enabled") or each.enabled.value
    if allowed.get(wanted):
        return None
    text = f"An upgrade to {wanted} is not allowed here."
    return _reply(403, ReplyReason.UPGRADE_REFUSED, text)


def _filtered(manager: Manager, levels: Levels, http: HttpRequest, way: _Way) -> LocalReply | None:
    """Run the filters before the router; return an answer that one of them gives for sure."""
    for each in manager.http_filters:
        kind = type_name(each.typed_config)
        if each.disabled:
            continue
        if kind == _FAULT:
            own = unpacked(each.typed_config, HTTPFault)
            way.fault = fault_of(levels, each.name, own, http)
            if way.fault is not None and way.fault.always_aborts:
                status = way.fault.status or GRPC_TRANSPORT_STATUS
                return _reply(status, ReplyReason.FAULT, "A fault aborts every such request.")
        elif kind == _CORS:
            if answers_preflight(levels, each.name, http):
                return _reply(200, ReplyReason.PREFLIGHT, "The CORS policy answers preflights.")
        elif kind not in _PASSIVE and each.name not in _PASSIVE_NAMES:
            way.notes += (f"The HTTP filter {each.name} is not simulated.",)
    return None
