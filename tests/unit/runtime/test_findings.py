"""Findings are logged when they appear and when they are gone, and only then."""

from dataclasses import replace

from structlog.testing import capture_logs

from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.runtime.findings import MAX_LINES, FindingsLog

BAD = Finding(
    Severity.ERROR,
    "HostMissing",
    ConfigRef("VirtualService", "default", "a", "spec.hosts", "a.yaml", 3),
    "It has no hosts.",
    "Name one.",
)


def test_each_finding_is_logged_once() -> None:
    """A finding that stays, or only moves to another line, is not said again."""
    findings = FindingsLog()
    moved = replace(BAD, ref=replace(BAD.ref, line=9))
    with capture_logs() as lines:
        assert findings.update([BAD]) == {Severity.ERROR: 1}
        findings.update([BAD])
        findings.update([moved])
    assert [line["event"] for line in lines] == ["config.finding"]
    assert lines[0]["log_level"] == "error"
    assert lines[0]["ref"] == "VirtualService default/a spec.hosts (a.yaml:3)"
    assert lines[0]["remedy"] == "Name one."


def test_gone_and_back() -> None:
    """Repair is said once; the same fault again is news again."""
    findings = FindingsLog()
    findings.update([BAD])
    with capture_logs() as lines:
        assert findings.update([]) == {}
        findings.update([])
        findings.update([BAD])
    assert [line["event"] for line in lines] == ["config.finding_gone", "config.finding"]


def test_flood_is_counted() -> None:
    """A directory full of faults does not flood the log; the worst are said."""
    many = [
        Finding(Severity.WARNING, "Odd", ConfigRef("Service", "d", str(number)), "x")
        for number in range(MAX_LINES + 7)
    ]
    with capture_logs() as lines:
        assert FindingsLog().update([*many, BAD]) == {
            Severity.WARNING: MAX_LINES + 7,
            Severity.ERROR: 1,
        }
    assert lines[0]["code"] == "HostMissing"
    assert lines[-1] == {"event": "config.more_findings", "count": 8, "log_level": "warning"}
    assert len(lines) == MAX_LINES + 1
