"""
Which DestinationRules of a namespace are used as one, and who sees them (DR-05 to DR-07).

Rules for one host merge into the oldest if the newer one is exported at least as widely, and rules
that pick clients by label only with rules that pick the same; the others stay apart. Functions on
rows only: finding the rows is the business of `pilothouse.model.policies`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pilothouse.api.destination_rule import DestinationRule
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.visibility import EVERYWHERE, OWN_NAMESPACE, is_exported

Selector = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules of one namespace and host that are used as one; the oldest comes first."""

    rows: tuple[DestinationRule, ...]

    @property
    def oldest(self) -> DestinationRule:
        """The rule whose policy and visibility the group has."""
        return self.rows[0]

    @property
    def selector(self) -> Selector:
        """The client labels all of them ask for; empty for rules that are for everybody."""
        return selector_of(self.oldest)


def selector_of(row: DestinationRule) -> Selector:
    """Return the client labels a rule asks for, sorted."""
    selector = row.spec.workload_selector
    return tuple(sorted(selector.match_labels.items())) if selector else ()


def written_exports(row: DestinationRule) -> tuple[str, ...]:
    """Return exportTo as it counts: a rule with a selector stays in its namespace (DR-06)."""
    return (OWN_NAMESPACE,) if selector_of(row) else row.spec.export_to


def joins(row: DestinationRule, oldest: DestinationRule) -> bool:
    """Tell whether a newer rule merges into an older one of the same host and namespace."""
    if selector_of(row) != selector_of(oldest):
        return False
    wider, base = set(written_exports(row)), set(written_exports(oldest))
    return wider == base or (bool(base) and wider >= base)


def grouped(rows: Iterable[DestinationRule]) -> tuple[RuleGroup, ...]:
    """Group rules of one namespace and host, given the oldest first."""
    groups: list[list[DestinationRule]] = []
    for row in rows:
        hosts = [group for group in groups if joins(row, group[0])]
        for group in hosts:
            group.append(row)
        if not hosts:
            groups.append([row])
    return tuple(RuleGroup(tuple(group)) for group in groups)


def is_for_own_namespace(row: DestinationRule) -> bool:
    """Tell whether clients of the rule's own namespace see it."""
    exports = written_exports(row)
    own = row.meta.namespace
    return not exports or any(each in (EVERYWHERE, OWN_NAMESPACE, own) for each in exports)


def is_private(row: DestinationRule, default: tuple[str, ...]) -> bool:
    """Tell whether no other namespace can see the rule; `default` counts without exportTo."""
    exports = set(written_exports(row) or default)
    return exports <= {OWN_NAMESPACE, row.meta.namespace}


def is_seen_from(row: DestinationRule, client: str, default: tuple[str, ...]) -> bool:
    """Tell whether clients of a namespace see the rule."""
    return is_exported(written_exports(row) or default, row.meta.namespace, client)


def overshadowed(row: DestinationRule, newer: DestinationRule) -> Finding:
    """Say that clients of both rules obey the newer one."""
    return Finding(
        Severity.WARNING,
        "RuleOvershadowed",
        row.meta.ref("spec.exportTo"),
        f"The newer DestinationRule {newer.meta.name} for the same host is exported differently, "
        "so the two do not merge; clients that see both obey only the newer one.",
        "Give both the same exportTo, or make them one rule.",
    )


def duplicate_subset(row: DestinationRule, index: int, name: str, host: str) -> Finding:
    """Say that a subset is declared by an older rule."""
    return Finding(
        Severity.WARNING,
        "DuplicateSubset",
        row.meta.ref(f"spec.subsets[{index}].name"),
        f"Subset {name!r} of {host} is declared by an older rule too; that one is used.",
        "Give the subset another name or remove one declaration.",
    )


def policy_ignored(row: DestinationRule, decides: DestinationRule) -> Finding:
    """Say that an older rule decides the policy."""
    return Finding(
        Severity.WARNING,
        "TrafficPolicyIgnored",
        row.meta.ref("spec.trafficPolicy"),
        f"The older DestinationRule {decides.meta.name} for the same host has a trafficPolicy; "
        "only that one is used.",
        "Keep the trafficPolicy in one of the rules.",
    )


def export_ignored(row: DestinationRule, oldest: DestinationRule) -> Finding:
    """Say that the visibility of the oldest rule counts."""
    return Finding(
        Severity.WARNING,
        "ExportIgnored",
        row.meta.ref("spec.exportTo"),
        f"This rule merges into the older DestinationRule {oldest.meta.name} for the same host and "
        "is seen only by namespaces that see that one.",
        "Give both the same exportTo.",
    )
