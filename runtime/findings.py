"""
Findings as they come and go: each is logged once when it appears and once when it is gone.

A finding that only moved to another line is the same finding.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from heapq import nsmallest
from typing import Final

import structlog

from pilothouse.graph.findings import Finding, Severity

MAX_LINES: Final = 50
"""So many findings are logged one by one; the rest of a flood is counted."""

log = structlog.get_logger()


def same_thing(finding: Finding) -> Finding:
    """Return what identifies a finding: everything but its line."""
    if not finding.ref.line:
        return finding  # so are most, and they are looked at after every commit
    return replace(finding, ref=replace(finding.ref, line=0))


class FindingsLog:
    """Remembers which findings were logged; `appeared` are the new ones of the last update."""

    def __init__(self) -> None:
        """Start with nothing found."""
        self._known: dict[Finding, Finding] = {}
        self.appeared: tuple[Finding, ...] = ()

    def update(
        self,
        findings: Iterable[Finding],
        locate: Callable[[Finding], Finding] = lambda finding: finding,
    ) -> Mapping[Severity, int]:
        """
        Log what is new and what is gone; return the current numbers.

        `locate` finds file and line; it costs a look into a file, so only new ones go through it.
        """
        current = {same_thing(finding): finding for finding in findings}
        new = current.keys() - self._known.keys()
        self.appeared = tuple(new)
        # Only those that are told are put in order: a flood of them takes seconds to sort.
        for key in nsmallest(MAX_LINES, new, key=lambda f: (-f.severity, f)):
            _log_new(locate(current[key]))
        if len(new) > MAX_LINES:
            log.warning("config.more_findings", count=len(new) - MAX_LINES)
        for key in nsmallest(MAX_LINES, self._known.keys() - current.keys()):
            log.info("config.finding_gone", code=key.code, ref=str(key.ref))
        self._known = current
        return Counter(finding.severity for finding in current.values())


def _log_new(finding: Finding) -> None:
    write = {Severity.ERROR: log.error, Severity.WARNING: log.warning}.get(
        finding.severity, log.info
    )
    write(
        "config.finding",
        code=finding.code,
        ref=str(finding.ref),
        message=finding.message,
        **({"remedy": finding.remedy} if finding.remedy else {}),
    )
