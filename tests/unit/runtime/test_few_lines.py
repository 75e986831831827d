"""Log lines that strangers cause are limited, and what was kept back is told."""

from structlog.testing import capture_logs

from pilothouse.runtime.few_lines import INTERVAL_SECONDS, LINES, FewLines


def test_so_many_and_then_a_count() -> None:
    now = 100.0
    lines = FewLines(lambda: now, "x.more")
    assert [lines.passes() for _ in range(LINES + 7)].count(True) == LINES
    now += INTERVAL_SECONDS
    with capture_logs() as written:
        assert lines.passes()
    assert written == [{"event": "x.more", "count": 7, "log_level": "warning"}]
    now += INTERVAL_SECONDS
    with capture_logs() as written:
        assert lines.passes()
    assert written == []
