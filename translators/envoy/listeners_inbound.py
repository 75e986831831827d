"""
Inbound listeners (LDS): virtualInbound, and ports that a Sidecar binds (traffic.md LS-12 to LS-15).

A port's chains come from a table by protocol (3.11). This version holds no certificates, so the
rows are those of plain text; mutual TLS adds rows to `_CHAINS_BY_PROTOCOL` and nothing else here.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse.api.mesh_config import PathNormalizationType
from pilothouse.graph.core import Ctx, query
from pilothouse.model.classes import Inbound, InboundPort
from pilothouse.model.layers import ResourceLayer
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import (
    BLACK_HOLE_CLUSTER,
    INBOUND_BLACKHOLE_CHAIN,
    INBOUND_CATCHALL_CHAIN,
    INBOUND_CATCHALL_HTTP_CHAIN,
    INBOUND_PASSTHROUGH_CLUSTER,
    VIRTUAL_INBOUND,
    InboundClusterName,
    ListenerName,
)
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.resource import LDS, Resource
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.filter_chains import (
    RAW,
    Match,
    WeightedCluster,
    bound_listener,
    filter_chain,
    http_filter,
    http_inspector,
    original_destination_filter,
    plaintext_http,
    tcp_filter,
)
from pilothouse.translators.envoy.http_connection import inbound_connection
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.routes import inbound_route


class HttpSettings(NamedTuple):
    """What holds for all of a workload's HTTP."""

    accepts_http10: bool
    normalization: PathNormalizationType


class Serving(NamedTuple):
    """A port (or the passthrough, with port 0) as its chains need it."""

    cluster: str
    stat_prefix: str
    port: InboundPort | None
    match: Match
    names: tuple[str, str]
    http: HttpSettings


ChainBuilder: TypeAlias = Callable[[Serving], components_pb2.FilterChain]


@query
def inbound_listeners(ctx: Ctx, inbound: Inbound) -> ResourceLayer:
    """Return virtualInbound (unless nothing is captured) and the bound ports (LS-01)."""
    found = []
    if inbound.mode is not InterceptionMode.NONE:
        found.append(ctx.get_or_none(virtual_inbound, inbound))
    found.extend(
        ctx.get_or_none(bound_inbound, BoundKey(port, inbound.http10))
        for port in inbound.ports
        if port.bind
    )
    return ResourceLayer(each for each in found if each is not None)


@query
def virtual_inbound(ctx: Ctx, inbound: Inbound) -> Resource:
    """Build the listener that inbound connections are redirected to (N-23, LS-12, LS-13)."""
    mesh = ctx.get(mesh_config, None)
    number = mesh.proxy_inbound_listen_port
    settings = HttpSettings(inbound.http10, mesh.path_normalization.normalization)
    wildcard = "0.0.0.0" if inbound.ipv4 else "::"  # noqa: S104 (Envoy's listener, not ours)
    more = ("::",) if inbound.ipv4 and inbound.ipv6 else ()
    listener = bound_listener(VIRTUAL_INBOUND, wildcard, number, more)
    listener.traffic_direction = base_pb2.INBOUND
    listener.continue_on_listener_filters_timeout = True
    captured = [port for port in inbound.ports if not port.bind]
    listener.filter_chains.append(
        filter_chain(
            Match(port=number),  # a connection to the port itself would loop (3.16)
            tcp_filter(BLACK_HOLE_CLUSTER, (WeightedCluster(BLACK_HOLE_CLUSTER, 1),)),
            name=INBOUND_BLACKHOLE_CHAIN,
        )
    )
    passthrough = Serving(
        cluster=INBOUND_PASSTHROUGH_CLUSTER,
        stat_prefix=f"{INBOUND_PASSTHROUGH_CLUSTER};",
        port=None,
        match=Match(),
        names=(INBOUND_CATCHALL_HTTP_CHAIN, INBOUND_CATCHALL_CHAIN),
        http=settings,
    )
    listener.filter_chains.extend(_chains(passthrough, Protocol.AUTO))
    for port in captured:
        serving = _serving(port, Match(port=port.port), settings)
        listener.filter_chains.extend(_chains(serving, port.protocol))
    listener.listener_filters.append(original_destination_filter())
    if inbound.mode is InterceptionMode.TPROXY:
        listener.transparent.value = True
    declared = [port.port for port in captured if port.protocol is not Protocol.AUTO]
    listener.listener_filters.append(http_inspector(disabled_on=declared))
    listener.listener_filters_timeout.FromTimedelta(mesh.protocol_detection_timeout)
    listener.metadata.CopyFrom(metadata((port.source for port in captured), with_generation=False))
    refs = tuple(dict.fromkeys(port.source.ref for port in captured))
    return Resource(LDS, VIRTUAL_INBOUND, encode(listener), refs)


class BoundKey(NamedTuple):
    """A port with a listener of its own."""

    port: InboundPort
    accepts_http10: bool


@query
def bound_inbound(ctx: Ctx, key: BoundKey) -> Resource:
    """Build the listener of a port that a Sidecar binds (SC-07)."""
    port = key.port
    name = str(ListenerName(port.bind, port.port))
    listener = bound_listener(name, port.bind, port.port)
    listener.traffic_direction = base_pb2.INBOUND
    listener.continue_on_listener_filters_timeout = True
    normalization = ctx.get(mesh_config, None).path_normalization.normalization
    serving = _serving(port, Match(), HttpSettings(key.accepts_http10, normalization))
    listener.filter_chains.extend(_chains(serving, port.protocol))
    if port.protocol is Protocol.AUTO:
        listener.listener_filters.append(http_inspector())
    listener.metadata.CopyFrom(metadata((port.source,), with_generation=False))
    return Resource(LDS, name, encode(listener), (port.source.ref,))


def _serving(port: InboundPort, match: Match, http: HttpSettings) -> Serving:
    name = f"0.0.0.0_{port.port}"  # N-28: the same whatever the address family
    return Serving(
        cluster=str(InboundClusterName(port.port)),
        stat_prefix=f"inbound_{name};",
        port=port,
        match=match,
        names=(name, name),
        http=http,
    )


def _chains(serving: Serving, protocol: Protocol) -> list[components_pb2.FilterChain]:
    return [build(serving) for build in _CHAINS_BY_PROTOCOL[_family(protocol)]]


def _family(protocol: Protocol) -> Protocol:
    if protocol.is_http:
        return Protocol.HTTP
    return Protocol.AUTO if protocol is Protocol.AUTO else Protocol.TCP


def _http(serving: Serving) -> components_pb2.FilterChain:
    return _http_chain(serving, serving.match)


def _detected_http(serving: Serving) -> components_pb2.FilterChain:
    plain = plaintext_http(accepts_http10=serving.http.accepts_http10)
    return _http_chain(serving, plain._replace(port=serving.match.port))


def _http_chain(serving: Serving, match: Match) -> components_pb2.FilterChain:
    manager = inbound_connection(
        serving.stat_prefix,
        _inline_routes(serving),
        accepts_http10=serving.http.accepts_http10,
        normalization=serving.http.normalization,
    )
    return filter_chain(
        match, http_filter(manager), name=serving.names[0], metadata=_described(serving)
    )


def _tcp(serving: Serving) -> components_pb2.FilterChain:
    return _tcp_chain(serving, serving.match)


def _undetected_tcp(serving: Serving) -> components_pb2.FilterChain:
    # Beside a chain that names its transport this one must too: Envoy never goes back from there.
    return _tcp_chain(serving, serving.match._replace(transport=RAW))


def _tcp_chain(serving: Serving, match: Match) -> components_pb2.FilterChain:
    network_filter = tcp_filter(serving.cluster, (WeightedCluster(serving.cluster, 1),))
    return filter_chain(match, network_filter, name=serving.names[1], metadata=_described(serving))


def _described(serving: Serving) -> base_pb2.Metadata | None:
    return metadata((serving.port.source,), with_generation=False) if serving.port else None


def _inline_routes(serving: Serving) -> route_pb2.RouteConfiguration:
    routes = route_pb2.RouteConfiguration(name=serving.cluster)
    routes.validate_clusters.SetInParent()
    port = serving.port
    number = port.service_port if port else 0
    host = routes.virtual_hosts.add(name=f"inbound|http|{number}", domains=["*"])
    host.routes.append(
        inbound_route(
            serving.cluster,
            host=port.host if port else "",
            port=number,
            is_grpc=port is not None and port.protocol is Protocol.GRPC,
            metadata=_described(serving),
        )
    )
    return routes


_CHAINS_BY_PROTOCOL: Final[dict[Protocol, tuple[ChainBuilder, ...]]] = {
    Protocol.HTTP: (_http,),
    Protocol.TCP: (_tcp,),
    Protocol.AUTO: (_detected_http, _undetected_tcp),
}
"""Plain-text rows of the chain tables, in order of preference (3.11)."""
