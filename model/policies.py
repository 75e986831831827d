"""
Traffic policies: which DestinationRule a client obeys for a host, and what it says for a cluster.

Lookup order and merging follow traffic.md DR-01 to DR-07. A merged rule is named by a `RuleKey`,
so that clusters of different namespaces that obey the same rule are the same resource.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from msgspec import structs

from pilothouse.api.destination_rule import (
    ClientTls,
    ConnectionPool,
    ConsistentHash,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    PortTrafficPolicy,
    ProxyProtocol,
    RetryBudget,
    Subset,
    TrafficPolicy,
    Tunnel,
)
from pilothouse.api.mesh_config import DefaultTrafficPolicy
from pilothouse.api.meta import selects
from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.model.hosts import matches, most_specific, resolve_short_name
from pilothouse.model.inputs import DESTINATION_RULES, host_index
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.provenance import Source
from pilothouse.model.rule_groups import (
    RuleGroup,
    Selector,
    duplicate_subset,
    export_ignored,
    grouped,
    is_for_own_namespace,
    is_private,
    is_seen_from,
    joins,
    overshadowed,
    policy_ignored,
    selector_of,
)
from pilothouse.model.visibility import is_discovered


class RuleKey(NamedTuple):
    """
    A merged rule: the DestinationRules of a namespace for one host that are used as one.

    `oldest` is the name of the oldest of them. `selector` is empty but for rules that pick their
    clients by label (DR-06).
    """

    namespace: str
    host: str
    oldest: str
    selector: Selector = ()


class RuleQuestion(NamedTuple):
    """A client of `namespace` with `labels` asks for its rule for a host of `owner`."""

    namespace: str
    labels: tuple[tuple[str, str], ...]
    host: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRule:
    """
    What the rules behind a `RuleKey` say together; the oldest comes first in `sources`.

    `policy_source` and `subset_sources` (by name) say which rule and field a policy came from.
    """

    policy: TrafficPolicy | None
    subsets: tuple[Subset, ...]
    sources: tuple[Source, ...]
    policy_source: Source | None = None
    subset_sources: tuple[tuple[str, Source], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The effective policy of one cluster; None means Istio's default."""

    connection_pool: ConnectionPool | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None
    tunnel: Tunnel | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


NO_POLICY: Final = Policy()


@query
def rules_for_host(ctx: Ctx, host: str) -> tuple[DestinationRule, ...]:
    """Return the DestinationRules of every namespace whose host covers this one, oldest first."""
    found = {row.meta.key: row for row in ctx.where(DESTINATION_RULES, "host", host)}
    suffix = f".svc.{ctx.get(domain, None)}"
    if host.endswith(suffix):
        name, _, namespace = host.removesuffix(suffix).partition(".")
        for row in ctx.where(DESTINATION_RULES, "host", host_index(name, namespace)):
            found[row.meta.key] = row
    for pattern in ctx.index_values(DESTINATION_RULES, "wildcard"):
        if matches(str(pattern), host):
            for row in ctx.where(DESTINATION_RULES, "wildcard", pattern):
                found[row.meta.key] = row
    rows = (row for row in found.values() if is_discovered(ctx, row.meta.namespace))
    return tuple(sorted(rows, key=lambda row: row.meta.age_order))


def governing_rule(ctx: Ctx, asked: RuleQuestion) -> RuleKey | None:
    """Return what `rule_for` says, without a node for each client of a host no rule names."""
    return ctx.get(rule_for, asked) if ctx.get(has_rules, asked.host) else None


@firewall(1)
def has_rules(ctx: Ctx, host: str) -> bool:
    """Tell whether any DestinationRule covers a host, whatever it says."""
    return bool(ctx.get(rules_for_host, host))


@firewall(1)
def rule_outlines(ctx: Ctx, host: str) -> tuple[DestinationRule, ...]:
    """Return the rules of a host without what they say of traffic: whose and for whom they are."""
    return tuple(
        structs.replace(
            row,
            meta=structs.replace(row.meta, generation="", labels={}, annotations={}),
            spec=structs.replace(row.spec, traffic_policy=None, subsets=()),
        )
        for row in ctx.get(rules_for_host, host)
    )


@query
def rule_for(ctx: Ctx, asked: RuleQuestion) -> RuleKey | None:
    """
    Return the one rule a client obeys: its own namespace's, the service's, the root's (DR-05).

    In each namespace the most specific host wins (DR-01); a rule that selects the client by label
    beats one that does not (DR-06). Clients of the root namespace first look at the rules that the
    root namespace keeps to itself: the others are meant for everybody and come last.
    """
    rows = ctx.get(rule_outlines, asked.host)
    if not rows:
        return None
    mesh = ctx.get(mesh_config, None)
    default = mesh.default_destination_rule_export_to
    own = [
        row
        for row in rows
        if row.meta.namespace == asked.namespace
        and is_for_own_namespace(row)
        and (asked.namespace != mesh.root_namespace or is_private(row, default))
    ]
    host, groups = _best(ctx, own, asked.host)
    labels = dict(asked.labels)
    for group in groups:
        if group.selector and selects(dict(group.selector), labels):
            return _key(group, host)
    chosen = _newest(ctx, [group for group in groups if not group.selector])
    if chosen is not None:
        return _key(chosen, host)
    for place in dict.fromkeys((asked.owner, mesh.root_namespace)):
        exported = [
            row for row in rows if row.meta.namespace == place and not is_private(row, default)
        ]
        host, groups = _best(ctx, exported, asked.host)
        seen = [each for each in groups if is_seen_from(each.oldest, asked.namespace, default)]
        chosen = _newest(ctx, seen)
        if chosen is not None:
            return _key(chosen, host)
    return None


def _best(ctx: Ctx, rows: list[DestinationRule], host: str) -> tuple[str, tuple[RuleGroup, ...]]:
    suffix = ctx.get(domain, None)
    by_host: dict[str, list[DestinationRule]] = {}
    for row in rows:
        full = resolve_short_name(row.spec.host, row.meta.namespace, suffix)
        by_host.setdefault(full, []).append(row)
    best = most_specific(by_host, host) or ""
    return best, grouped(by_host.get(best, ()))


def _key(group: RuleGroup, host: str) -> RuleKey:
    meta = group.oldest.meta
    return RuleKey(meta.namespace, host, meta.name, group.selector)


def _newest(ctx: Ctx, groups: list[RuleGroup]) -> RuleGroup | None:
    # Rules that do not merge because of exportTo: the newest is obeyed, as upstream.
    if not groups:
        return None
    chosen = groups[-1]
    for group in groups[:-1]:
        ctx.report(overshadowed(group.oldest, chosen.oldest))
    return chosen


@query
def merged_rule(ctx: Ctx, key: RuleKey) -> MergedRule | None:
    """Return what all rules behind a key say: first policy wins, subsets add up (DR-07)."""
    suffix = ctx.get(domain, None)
    same = [
        row
        for row in ctx.get(rules_for_host, key.host)
        if row.meta.namespace == key.namespace
        and resolve_short_name(row.spec.host, key.namespace, suffix) == key.host
        and selector_of(row) == key.selector
    ]
    oldest = next((row for row in same if row.meta.name == key.oldest), None)
    if oldest is None:
        return None
    mesh = ctx.get(mesh_config, None)
    default = mesh.default_destination_rule_export_to
    if key.namespace == mesh.root_namespace and is_private(oldest, default):
        same = [row for row in same if is_private(row, default)]  # as its own clients see them
    later = [row for row in same if row.meta.age_order > oldest.meta.age_order]
    rows = (oldest, *(row for row in later if joins(row, oldest)))
    subsets: dict[str, Subset] = {}
    places: dict[str, Source] = {}
    decides: DestinationRule | None = None
    for row in rows:
        for index, subset in enumerate(row.spec.subsets):
            if subset.name in subsets:
                ctx.report(duplicate_subset(row, index, subset.name, key.host))
            else:
                subsets[subset.name] = subset
                path = f"spec.subsets[{index}].trafficPolicy"
                places[subset.name] = Source.of(row.meta, path)
        if row.spec.traffic_policy is not None:
            if decides is not None:
                ctx.report(policy_ignored(row, decides))
            decides = decides or row
        is_wider = set(row.spec.export_to) != set(oldest.spec.export_to)
        if is_wider and not is_private(oldest, ()):  # a private rule hides none from others
            ctx.report(export_ignored(row, oldest))
    return MergedRule(
        policy=decides.spec.traffic_policy if decides else None,
        subsets=tuple(subsets.values()),
        sources=tuple(Source.of(row.meta) for row in rows),
        policy_source=Source.of(decides.meta, "spec.trafficPolicy") if decides else None,
        subset_sources=tuple(places.items()),
    )


@firewall(1)
def subset_names(ctx: Ctx, key: RuleKey) -> tuple[str, ...]:
    """Return the subsets a rule declares, in order."""
    rule = ctx.get(merged_rule, key)
    return tuple(subset.name for subset in rule.subsets) if rule else ()


class ClusterRule(NamedTuple):
    """What a rule says of a port and a subset of its hosts."""

    rule: RuleKey
    port: int
    subset: str


@firewall(1)
def affinity(ctx: Ctx, asked: ClusterRule) -> ConsistentHash | None:
    """Return by what requests of a client stay together: a matter of routes (DR-13, DR-24)."""
    balancer = policy_for(ctx.get(merged_rule, asked.rule), asked.port, asked.subset).load_balancer
    return balancer.consistent_hash if balancer else None


def policy_for(
    rule: MergedRule | None, port: int, subset: str, defaults: DefaultTrafficPolicy | None = None
) -> Policy:
    """
    Return the policy of a cluster: port level over the destination's, subset over both.

    A port-level entry replaces the whole policy of its level. A subset overrides block by block;
    its port-level entry replaces limits, balancer, ejection and TLS, and inherits the rest (DR-03,
    DR-04). The mesh's `defaults` fill blocks the destination leaves out (DR-63).
    """
    top, _ = _at_port(rule.policy if rule else None, port)
    if defaults is not None:
        top = _filled(top, defaults)
    chosen = next((s for s in rule.subsets if s.name == subset), None) if rule and subset else None
    if chosen is None or chosen.traffic_policy is None:
        return top
    own, replaces = _at_port(chosen.traffic_policy, port)
    base = NO_POLICY if replaces else top
    return Policy(
        connection_pool=own.connection_pool or base.connection_pool,
        load_balancer=own.load_balancer or base.load_balancer,
        outlier_detection=own.outlier_detection or base.outlier_detection,
        tls=own.tls or base.tls,
        tunnel=own.tunnel or top.tunnel,
        proxy_protocol=own.proxy_protocol or top.proxy_protocol,
        retry_budget=own.retry_budget or top.retry_budget,
    )


def tunnel_for(rule: MergedRule | None, subset: str) -> Tunnel | None:
    """
    Return the tunnel of TCP and TLS routes to a host or to one of its subsets (DR-60).

    It belongs to the listener, not to a cluster: neither ports nor inheritance count.
    """
    if rule is None:
        return None
    policy = rule.policy
    if subset:
        chosen = next((each for each in rule.subsets if each.name == subset), None)
        policy = chosen.traffic_policy if chosen else None
    return policy.tunnel if policy else None


def _at_port(policy: TrafficPolicy | None, port: int) -> tuple[Policy, bool]:
    if policy is None:
        return NO_POLICY, False
    for entry in policy.port_level_settings:
        if entry.port and entry.port.number == port:
            return _blocks(entry), True
    whole = replace(
        _blocks(policy),
        tunnel=policy.tunnel,
        proxy_protocol=policy.proxy_protocol,
        retry_budget=policy.retry_budget,
    )
    return whole, False


def _blocks(policy: TrafficPolicy | PortTrafficPolicy) -> Policy:
    return Policy(
        connection_pool=policy.connection_pool,
        load_balancer=policy.load_balancer,
        outlier_detection=policy.outlier_detection,
        tls=policy.tls,
    )


def _filled(policy: Policy, defaults: DefaultTrafficPolicy) -> Policy:
    return replace(
        policy,
        connection_pool=policy.connection_pool or defaults.connection_pool,
        outlier_detection=policy.outlier_detection or defaults.outlier_detection,
    )
