"""Outbound listeners (LDS): one per planned address, and virtualOutbound (LS-02 to LS-11)."""

from typing import NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_pb2
from pilothouse.api.duration import Duration
from pilothouse.graph.core import Ctx, query
from pilothouse.model.classes import View
from pilothouse.model.egress import looks_up_unknown, unknown_destination
from pilothouse.model.layers import ResourceLayer
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import (
    ALLOW_ANY_DYNAMIC_DNS,
    BLACK_HOLE_CLUSTER,
    OUTBOUND_BLACKHOLE_CHAIN,
    OUTBOUND_CATCHALL_CHAIN,
    OUTBOUND_CATCHALL_HTTP_CHAIN,
    PASSTHROUGH_FILTER_CHAIN,
    VIRTUAL_OUTBOUND,
)
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import InterceptionMode, Profile
from pilothouse.model.proxy_settings import ProxySettings
from pilothouse.model.resource import LDS, Resource
from pilothouse.model.scopes import Scope
from pilothouse.translators.envoy.access_logs import (
    AccessLogging,
    access_logging,
    log_lost_connections,
)
from pilothouse.translators.envoy.chain_overlaps import told_apart
from pilothouse.translators.envoy.dynamic_dns import DynamicHost, dynamic_sni_filter
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.filter_chains import (
    Match,
    WeightedCluster,
    bound_listener,
    filter_chain,
    http_filter,
    http_inspector,
    mongo_filter,
    plaintext_http,
    tcp_filter,
    tls_inspector,
)
from pilothouse.translators.envoy.http_connection import HttpSettings, outbound_connection
from pilothouse.translators.envoy.listener_plan import Kind, ListenerPlan, listener_plans
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.tcp_policy import TcpPolicy
from pilothouse.translators.envoy.tcp_routes import TcpChain
from pilothouse.translators.envoy.unknown_hosts import unknown_hosts, unknown_hosts_routes


class ListenerKey(NamedTuple):
    """
    One outbound listener: its plan, and the little it depends on besides.

    `unknown` is the cluster of connections that are not for it; `lookup` is set where the hosts of
    its requests are looked up if nobody declared them.
    """

    plan: ListenerPlan
    profile: Profile
    settings: ProxySettings
    unknown: str
    lookup: DynamicHost | None = None


class CatchAllKey(NamedTuple):
    """What virtualOutbound depends on; `lookup` is as in `ListenerKey`."""

    scope: Scope
    wildcards: tuple[str, ...]
    is_transparent: bool
    settings: ProxySettings
    profile: Profile
    lookup: DynamicHost | None = None


@query
def outbound_listeners(ctx: Ctx, view: View) -> ResourceLayer:
    """Return the outbound listeners of a view, virtualOutbound last (LS-01)."""
    if not ctx.get(mesh_config, None).proxy_listen_port:
        return ResourceLayer(())  # MC-01
    unknown = ctx.get(unknown_destination, view.scope)
    lookup = unknown_hosts(view).lookup if ctx.get(looks_up_unknown, view.scope) else None
    found = [
        ctx.get_or_none(
            outbound_listener, ListenerKey(plan, view.profile, view.settings, unknown, lookup)
        )
        for plan in ctx.get(listener_plans, view)
    ]
    if view.mode is not InterceptionMode.NONE:
        wildcards = (view.wildcard, *view.more_wildcards)
        is_transparent = view.mode is InterceptionMode.TPROXY
        key = CatchAllKey(
            view.scope, wildcards, is_transparent, view.settings, view.profile, lookup
        )
        found.append(ctx.get_or_none(virtual_outbound, key))
    return ResourceLayer(each for each in found if each is not None)


@query
def outbound_listener(ctx: Ctx, key: ListenerKey) -> Resource:
    """Build one outbound listener from its plan."""
    plan = key.plan
    name = str(plan.name)
    listener = bound_listener(name, plan.name.bind, plan.name.port, plan.more_binds)
    listener.traffic_direction = base_pb2.OUTBOUND
    listener.continue_on_listener_filters_timeout = True
    listener.bind_to_port.value = plan.binds_port
    if key.settings.balances_outbound:
        listener.connection_balance_config.exact_balance.SetInParent()
    listener.metadata.CopyFrom(metadata((plan.source,), with_generation=False))
    disjoint = told_apart(plan.tcp, ctx.report)
    logging = ctx.get(access_logging, None)
    chains = [_tcp_chain(chain, plan, key.settings.idle_timeout, logging) for chain in disjoint]
    if plan.route is not None:
        normalization = ctx.get(mesh_config, None).path_normalization.normalization
        chains.append(_http_chain(plan, key, HttpSettings(key.settings, normalization, logging)))
    passthrough = _passthrough(key.unknown, key.settings.idle_timeout, logging)
    _add_chains(listener, chains, plan, passthrough)
    if plan.kind is Kind.AUTO or any(chain.sni for chain in plan.tcp):
        listener.listener_filters.append(tls_inspector())
    if plan.kind is Kind.AUTO:
        listener.listener_filters.append(http_inspector())
        timeout = ctx.get(mesh_config, None).protocol_detection_timeout
        listener.listener_filters_timeout.FromTimedelta(timeout)
    refs = [plan.source.ref]
    refs.extend(chain.routed_by.ref for chain in plan.tcp if chain.routed_by)
    return Resource(LDS, name, encode(listener), tuple(dict.fromkeys(refs)))


def _add_chains(
    listener: listener_pb2.Listener,
    chains: list[components_pb2.FilterChain],
    plan: ListenerPlan,
    passthrough: components_pb2.FilterChain,
) -> None:
    """
    Make the chain that takes everything the default chain.

    Envoy never goes back: a connection that meets the transport of the HTTP chain and then not its
    protocol would find no chain, even beside one without conditions.
    """
    open_chains = [chain for chain in chains if not chain.HasField("filter_chain_match")]
    if len(chains) == 1 and open_chains:
        listener.filter_chains.extend(chains)
        return
    listener.filter_chains.extend(chain for chain in chains if chain not in open_chains)
    if open_chains:
        listener.default_filter_chain.CopyFrom(open_chains[0])
    elif not plan.binds_port:
        # Traffic that is not for us passes, or is dropped, as if there were no listener (LS-06).
        listener.default_filter_chain.CopyFrom(passthrough)


def _passthrough(
    unknown: str, idle_timeout: Duration | None, logging: AccessLogging | None
) -> components_pb2.FilterChain:
    clusters = (WeightedCluster(unknown, 1),)
    passing = tcp_filter(unknown, clusters, TcpPolicy(idle_timeout=idle_timeout), logging)  # NM-14
    return filter_chain(Match(), passing, name=PASSTHROUGH_FILTER_CHAIN)


def _http_chain(
    plan: ListenerPlan, key: ListenerKey, settings: HttpSettings
) -> components_pb2.FilterChain:
    manager = outbound_connection(
        str(plan.name),
        plan.route or "",
        key.profile,
        settings,
        keeps_sessions=plan.keeps_sessions,
        lookups=(*plan.lookups, key.lookup) if key.lookup else plan.lookups,
    )
    is_detected = plan.kind is Kind.AUTO
    match = plaintext_http(accepts_http10=key.settings.accepts_http10) if is_detected else Match()
    return filter_chain(match, http_filter(manager))


def _tcp_chain(
    chain: TcpChain,
    plan: ListenerPlan,
    idle_timeout: Duration | None,
    logging: AccessLogging | None,
) -> components_pb2.FilterChain:
    sources = (chain.source, chain.routed_by) if chain.routed_by else (chain.source,)
    policy = chain.policy.with_default_idle(idle_timeout)
    built = filter_chain(
        Match(cidrs=chain.cidrs, sni=chain.sni),
        tcp_filter(chain.stat_prefix, chain.clusters, policy, logging),
        metadata=metadata(sources, config=chain.routed_by, with_generation=False),
    )
    if plan.protocol is Protocol.MONGO:
        built.filters.insert(0, mongo_filter(chain.stat_prefix))
    if chain.lookup is not None:
        built.filters.insert(0, dynamic_sni_filter(chain.lookup, plan.name.port))
    return built


@query
def virtual_outbound(ctx: Ctx, key: CatchAllKey) -> Resource:
    """Build the listener that redirected connections reach first (N-22, LS-11)."""
    port = ctx.get(mesh_config, None).proxy_listen_port
    logging = ctx.get(access_logging, None)
    listener = bound_listener(VIRTUAL_OUTBOUND, key.wildcards[0], port, key.wildcards[1:])
    listener.traffic_direction = base_pb2.OUTBOUND
    listener.use_original_dst.value = True
    if key.is_transparent:
        listener.transparent.value = True
    if key.settings.balances_outbound:
        listener.connection_balance_config.exact_balance.SetInParent()
    listener.filter_chains.append(
        filter_chain(
            Match(port=port),  # a connection to the port itself would loop (3.16)
            tcp_filter(
                BLACK_HOLE_CLUSTER, (WeightedCluster(BLACK_HOLE_CLUSTER, 1),), logging=logging
            ),
            name=OUTBOUND_BLACKHOLE_CHAIN,
        )
    )
    if key.lookup is not None:
        _look_up_hosts(ctx, listener, key, key.lookup)
    cluster = ctx.get(unknown_destination, key.scope)
    idle = TcpPolicy(idle_timeout=key.settings.idle_timeout)  # NM-14
    listener.filter_chains.append(
        filter_chain(
            Match(),
            tcp_filter(cluster, (WeightedCluster(cluster, 1),), idle, logging),
            name=OUTBOUND_CATCHALL_CHAIN,
        )
    )
    log_lost_connections(listener, logging)
    return Resource(LDS, VIRTUAL_OUTBOUND, encode(listener))


def _look_up_hosts(
    ctx: Ctx, listener: listener_pb2.Listener, key: CatchAllKey, lookup: DynamicHost
) -> None:
    """Give plain-text HTTP a chain of its own, in which the hosts of requests are looked up."""
    mesh = ctx.get(mesh_config, None)
    normalization = mesh.path_normalization.normalization
    manager = outbound_connection(
        f"{VIRTUAL_OUTBOUND}_{ALLOW_ANY_DYNAMIC_DNS}",
        unknown_hosts_routes(key.settings.on_routes),
        key.profile,
        HttpSettings(key.settings, normalization, ctx.get(access_logging, None)),
        lookups=(lookup,),
    )
    # By protocol alone: beside a chain for raw connections the next one would not be found.
    match = Match(alpn=plaintext_http(accepts_http10=key.settings.accepts_http10).alpn)
    listener.filter_chains.append(
        filter_chain(match, http_filter(manager), name=OUTBOUND_CATCHALL_HTTP_CHAIN)
    )
    listener.listener_filters.append(http_inspector())
    # Where the server speaks first there is nothing to inspect: such connections pass in the end,
    # unless they could be requests that must not leave in plain text.
    listener.continue_on_listener_filters_timeout = mesh.outbound_traffic_policy.tls is None
    if mesh.protocol_detection_timeout:
        listener.listener_filters_timeout.FromTimedelta(mesh.protocol_detection_timeout)
