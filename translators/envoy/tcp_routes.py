"""
TCP and TLS routes: the chains an opaque service port needs (traffic.md VS-43 to VS-49, LS-07).

The result is a plan in values; `pilothouse.translators.envoy.listeners_outbound` makes messages of
it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pilothouse.api.virtual_service import L4Match, RouteDestination, TlsMatch, VirtualService
from pilothouse.graph.core import Ctx, query
from pilothouse.model.domains import host_forms
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import ClusterName
from pilothouse.model.provenance import Source
from pilothouse.model.routing import (
    MESH_GATEWAY,
    RoutingQuestion,
    connection_virtual_services,
    virtual_service,
)
from pilothouse.model.scopes import (
    HostQuestion,
    PortQuestion,
    Scope,
    aliases_of,
    clients_at_port,
    service_for_host,
)
from pilothouse.model.services import Port, Resolution, Service, ServiceKey, service
from pilothouse.translators.envoy.dynamic_dns import DynamicHost
from pilothouse.translators.envoy.filter_chains import WeightedCluster
from pilothouse.translators.envoy.route_targets import TargetClient, target_resolver
from pilothouse.translators.envoy.stat_names import StatSubject, stat_name
from pilothouse.translators.envoy.tcp_policy import (
    NO_TCP_POLICY,
    TcpClient,
    TcpPolicy,
    report_unused_tunnel,
    tcp_policy,
)


class TcpQuestion(NamedTuple):
    """
    The chains of one opaque service port on a listener for clients of a scope.

    `is_own` means that only this service is reached through the listener's address; `ranges` are
    those of the service's addresses that connections must be meant for.
    """

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    service: ServiceKey
    port: int
    domain_suffix: str
    is_own: bool
    ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpChain:
    """
    One opaque chain: whom it is for and where it goes.

    `sni` and `cidrs` empty match everything. `routed_by` is the VirtualService rule behind it.
    `lookup` is the wildcard host under which the SNI is looked up (SE-17).
    """

    clusters: tuple[WeightedCluster, ...]
    stat_prefix: str
    source: Source
    sni: tuple[str, ...] = ()
    cidrs: tuple[str, ...] = ()
    routed_by: Source | None = None
    policy: TcpPolicy = NO_TCP_POLICY
    lookup: DynamicHost | None = None

    @property
    def match_key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What may not repeat within a listener (VS-49)."""
        return (tuple(sorted(self.sni)), tuple(sorted(self.cidrs)))

    def leads_to(self, cluster: str) -> bool:
        """Tell whether some connections go to that cluster."""
        return any(each.cluster == cluster for each in self.clusters)


@query
def tcp_chains(ctx: Ctx, asked: TcpQuestion) -> tuple[TcpChain, ...]:
    """Return the chains of a port: its VirtualServices' rules, then the service itself."""
    owner = ctx.get(service, asked.service)
    port = owner.port(asked.port) if owner else None
    if owner is None or port is None:
        return ()
    ranges = asked.ranges
    clients = ctx.get(clients_at_port, PortQuestion(asked.scope, asked.port))
    rules = _tls_rules if port.protocol.is_tls else _tcp_rules
    chains: list[TcpChain] = []
    covers_all = False
    for key in connection_virtual_services(ctx, RoutingQuestion(clients, owner.host)):
        row = ctx.get(virtual_service, key)
        if row is not None and not covers_all:
            chains.extend(rules(ctx, asked, owner, row, ranges))
            covers_all = any(not chain.sni and chain.cidrs == ranges for chain in chains)
    if port.protocol.is_tls and chains:
        covers_all = True
    if not covers_all:
        chains.append(_own_chain(ctx, asked, owner, port, ranges))
    first: dict[object, TcpChain] = {}
    for chain in chains:
        first.setdefault(chain.match_key, chain)
    return tuple(first.values())


def _own_chain(
    ctx: Ctx, asked: TcpQuestion, owner: Service, port: Port, ranges: tuple[str, ...]
) -> TcpChain:
    name = ClusterName(port.number, "", owner.host)
    # With an address of its own the listener is the match; without one only SNI tells (LS-07).
    is_dynamic = owner.resolution is Resolution.DYNAMIC_DNS
    needs_sni = port.protocol.is_tls and (is_dynamic or not asked.is_own)
    pattern = ctx.get(mesh_config, None).outbound_cluster_stat_name
    return TcpChain(
        clusters=(WeightedCluster(str(name), 1),),
        stat_prefix=stat_name(pattern, StatSubject(owner, port), str(name)),
        source=owner.source,
        sni=_sni_names(ctx, asked, owner) if needs_sni else (),
        cidrs=ranges,
        policy=tcp_policy(ctx, TcpClient(asked.scope, asked.labels), name),
    )


def _sni_names(ctx: Ctx, asked: TcpQuestion, owner: Service) -> tuple[str, ...]:
    # ExternalName services lend the target their names (K8-05).
    names = [owner.host]
    for alias in ctx.get(aliases_of, HostQuestion(asked.scope, owner.host)):
        names.extend(host_forms(alias, asked.scope.namespace, asked.domain_suffix))
    return tuple(dict.fromkeys(names))


def _tls_rules(
    ctx: Ctx, asked: TcpQuestion, owner: Service, row: VirtualService, ranges: tuple[str, ...]
) -> Iterator[TcpChain]:
    for index, rule in enumerate(row.spec.tls):
        for match in rule.match:
            if rule.route and _applies(match, asked):
                yield _rule_chain(
                    ctx,
                    asked,
                    owner,
                    row,
                    rule.route,
                    f"spec.tls[{index}]",
                    sni=tuple(match.sni_hosts),
                    cidrs=match.destination_subnets or ranges,
                )


def _tcp_rules(
    ctx: Ctx, asked: TcpQuestion, owner: Service, row: VirtualService, ranges: tuple[str, ...]
) -> Iterator[TcpChain]:
    for index, rule in enumerate(row.spec.tcp):
        if not rule.route:
            continue
        matches = [match for match in rule.match if _applies(match, asked)]
        if rule.match and not matches:
            continue
        subnets = tuple(subnet for match in matches for subnet in match.destination_subnets)
        is_open = not rule.match or any(not match.destination_subnets for match in matches)
        yield _rule_chain(
            ctx,
            asked,
            owner,
            row,
            rule.route,
            f"spec.tcp[{index}]",
            cidrs=ranges if is_open else subnets,
        )
        if is_open:
            return  # a rule without subnets ends the scan (VS-47)


def _applies(match: TlsMatch | L4Match, asked: TcpQuestion) -> bool:
    if match.port and match.port != asked.port:
        return False
    # Unlike those of HTTP, gateways do not overrule what is said of the source (VS-45).
    if match.gateways and MESH_GATEWAY not in match.gateways:
        return False
    if match.source_namespace and match.source_namespace != asked.scope.namespace:
        return False
    labels = dict(asked.labels)
    return all(labels.get(name) == value for name, value in match.source_labels.items())


def _rule_chain(
    ctx: Ctx,
    asked: TcpQuestion,
    owner: Service,
    row: VirtualService,
    destinations: tuple[RouteDestination, ...],
    path: str,
    *,
    sni: tuple[str, ...] = (),
    cidrs: tuple[str, ...] = (),
) -> TcpChain:
    sender = TargetClient(asked.scope, asked.labels, row.meta.namespace, asked.port)
    resolve = target_resolver(ctx, sender)
    clusters = tuple(
        WeightedCluster(
            resolve(each.destination, row.meta.ref(f"{path}.route[{index}].destination")).cluster,
            each.weight,
        )
        for index, each in enumerate(destinations)
    )
    if len(clusters) == 1:
        clusters = (clusters[0]._replace(weight=1),)
    names = [ClusterName.parse(each.cluster) for each in clusters]
    client = TcpClient(asked.scope, asked.labels)
    first = names[0]
    if len(clusters) == 1:
        prefix = _stat_prefix(ctx, asked, first)
    else:
        prefix = f"{row.meta.name}.{row.meta.namespace}"
        first = first._replace(subset="")
        for name in names:
            report_unused_tunnel(ctx, client, name)
    return TcpChain(
        clusters=clusters,
        stat_prefix=prefix,
        source=owner.source,
        sni=sni,
        cidrs=cidrs,
        routed_by=Source.of(row.meta, path),
        policy=tcp_policy(ctx, client, first),
    )


def _stat_prefix(ctx: Ctx, asked: TcpQuestion, name: ClusterName) -> str:
    pattern = ctx.get(mesh_config, None).outbound_cluster_stat_name
    owner = ctx.get(service_for_host, HostQuestion(asked.scope, name.host)) if pattern else None
    port = owner.port(name.port) if owner else None
    if owner is None or port is None:
        return str(name)
    return stat_name(pattern, StatSubject(owner, port, name.subset), str(name))
