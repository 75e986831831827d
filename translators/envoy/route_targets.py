"""
Which cluster a destination of a VirtualService leads to, for the clients of a scope (VS-19).

What depends on the scope is gathered here, so that routes are encoded once for all scopes in which
the destinations are the same. What is unknown is told where the destination is used.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pilothouse.api.virtual_service import Destination
from pilothouse.graph.core import Ctx, firewall
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.delegation import Rule
from pilothouse.model.hosts import resolve_short_name
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.names import ClusterName
from pilothouse.model.policies import (
    ClusterRule,
    MergedRule,
    RuleKey,
    RuleQuestion,
    affinity,
    governing_rule,
    merged_rule,
    policy_for,
    subset_names,
)
from pilothouse.model.proxies import CertificateSource
from pilothouse.model.scopes import HostQuestion, Scope, service_for_host
from pilothouse.model.services import Service, ServiceKey, service
from pilothouse.model.transport import transport_of
from pilothouse.translators.envoy.http_options import HttpUpstream
from pilothouse.translators.envoy.mutual_tls import offered_by_request
from pilothouse.translators.envoy.route_context import Report, Resolve, RouteTarget


class TargetClient(NamedTuple):
    """
    Who sends, to which port; `namespace` is that of the VirtualService that sends on.

    With `tells_protocol` a target has what is offered for each request (D-1).
    """

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    namespace: str
    port: int
    tells_protocol: bool = False


class Resolved(NamedTuple):
    """A destination's target, its full host, and whether host and subset are known."""

    target: RouteTarget
    host: str
    knows_host: bool
    knows_subset: bool


def destinations(rules: Iterable[Rule]) -> Iterator[Destination]:
    """Yield all that rules send or mirror to, each once."""
    seen: set[Destination] = set()
    for rule in rules:
        http = rule.http
        found = [http.mirror] if http.mirror else []
        found.extend(each.destination for each in http.mirrors)
        found.extend(each.destination for each in http.route)
        for each in found:
            if each not in seen:
                seen.add(each)
                yield each


def resolved(ctx: Ctx, client: TargetClient, destination: Destination) -> Resolved:
    """
    Return the target of a destination.

    Its port is the destination's own, else the service's only port, else the listener's.
    """
    host = resolve_short_name(destination.host, client.namespace, ctx.get(domain, None))
    owner = ctx.get(service_for_host, HostQuestion(client.scope, host))
    number = destination.port.number if destination.port else 0
    if not number:
        number = owner.ports[0].number if owner and len(owner.ports) == 1 else client.port
    host = owner.host if owner else host
    name = ClusterName(number, destination.subset, host)
    namespace = owner.namespace if owner else client.namespace
    asked = RuleQuestion(client.scope.namespace, client.labels, host, namespace)
    rule = governing_rule(ctx, asked)
    subset = destination.subset
    return Resolved(
        target_at(ctx, owner, name, rule, tells_protocol=client.tells_protocol),
        host,
        owner is not None,
        not subset or (rule is not None and subset in ctx.get(subset_names, rule)),
    )


def reporting(found: Resolved, destination: Destination, ref: ConfigRef, report: Report) -> None:
    """Say what is unknown of a destination that is used at `ref`."""
    if not found.knows_host:
        report(_unknown_host(ref, found.host))
    if not found.knows_subset:
        report(_unknown_subset(ref, found.host, destination.subset))


def target_resolver(ctx: Ctx, client: TargetClient) -> Resolve:
    """Return what turns destinations into targets one by one, for clients of one scope."""

    def resolve(destination: Destination, ref: ConfigRef) -> RouteTarget:
        found = resolved(ctx, client, destination)
        reporting(found, destination, ref, ctx.report)
        return found.target

    return resolve


def target_at(
    ctx: Ctx,
    owner: Service | None,
    name: ClusterName,
    rule: RuleKey | None,
    *,
    tells_protocol: bool,
) -> RouteTarget:
    """Return the target of a cluster under a rule."""
    hashing = ctx.get(affinity, ClusterRule(rule, name.port, name.subset)) if rule else None
    offer = _offer(ctx, owner, name, rule) if tells_protocol else ""
    return RouteTarget(cluster=str(name), hash_policy=hashing, offer=offer)


class _OfferKey(NamedTuple):
    service: ServiceKey
    at: ClusterRule


def _offer(ctx: Ctx, owner: Service | None, name: ClusterName, rule: RuleKey | None) -> str:
    """Return what mutual TLS offers for each request; empty if the cluster itself knows."""
    if owner is None or owner.port(name.port) is None:
        return ""
    if rule is None:
        return _offered(ctx, owner, name.port, "", None)
    return ctx.get(_offer_under, _OfferKey(owner.key, ClusterRule(rule, name.port, name.subset)))


@firewall(1)
def _offer_under(ctx: Ctx, key: _OfferKey) -> str:
    """Return the offer of a cluster that a rule governs, the same for all its clients."""
    owner = ctx.get(service, key.service)
    if owner is None:
        return ""
    return _offered(ctx, owner, key.at.port, key.at.subset, ctx.get(merged_rule, key.at.rule))


def _offered(ctx: Ctx, owner: Service, port: int, subset: str, rule: MergedRule | None) -> str:
    at = owner.port(port)
    if at is None:
        return ""
    mesh = ctx.get(mesh_config, None)
    policy = policy_for(rule, port, subset, mesh.default_traffic_policy)
    # Which certificates the client has does not matter here, only that it has some.
    if not transport_of(mesh, owner, policy.tls, CertificateSource.ADS).may_be_mutual:
        return ""
    upgrades = mesh.h2_upgrade_policy == "UPGRADE"
    return offered_by_request(HttpUpstream(at.protocol, policy.connection_pool, upgrades))


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
