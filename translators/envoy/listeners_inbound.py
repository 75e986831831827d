"""
Inbound listeners (LDS): virtualInbound, and ports that a Sidecar binds (traffic.md LS-12 to LS-15).

A port's chains come from a table by mode and protocol (`inbound_chains`). A proxy without
certificates of the mesh keeps a port closed that takes mutual TLS only.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.authentication import MtlsMode
from pilothouse.model.classes import Inbound
from pilothouse.model.compliance import compliance, report_overridden, skips_trust_domains
from pilothouse.model.inbound_ports import InboundPort
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
from pilothouse.model.proxies import CertificateSource, InterceptionMode
from pilothouse.model.proxy_settings import ProxySettings
from pilothouse.model.resource import LDS, Resource
from pilothouse.model.service_accounts import accepted_domains
from pilothouse.translators.envoy.access_logs import access_logging, log_lost_connections
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.filter_chains import (
    Match,
    WeightedCluster,
    bound_listener,
    filter_chain,
    http_filter,
    http_inspector,
    mongo_filter,
    original_destination_filter,
    original_source_filter,
    tcp_filter,
    tls_inspector,
)
from pilothouse.translators.envoy.http_connection import HttpSettings, inbound_connection
from pilothouse.translators.envoy.inbound_chains import TLS, Row, chain_rows
from pilothouse.translators.envoy.mutual_tls import ServerTls, server_socket
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.routes import inbound_route
from pilothouse.translators.envoy.server_tls import Terms, own_tls_socket
from pilothouse.translators.envoy.stat_names import inbound_stat_name, is_declared
from pilothouse.translators.envoy.tcp_policy import TcpPolicy
from pilothouse.translators.envoy.upstream_tls import TlsUnavailable


class Security(NamedTuple):
    """
    How callers are authenticated; `tls` is None without certificates of the mesh.

    `own` ends TLS with the certificates that a Sidecar names for the port (SC-09).
    """

    mode: MtlsMode
    tls: ServerTls | None
    own: base_pb2.TransportSocket | None = None


_CLOSED: Final = Security(MtlsMode.STRICT, None)


class Serving(NamedTuple):
    """A port (or the passthrough, with port 0) as its chains need it."""

    cluster: str
    stat_prefix: str
    port: InboundPort | None
    match: Match
    names: tuple[str, str]
    http: HttpSettings
    tcp_stat_prefix: str
    security: Security


@query
def inbound_listeners(ctx: Ctx, inbound: Inbound) -> ResourceLayer:
    """Return virtualInbound (unless nothing is captured) and the bound ports (LS-01)."""
    mesh = ctx.get(mesh_config, None)
    if not mesh.proxy_listen_port:
        return ResourceLayer(())  # MC-01
    found = []
    _report_closed(ctx, inbound)
    _report_unused(ctx, inbound)
    if inbound.mode is not InterceptionMode.NONE and mesh.proxy_inbound_listen_port:
        found.append(ctx.get_or_none(virtual_inbound, inbound))
    found.extend(
        ctx.get_or_none(bound_inbound, BoundKey(port, inbound.settings, inbound.certificates))
        for port in inbound.ports
        if port.bind
    )
    return ResourceLayer(each for each in found if each is not None)


@query
def virtual_inbound(ctx: Ctx, inbound: Inbound) -> Resource:
    """Build the listener that inbound connections are redirected to (N-23, LS-12, LS-13)."""
    mesh = ctx.get(mesh_config, None)
    number = mesh.proxy_inbound_listen_port
    logging = ctx.get(access_logging, None)
    settings = HttpSettings(inbound.settings, mesh.path_normalization.normalization, logging)
    wildcard = "0.0.0.0" if inbound.ipv4 else "::"  # noqa: S104 (Envoy's listener, not ours)
    more = ("::",) if inbound.ipv4 and inbound.ipv6 else ()
    listener = bound_listener(VIRTUAL_INBOUND, wildcard, number, more)
    listener.traffic_direction = base_pb2.INBOUND
    listener.continue_on_listener_filters_timeout = True
    captured = [port for port in inbound.ports if not port.bind]
    listener.filter_chains.append(
        filter_chain(
            Match(port=number),  # a connection to the port itself would loop (3.16)
            tcp_filter(
                BLACK_HOLE_CLUSTER, (WeightedCluster(BLACK_HOLE_CLUSTER, 1),), logging=logging
            ),
            name=INBOUND_BLACKHOLE_CHAIN,
        )
    )
    tls = _server_tls(ctx, inbound.certificates, inbound.settings)
    passthrough = Serving(
        cluster=INBOUND_PASSTHROUGH_CLUSTER,
        stat_prefix=f"{INBOUND_PASSTHROUGH_CLUSTER};",
        port=None,
        match=Match(),
        names=(INBOUND_CATCHALL_HTTP_CHAIN, INBOUND_CATCHALL_CHAIN),
        http=settings,
        tcp_stat_prefix=INBOUND_PASSTHROUGH_CLUSTER,
        security=Security(inbound.mtls, tls),
    )
    listener.filter_chains.extend(_chains(passthrough, Protocol.AUTO))
    for other, mode in inbound.other_ports:
        own = passthrough._replace(match=Match(port=other), security=Security(mode, tls))
        listener.filter_chains.extend(_chains(own, Protocol.AUTO))
    for port in captured:
        security = _security(ctx, port, inbound.certificates, tls)
        serving = _serving(ctx, port, Match(port=port.port), settings, security)
        listener.filter_chains.extend(_chains(serving, port.protocol))
    listener.listener_filters.append(original_destination_filter())
    if inbound.mode is InterceptionMode.TPROXY:
        listener.listener_filters.append(original_source_filter())
    listener.listener_filters.extend(_tls_inspectors(inbound, captured))
    if inbound.mode is InterceptionMode.TPROXY:
        listener.transparent.value = True
    if inbound.settings.balances_inbound:
        listener.connection_balance_config.exact_balance.SetInParent()
    declared = [port.port for port in captured if port.protocol is not Protocol.AUTO]
    listener.listener_filters.append(http_inspector(disabled_on=declared))
    listener.listener_filters_timeout.FromTimedelta(mesh.protocol_detection_timeout)
    listener.metadata.CopyFrom(metadata((port.source for port in captured), with_generation=False))
    log_lost_connections(listener, logging)
    refs = (*(port.source.ref for port in captured), *inbound.policies)
    return Resource(LDS, VIRTUAL_INBOUND, encode(listener), tuple(dict.fromkeys(refs)))


def _server_tls(ctx: Ctx, certificates: CertificateSource, own: ProxySettings) -> ServerTls | None:
    if certificates is CertificateSource.NONE:
        return None
    settings = ctx.get(mesh_config, None).mesh_mtls
    domains = () if ctx.get(skips_trust_domains, None) else ctx.get(accepted_domains, None)
    policy = ctx.get(compliance, None)
    return ServerTls(certificates, domains, settings, own.server_files, policy)


def _tls_inspectors(
    inbound: Inbound, captured: list[InboundPort]
) -> list[components_pb2.ListenerFilter]:
    """Return what looks for TLS: only where chains ask, elsewhere the workload reads it (LS-13)."""
    own = {port.port for port in captured if port.ends_own_tls}
    if inbound.certificates is CertificateSource.NONE:
        return [tls_inspector(only_on=sorted(own))] if own else []
    modes = dict(inbound.other_ports) | {port.port: port.mtls for port in captured}
    plain = [port for port, mode in modes.items() if mode is MtlsMode.DISABLE and port not in own]
    if inbound.mtls is not MtlsMode.DISABLE:
        return [tls_inspector(disabled_on=plain)]
    looked_at = modes.keys() - plain
    return [tls_inspector(only_on=sorted(looked_at))] if looked_at else []


def _report_closed(ctx: Ctx, inbound: Inbound) -> None:
    if inbound.certificates is not CertificateSource.NONE or not inbound.policies:
        return
    closed = [port for port in inbound.ports if port.mtls is MtlsMode.STRICT]
    if not closed and inbound.mtls is not MtlsMode.STRICT:
        return
    hosts = ", ".join(sorted({port.host for port in closed if port.host})) or "no service"
    ctx.report(
        Finding(
            Severity.WARNING,
            "StrictWithoutCertificates",
            inbound.policies[0],
            f"A proxy that serves {hosts} has no certificates of the mesh, so nobody reaches it in "
            "mode STRICT.",
            "Give the workload an identity, or let the policy be PERMISSIVE for it.",
        )
    )


def _report_unused(ctx: Ctx, inbound: Inbound) -> None:
    for port in inbound.ports:
        if port.tls is None or port.ends_own_tls:
            continue
        ctx.report(
            Finding(
                Severity.WARNING,
                "IngressTlsUnused",
                port.source.ref.at(f"{port.source.ref.path}.tls"),
                f"Callers of port {port.port} may use mutual TLS of the mesh, so nothing else is "
                "taken there, and the certificates of its tls are not shown.",
                "Set the port's mode to DISABLE in portLevelMtls of a PeerAuthentication.",
            )
        )


def _security(
    ctx: Ctx, port: InboundPort, certificates: CertificateSource, tls: ServerTls | None
) -> Security:
    """Return how callers of a port are authenticated; closed where its TLS cannot be had."""
    if port.tls is None or not port.ends_own_tls:
        return Security(port.mtls, tls)
    policy, ref = ctx.get(compliance, None), port.source.ref.at(f"{port.source.ref.path}.tls")
    defaults = ctx.get(mesh_config, None).tls_defaults
    terms = Terms(certificates, defaults, port.protocol.is_http, policy)
    try:
        socket = own_tls_socket(port.tls, terms)
    except TlsUnavailable as unavailable:
        message = f"Port {port.port} is closed. {unavailable}"
        ctx.report(Finding(Severity.ERROR, "TlsUnavailable", ref, message, unavailable.remedy))
        return _CLOSED
    report_overridden(ctx, policy, port.tls, ref)
    return Security(port.mtls, tls, socket)


class BoundKey(NamedTuple):
    """A port with a listener of its own."""

    port: InboundPort
    settings: ProxySettings
    certificates: CertificateSource


@query
def bound_inbound(ctx: Ctx, key: BoundKey) -> Resource:
    """Build the listener of a port that a Sidecar binds (SC-07)."""
    port = key.port
    name = str(ListenerName(port.bind, port.port))
    listener = bound_listener(name, port.bind, port.port)
    listener.traffic_direction = base_pb2.INBOUND
    listener.continue_on_listener_filters_timeout = True
    mesh = ctx.get(mesh_config, None)
    listener.listener_filters_timeout.FromTimedelta(mesh.protocol_detection_timeout)
    normalization = mesh.path_normalization.normalization
    tls = _server_tls(ctx, key.certificates, key.settings)
    security = _security(ctx, port, key.certificates, tls)
    logging = ctx.get(access_logging, None)
    settings = HttpSettings(key.settings, normalization, logging)
    serving = _serving(ctx, port, Match(), settings, security)
    listener.filter_chains.extend(_chains(serving, port.protocol))
    is_mutual = security.tls is not None and security.mode is not MtlsMode.DISABLE
    if is_mutual or security.own is not None:
        listener.listener_filters.append(tls_inspector())
    if port.protocol is Protocol.AUTO:
        listener.listener_filters.append(http_inspector())
    log_lost_connections(listener, logging)
    listener.metadata.CopyFrom(metadata((port.source,), with_generation=False))
    return Resource(LDS, name, encode(listener), (port.source.ref,))


def _serving(
    ctx: Ctx, port: InboundPort, match: Match, http: HttpSettings, security: Security
) -> Serving:
    name = f"0.0.0.0_{port.port}"  # N-28: the same whatever the address family
    return Serving(
        cluster=str(InboundClusterName(port.port)),
        stat_prefix=f"inbound_{name};",
        port=port,
        match=match,
        names=(name, name),
        http=http,
        tcp_stat_prefix=inbound_stat_name(ctx, port),
        security=security,
    )


def _chains(serving: Serving, protocol: Protocol) -> list[components_pb2.FilterChain]:
    mode, tls, own = serving.security
    if own is not None:
        return [_chain(serving, Row(is_http=protocol.is_http, transport=TLS, ends_tls=True))]
    if mode is MtlsMode.STRICT and tls is None:
        return [_closed_chain(serving)]
    rows = chain_rows(mode, protocol, accepts_http10=serving.http.own.accepts_http10)
    return [_chain(serving, row) for row in rows]


def _chain(serving: Serving, row: Row) -> components_pb2.FilterChain:
    match = serving.match._replace(transport=row.transport, alpn=row.alpn)
    chain = _http_chain(serving, match) if row.is_http else _tcp_chain(serving, match)
    is_mongo = serving.port is not None and serving.port.protocol is Protocol.MONGO
    if is_mongo and (row.ends_tls or row.transport != TLS):
        chain.filters.insert(0, mongo_filter(serving.tcp_stat_prefix))
    _, tls, own = serving.security
    if row.ends_tls and own is not None:
        chain.transport_socket.CopyFrom(own)
    elif row.ends_tls and tls is not None:
        chain.transport_socket.CopyFrom(server_socket(tls))
    return chain


def _closed_chain(serving: Serving) -> components_pb2.FilterChain:
    # Without a chain of its own the port would fall to the chains of all other ports.
    clusters = (WeightedCluster(BLACK_HOLE_CLUSTER, 1),)
    closed = tcp_filter(BLACK_HOLE_CLUSTER, clusters, logging=serving.http.logging)
    name = serving.names[1]
    return filter_chain(serving.match, closed, name=name, metadata=_described(serving))


def _http_chain(serving: Serving, match: Match) -> components_pb2.FilterChain:
    is_own_tls = serving.security.own is not None
    routes = _inline_routes(serving)
    manager = inbound_connection(serving.stat_prefix, routes, serving.http, is_own_tls=is_own_tls)
    return filter_chain(
        match, http_filter(manager), name=serving.names[0], metadata=_described(serving)
    )


def _tcp_chain(serving: Serving, match: Match) -> components_pb2.FilterChain:
    policy = TcpPolicy(idle_timeout=serving.http.own.idle_timeout)
    clusters = (WeightedCluster(serving.cluster, 1),)
    network_filter = tcp_filter(serving.tcp_stat_prefix, clusters, policy, serving.http.logging)
    return filter_chain(match, network_filter, name=serving.names[1], metadata=_described(serving))


def _described(serving: Serving) -> base_pb2.Metadata | None:
    if serving.port is None:
        return None
    source = serving.port.source
    config = source if is_declared(serving.port) else None  # N-69
    return metadata((source,), config=config, with_generation=False)


def _inline_routes(serving: Serving) -> route_pb2.RouteConfiguration:
    routes = route_pb2.RouteConfiguration(name=serving.cluster)
    routes.validate_clusters.SetInParent()
    port = serving.port
    number = port.service_port if port else 0
    called = _called(port) if port else ""
    host = routes.virtual_hosts.add(name=f"inbound|http|{number}", domains=["*"])
    host.routes.append(
        inbound_route(
            serving.cluster,
            host=called,
            port=number,
            is_grpc=port is not None and port.protocol.is_grpc,
            metadata=_described(serving),
        )
    )
    return routes


def _called(port: InboundPort) -> str:
    """Return what spans call a port: a Sidecar's by the Sidecar, whatever service has it."""
    ref = port.source.ref
    return f"{ref.name}.{ref.namespace}" if is_declared(port) else port.host
