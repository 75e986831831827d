"""
HTTP rules that no request can reach because an earlier one takes them all (traffic.md VS-04).

Says so only where it holds for every listener and client, so that the answer is the same wherever
the VirtualService is used.
"""

from collections.abc import Iterable, Iterator

from pilothouse.api.virtual_service import HttpMatch
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.delegation import Rule
from pilothouse.translators.envoy.matches import is_catch_all
from pilothouse.translators.envoy.source_matches import is_unconditional


def unreachable_rules(rules: Iterable[Rule]) -> Iterator[Finding]:
    """
    Yield a finding for each rule or match entry behind one that takes every request.

    Of a delegate only what it takes from itself is told: other roots may reach the rest.
    """
    taker: tuple[Rule, str] | None = None
    for rule in rules:
        for path, wanted in _entries(rule):
            if taker is None:
                if is_catch_all(wanted) and is_unconditional(wanted):
                    taker = (rule, path)
            elif path != taker[1] and (_is_beside(rule, taker[0]) or not rule.delegated_at):
                yield _unreachable(rule.owner.ref(path), rule, *taker)


def _is_beside(rule: Rule, other: Rule) -> bool:
    return rule.owner.key == other.owner.key


def _unreachable(ref: ConfigRef, rule: Rule, taker: Rule, path: str) -> Finding:
    shown = path
    if not _is_beside(rule, taker):
        shown = f"{taker.delegated_at} (which delegates to {taker.owner.ref().object_name})"
    return Finding(
        Severity.WARNING,
        "UnreachableRule",
        ref,
        f"{shown} takes every request, so this can never match.",
        f"Move it before {shown}, or remove it.",
    )


def _entries(rule: Rule) -> Iterator[tuple[str, HttpMatch | None]]:
    if not rule.http.match:
        yield rule.path, None
    for index, wanted in enumerate(rule.http.match):
        # The entries of a delegate's rule are joined from two lists and have no place of their own.
        yield rule.path if rule.delegated_at else f"{rule.path}.match[{index}]", wanted
