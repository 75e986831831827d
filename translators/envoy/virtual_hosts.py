"""
Virtual hosts: the routes of one host on one port, as encoded bytes.

Shared by every client for whom the key says the same; a host that no VirtualService shapes does
not depend on the client's scope at all.
"""

from typing import NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.meta import ObjectKey
from pilothouse.api.sessions import Session
from pilothouse.api.virtual_service import Destination, VirtualService
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.delegation import Rule, http_rules
from pilothouse.model.hosts import resolve_short_name
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.names import ClusterName, VirtualHostName
from pilothouse.model.policies import (
    MergedRule,
    RuleKey,
    RuleQuestion,
    governing_rule,
    merged_rule,
    policy_for,
)
from pilothouse.model.provenance import Source
from pilothouse.model.proxies import CertificateSource
from pilothouse.model.proxy_settings import RouteHeaders
from pilothouse.model.resource import field
from pilothouse.model.routing import virtual_service
from pilothouse.model.scopes import HostQuestion, Scope, service_for_host
from pilothouse.model.services import Service, ServiceKey, service
from pilothouse.model.transport import transport_of
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.http_options import HttpUpstream
from pilothouse.translators.envoy.mutual_tls import offered_by_request
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.route_context import Resolve
from pilothouse.translators.envoy.routes import (
    RouteContext,
    RouteTarget,
    default_route,
    virtual_service_routes,
)
from pilothouse.translators.envoy.stateful_sessions import SESSION_FILTER, session_override


class VirtualHostKey(NamedTuple):
    """
    All that a virtual host depends on.

    `service` is None for a host that only a VirtualService knows. The first of the
    `virtual_services` with a route for the port and client shapes it. `scope` and `labels` (the
    client's) are empty where no VirtualService is.
    """

    name: VirtualHostName
    domains: tuple[str, ...]
    service: ServiceKey | None
    rule: RuleKey | None
    virtual_services: tuple[ObjectKey, ...]
    scope: Scope | None
    labels: tuple[tuple[str, str], ...]
    headers: RouteHeaders = RouteHeaders()
    tells_protocol: bool = False
    session: Session | None = None


@query
def virtual_host(ctx: Ctx, key: VirtualHostKey) -> bytes | None:
    """Encode a virtual host, framed as RouteConfiguration.virtual_hosts; None without a route."""
    host = route_components_pb2.VirtualHost(
        name=str(key.name),
        domains=key.domains,
        include_request_attempt_count=key.headers.counts_attempts,
    )
    routes: list[route_components_pb2.Route] = []
    for each in key.virtual_services:
        row = ctx.get(virtual_service, each)
        if row is not None and key.scope is not None and not routes:
            routes = _routes(ctx, key, key.scope, row)
    if not routes and key.service is not None:
        # None of its rules is for this port or client: the service is as if it had no rules.
        routes = [_default_route(ctx, key, key.service)]
    if not routes:
        return None
    host.routes.extend(routes)
    if key.session is not None:
        host.typed_per_filter_config[SESSION_FILTER].CopyFrom(session_override(key.session))
    return field(2, encode(host))


def _default_route(
    ctx: Ctx, key: VirtualHostKey, owner_key: ServiceKey
) -> route_components_pb2.Route:
    owner = ctx.get(service, owner_key)
    rule = ctx.get(merged_rule, key.rule) if key.rule else None
    balancer = policy_for(rule, key.name.port, "").load_balancer
    name = ClusterName(key.name.port, "", key.name.host)
    target = RouteTarget(
        cluster=str(name),
        hash_policy=balancer.consistent_hash if balancer else None,
        offer=_offer(ctx, owner, name, rule) if key.tells_protocol else "",
    )
    return default_route(
        target,
        host=key.name.host,
        port=key.name.port,
        default_retry=ctx.get(mesh_config, None).default_http_retry_policy,
        metadata=metadata((owner.source,) if owner else ()),
    )


def _routes(
    ctx: Ctx, key: VirtualHostKey, scope: Scope, row: VirtualService
) -> list[route_components_pb2.Route]:
    source = Source.of(row.meta)

    def describe(rule: Rule) -> base_pb2.Metadata:
        sources = [Source.of(rule.owner, rule.path)]
        if rule.delegated_at:
            sources.append(source.at(rule.delegated_at))
        return metadata(sources, config=source)

    context = RouteContext(
        listener_port=key.name.port,
        target=target_resolver(
            ctx, scope, key.labels, row, key.name.port, tells_protocol=key.tells_protocol
        ),
        source_namespace=scope.namespace,
        source_labels=dict(key.labels),
        default_retry=ctx.get(mesh_config, None).default_http_retry_policy,
        forwards_host=key.headers.forwards_host,
        metadata=describe,
    )
    return virtual_service_routes(row, context, ctx.report, ctx.get(http_rules, row.meta.key))


def target_resolver(
    ctx: Ctx,
    scope: Scope,
    labels: tuple[tuple[str, str], ...],
    row: VirtualService,
    listener_port: int,
    *,
    tells_protocol: bool = False,
) -> Resolve:
    """
    Return what turns a VirtualService's destinations into clusters (VS-19).

    The port is the destination's own, else the service's only port, else the listener's. With
    `tells_protocol` a target has what is offered for each request (D-1).
    """
    suffix = ctx.get(domain, None)

    def resolve(destination: Destination, ref: ConfigRef) -> RouteTarget:
        host = resolve_short_name(destination.host, row.meta.namespace, suffix)
        owner = ctx.get(service_for_host, HostQuestion(scope, host))
        if owner is None:
            ctx.report(_unknown_host(ref, host))
        number = destination.port.number if destination.port else 0
        if not number:
            number = owner.ports[0].number if owner and len(owner.ports) == 1 else listener_port
        host = owner.host if owner else host
        name = ClusterName(number, destination.subset, host)
        asked = RuleQuestion(
            scope.namespace, labels, host, owner.namespace if owner else row.meta.namespace
        )
        rule_key = governing_rule(ctx, asked)
        rule = ctx.get(merged_rule, rule_key) if rule_key else None
        if destination.subset and not any(
            subset.name == destination.subset for subset in (rule.subsets if rule else ())
        ):
            ctx.report(_unknown_subset(ref, host, destination.subset))
        balancer = policy_for(rule, number, destination.subset).load_balancer
        return RouteTarget(
            cluster=str(name),
            hash_policy=balancer.consistent_hash if balancer else None,
            offer=_offer(ctx, owner, name, rule) if tells_protocol else "",
        )

    return resolve


def _offer(ctx: Ctx, owner: Service | None, name: ClusterName, rule: MergedRule | None) -> str:
    """Return what mutual TLS offers for each request; empty if the cluster itself knows."""
    port = owner.port(name.port) if owner else None
    if owner is None or port is None:
        return ""
    mesh = ctx.get(mesh_config, None)
    policy = policy_for(rule, name.port, name.subset, mesh.default_traffic_policy)
    # Which certificates the client has does not matter here, only that it has some.
    if not transport_of(mesh, owner, policy.tls, CertificateSource.ADS).may_be_mutual:
        return ""
    upgrades = mesh.h2_upgrade_policy == "UPGRADE"
    return offered_by_request(HttpUpstream(port.protocol, policy.connection_pool, upgrades))


def _unknown_host(ref: ConfigRef, host: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "UnknownHost",
        ref.within("host"),
        f"Destination {host} is no service that clients of this route can see; requests to it "
        "get 503.",
        "Check the spelling and namespace, or export the service.",
    )


def _unknown_subset(ref: ConfigRef, host: str, subset: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "UnknownSubset",
        ref.within("subset"),
        f"No DestinationRule for {host} declares subset {subset!r}; requests to it get 503.",
        "Declare the subset in a DestinationRule that the client's namespace can see.",
    )
