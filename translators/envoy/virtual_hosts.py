"""
Virtual hosts: the routes of one host on one port, as encoded bytes.

Shared by every client for whom the key says the same. What depends on the client's scope is worked
out before (`resolved_host`), so scopes in which a VirtualService leads to the same share its host.
"""

from typing import NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.meta import ObjectKey
from pilothouse.api.sessions import Session
from pilothouse.api.virtual_service import Destination, VirtualService
from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.delegation import Rule, http_rules
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import ClusterName, VirtualHostName
from pilothouse.model.policies import RuleKey
from pilothouse.model.provenance import Source
from pilothouse.model.proxy_settings import RouteHeaders
from pilothouse.model.resource import field
from pilothouse.model.routing import virtual_service
from pilothouse.model.scopes import Scope
from pilothouse.model.services import ServiceKey, service
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.route_targets import (
    Resolved,
    TargetClient,
    destinations,
    reporting,
    resolved,
    target_at,
)
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
    client's) are empty where no VirtualService is. In place of `scope` a resolved key has the
    targets of each VirtualService's destinations, and the client's namespace if rules ask for it.
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
    source_namespace: str = ""
    targets: tuple[tuple[Resolved, ...], ...] = ()


class _Wanted(NamedTuple):
    """What a VirtualService's rules want to know of the client."""

    destinations: tuple[Destination, ...]
    namespace: bool


@firewall(1)
def _wanted(ctx: Ctx, key: ObjectKey) -> _Wanted:
    rules = ctx.get(http_rules, key)
    asks = any(match.source_namespace for rule in rules for match in rule.http.match)
    return _Wanted(tuple(destinations(rules)), asks)


@query
def resolved_host(ctx: Ctx, key: VirtualHostKey) -> VirtualHostKey:
    """Return a key with targets in place of its scope."""
    scope = key.scope
    if scope is None:
        return key
    wanted = [ctx.get(_wanted, each) for each in key.virtual_services]
    targets = []
    for owner, each in zip(key.virtual_services, wanted, strict=True):
        client = TargetClient(scope, key.labels, owner.namespace, key.name.port, key.tells_protocol)
        targets.append(tuple(resolved(ctx, client, to) for to in each.destinations))
    asks = any(each.namespace for each in wanted)
    return key._replace(
        scope=None, source_namespace=scope.namespace if asks else "", targets=tuple(targets)
    )


@query
def scoped_virtual_host(ctx: Ctx, key: VirtualHostKey) -> bytes | None:
    """Return a virtual host of a scope; what fails for new targets leaves the old one in use."""
    return ctx.get(virtual_host, ctx.get(resolved_host, key))


@query
def virtual_host(ctx: Ctx, key: VirtualHostKey) -> bytes | None:
    """
    Encode a virtual host, framed as RouteConfiguration.virtual_hosts; None without a route.

    The key has no scope: it is as `resolved_host` returns it.
    """
    host = route_components_pb2.VirtualHost(
        name=str(key.name),
        domains=key.domains,
        include_request_attempt_count=key.headers.counts_attempts,
    )
    routes: list[route_components_pb2.Route] = []
    for each, targets in zip(key.virtual_services, key.targets, strict=True):
        row = ctx.get(virtual_service, each)
        if row is not None and not routes:
            routes = _routes(ctx, key, row, targets)
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
    name = ClusterName(key.name.port, "", key.name.host)
    target = target_at(ctx, owner, name, key.rule, tells_protocol=key.tells_protocol)
    return default_route(
        target,
        host=key.name.host,
        port=key.name.port,
        default_retry=ctx.get(mesh_config, None).default_http_retry_policy,
        metadata=metadata((owner.source,) if owner else ()),
    )


def _routes(
    ctx: Ctx, key: VirtualHostKey, row: VirtualService, targets: tuple[Resolved, ...]
) -> list[route_components_pb2.Route]:
    source = Source.of(row.meta)
    rules = ctx.get(http_rules, row.meta.key)
    known = dict(zip(destinations(rules), targets, strict=True))

    def resolve(destination: Destination, ref: ConfigRef) -> RouteTarget:
        found = known[destination]
        reporting(found, destination, ref, ctx.report)
        return found.target

    def describe(rule: Rule) -> base_pb2.Metadata:
        sources = [Source.of(rule.owner, rule.path)]
        if rule.delegated_at:
            sources.append(source.at(rule.delegated_at))
        return metadata(sources, config=source)

    context = RouteContext(
        listener_port=key.name.port,
        target=resolve,
        source_namespace=key.source_namespace,
        source_labels=dict(key.labels),
        default_retry=ctx.get(mesh_config, None).default_http_retry_policy,
        forwards_host=key.headers.forwards_host,
        metadata=describe,
    )
    return virtual_service_routes(row, context, ctx.report, rules)
