"""
HTTP rules that no request can reach because an earlier one takes them all (traffic.md VS-04).

Says so only where it holds for every listener and client, so that the answer is the same wherever
the VirtualService is used.
"""

from collections.abc import Iterator

from pilothouse.api.virtual_service import HttpMatch, HttpRoute, VirtualService
from pilothouse.graph.findings import Finding, Severity
from pilothouse.translators.envoy.matches import is_catch_all
from pilothouse.translators.envoy.source_matches import is_unconditional


def unreachable_rules(vs: VirtualService) -> Iterator[Finding]:
    """Yield a finding for each rule or match entry behind one that takes every request."""
    taker = ""
    for path, wanted, rule in _entries(vs):
        if taker and not path.startswith(f"{taker}."):
            yield Finding(
                Severity.WARNING,
                "UnreachableRule",
                vs.meta.ref(path),
                f"{taker} takes every request, so this can never match.",
                f"Move it before {taker}, or remove it.",
            )
        elif not taker and _takes_all(wanted, rule):
            taker = path


def _takes_all(wanted: HttpMatch | None, rule: HttpRoute) -> bool:
    return rule.delegate is None and is_catch_all(wanted) and is_unconditional(wanted)


def _entries(vs: VirtualService) -> Iterator[tuple[str, HttpMatch | None, HttpRoute]]:
    for number, rule in enumerate(vs.spec.http):
        path = f"spec.http[{number}]"
        if not rule.match:
            yield path, None, rule
        for index, wanted in enumerate(rule.match):
            yield f"{path}.match[{index}]", wanted, rule
