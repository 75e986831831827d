"""
Traffic policies: which DestinationRule a client obeys for a host, and what it says for a cluster.

Lookup order and merging follow traffic.md DR-01 to DR-07. A merged rule is named by a `RuleKey`,
so that clusters of different namespaces that obey the same rule are the same resource.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from pilothouse.api.destination_rule import (
    ClientTls,
    ConnectionPool,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    Subset,
    TrafficPolicy,
)
from pilothouse.api.meta import selects
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.hosts import most_specific, resolve_short_name
from pilothouse.model.inputs import DESTINATION_RULES, host_index
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.provenance import Source
from pilothouse.model.scopes import is_exported


class RuleKey(NamedTuple):
    """
    A merged rule: all DestinationRules of a namespace for one host that agree on a selector.

    `selector` is empty but for rules that pick their clients by label (DR-06).
    """

    namespace: str
    host: str
    selector: tuple[tuple[str, str], ...] = ()


class RuleQuestion(NamedTuple):
    """A client of `namespace` with `labels` asks for its rule for a host of `owner`."""

    namespace: str
    labels: tuple[tuple[str, str], ...]
    host: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedRule:
    """What the rules behind a `RuleKey` say together; the oldest comes first in `sources`."""

    policy: TrafficPolicy | None
    subsets: tuple[Subset, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The effective policy of one cluster; None means Istio's default."""

    connection_pool: ConnectionPool | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


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
    for row in ctx.where(DESTINATION_RULES, "wildcard", True):
        if most_specific([row.spec.host.lower()], host):
            found[row.meta.key] = row
    return tuple(sorted(found.values(), key=lambda row: row.meta.age_order))


@query
def rule_for(ctx: Ctx, asked: RuleQuestion) -> RuleKey | None:
    """
    Return the one rule a client obeys: its own namespace's, the service's, the root's (DR-05).

    In each namespace the most specific host wins (DR-01); a rule that selects the client by label
    beats one that does not (DR-06).
    """
    rows = ctx.get(rules_for_host, asked.host)
    if not rows:
        return None
    mesh = ctx.get(mesh_config, None)
    labels = dict(asked.labels)
    suffix = ctx.get(domain, None)
    for place in dict.fromkeys((asked.namespace, asked.owner, mesh.root_namespace)):
        candidates: dict[str, list[DestinationRule]] = {}
        for row in rows:
            if row.meta.namespace != place:
                continue
            selector = _selector(row)
            if selector and (place != asked.namespace or not selects(dict(selector), labels)):
                continue
            export_to = row.spec.export_to or mesh.default_destination_rule_export_to
            if place != asked.namespace and not is_exported(export_to, place, asked.namespace):
                continue
            full = resolve_short_name(row.spec.host, place, suffix)
            candidates.setdefault(full, []).append(row)
        best = most_specific(candidates, asked.host)
        if best is not None:
            selectors = [_selector(row) for row in candidates[best]]
            return RuleKey(place, best, next((s for s in selectors if s), ()))
    return None


def _selector(row: DestinationRule) -> tuple[tuple[str, str], ...]:
    selector = row.spec.workload_selector
    return tuple(sorted(selector.match_labels.items())) if selector else ()


@query
def merged_rule(ctx: Ctx, key: RuleKey) -> MergedRule | None:
    """Return what all rules behind a key say: first policy wins, subsets add up (DR-07)."""
    suffix = ctx.get(domain, None)
    rows = [
        row
        for row in ctx.get(rules_for_host, key.host)
        if row.meta.namespace == key.namespace
        and resolve_short_name(row.spec.host, key.namespace, suffix) == key.host
        and _selector(row) == key.selector
    ]
    if not rows:
        return None
    subsets: dict[str, Subset] = {}
    policy: TrafficPolicy | None = None
    for row in rows:
        policy = policy or row.spec.traffic_policy
        for index, subset in enumerate(row.spec.subsets):
            if subset.name in subsets:
                ctx.report(
                    Finding(
                        Severity.WARNING,
                        "DuplicateSubset",
                        row.meta.ref(f"spec.subsets[{index}].name"),
                        f"Subset {subset.name!r} of {key.host} is declared by an older rule too; "
                        "that one is used.",
                        "Give the subset another name or remove one declaration.",
                    )
                )
            subsets.setdefault(subset.name, subset)
    return MergedRule(
        policy=policy,
        subsets=tuple(subsets.values()),
        sources=tuple(Source.of(row.meta) for row in rows),
    )


def policy_for(rule: MergedRule | None, port: int, subset: str) -> Policy:
    """
    Return the policy of a cluster: port level over the destination's, subset over both.

    A port-level entry replaces the four blocks of its level wholesale; a subset overrides block by
    block, its own port-level entry all four (DR-03, DR-04).
    """
    if rule is None:
        return NO_POLICY
    top = _at_port(rule.policy, port)
    chosen = next((s for s in rule.subsets if s.name == subset), None) if subset else None
    if chosen is None or chosen.traffic_policy is None:
        return top
    own = chosen.traffic_policy
    if any(entry.port and entry.port.number == port for entry in own.port_level_settings):
        return _at_port(own, port)
    return Policy(
        connection_pool=own.connection_pool or top.connection_pool,
        load_balancer=own.load_balancer or top.load_balancer,
        outlier_detection=own.outlier_detection or top.outlier_detection,
        tls=own.tls or top.tls,
    )


def _at_port(policy: TrafficPolicy | None, port: int) -> Policy:
    if policy is None:
        return NO_POLICY
    for entry in policy.port_level_settings:
        if entry.port and entry.port.number == port:
            return Policy(
                connection_pool=entry.connection_pool,
                load_balancer=entry.load_balancer,
                outlier_detection=entry.outlier_detection,
                tls=entry.tls,
            )
    return Policy(
        connection_pool=policy.connection_pool,
        load_balancer=policy.load_balancer,
        outlier_detection=policy.outlier_detection,
        tls=policy.tls,
    )
