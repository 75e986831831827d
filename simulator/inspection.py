"""
What a listener learns of a connection before it chooses a filter chain.

Listener filters look at the first bytes: tls_inspector finds TLS with SNI and ALPN, http_inspector
tells plain HTTP. Without them only the addresses are known. Source: envoyproxy/envoy, docs of the
listener filters and of listener.v3.ListenerFilterChainMatchPredicate.
"""

from dataclasses import dataclass
from typing import Final

from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import (
    ListenerFilter,
    ListenerFilterChainMatchPredicate,
)
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from pilothouse.simulator.request import ApplicationProtocol, IpAddress, Request
from pilothouse.simulator.served import type_name

RAW: Final = "raw_buffer"
TLS: Final = "tls"

_LISTENER_FILTERS: Final = "envoy.extensions.filters.listener."
_TLS_INSPECTOR: Final = f"{_LISTENER_FILTERS}tls_inspector.v3.TlsInspector"
_HTTP_INSPECTOR: Final = f"{_LISTENER_FILTERS}http_inspector.v3.HttpInspector"
_PASSIVE: Final = frozenset(
    {
        f"{_LISTENER_FILTERS}original_dst.v3.OriginalDst",
        f"{_LISTENER_FILTERS}original_src.v3.OriginalSrc",
    }
)
"""Filters that tell nothing of what is spoken."""

_INSPECTED_ALPN: Final = {
    ApplicationProtocol.HTTP_1_0: ("http/1.0",),
    ApplicationProtocol.HTTP_1_1: ("http/1.1",),
    ApplicationProtocol.HTTP_2: ("h2c",),
    ApplicationProtocol.TCP: (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection as the filter chain matcher sees it."""

    address: IpAddress
    port: int
    source: IpAddress
    source_port: int
    transport: str
    server_name: str
    alpn: tuple[str, ...]
    notes: tuple[str, ...] = ()


def inspect(listener: Listener, request: Request) -> Connection:
    """Run a listener's filters, in order."""
    transport, server_name, notes = "", "", []
    alpn: tuple[str, ...] = ()
    for each in listener.listener_filters:
        if _is_disabled(each, request.port):
            continue
        name = type_name(each.typed_config)
        if name == _TLS_INSPECTOR:
            if request.tls is not None:
                transport = TLS
                server_name, alpn = request.tls.server_name.lower(), request.tls.alpn
        elif name == _HTTP_INSPECTOR:
            if transport != TLS and request.tls is None:
                alpn = _INSPECTED_ALPN[request.protocol] or alpn
        elif name not in _PASSIVE:
            notes.append(f"The listener filter {name} is not simulated.")
    return Connection(
        address=request.destination,
        port=request.port,
        source=request.source,
        source_port=request.source_port,
        transport=transport or RAW,
        server_name=server_name,
        alpn=alpn,
        notes=tuple(notes),
    )


def negotiated(server: DownstreamTlsContext, offered: tuple[str, ...]) -> str:
    """Return what TLS agrees on: the first protocol of the server that the client offers."""
    wanted = server.common_tls_context.alpn_protocols
    return next((name for name in wanted if name in offered), "")


def _is_disabled(listener_filter: ListenerFilter, port: int) -> bool:
    if not listener_filter.HasField("filter_disabled"):
        return False
    return _holds(listener_filter.filter_disabled, port)


def _holds(rule: ListenerFilterChainMatchPredicate, port: int) -> bool:
    match rule.WhichOneof("rule"):
        case "or_match":
            return any(_holds(each, port) for each in rule.or_match.rules)
        case "and_match":
            return all(_holds(each, port) for each in rule.and_match.rules)
        case "not_match":
            return not _holds(rule.not_match, port)
        case "destination_port_range":
            ports = rule.destination_port_range
            return port in range(ports.start, ports.end)
        case "any_match":
            return True
        case _:
            return False
