"""
When to commit: at once after a quiet spell, together while changes keep coming.

Sans-IO: it is told what happens and when, and answers with a moment; it holds no clock, task or
change. Times are seconds on any clock that does not run backwards.
"""

from datetime import timedelta


class Debouncer:
    """
    Decide the moment of the next commit.

    The first change after `quiet` without any is due immediately (leading edge). Later ones are due
    when none has come for `quiet`, and at the latest `longest_wait` after the first that waits.
    With `quiet` zero everything is due at once.
    """

    __slots__ = (
        "_due",
        "_first_waiting",
        "_last_change",
        "_longest_wait_seconds",
        "_quiet_seconds",
    )

    def __init__(self, quiet: timedelta, longest_wait: timedelta) -> None:
        """Start idle, with nothing waiting."""
        self._quiet_seconds = quiet.total_seconds()
        self._longest_wait_seconds = longest_wait.total_seconds()
        self._last_change: float | None = None
        self._first_waiting: float | None = None
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        """The moment at which what waits should be committed; None if nothing waits."""
        return self._due

    def changed(self, now: float) -> None:
        """Note that something changed."""
        was_quiet = self._last_change is None or now - self._last_change >= self._quiet_seconds
        self._last_change = now
        if self._first_waiting is None:
            self._first_waiting = now
            self._due = now if was_quiet else now + self._quiet_seconds
        elif self._due is None or self._due > now:
            latest = self._first_waiting + self._longest_wait_seconds
            self._due = min(now + self._quiet_seconds, latest)

    def taken(self, now: float) -> float:
        """Note that all that waits is being committed; return how long the first has waited."""
        waited = 0.0 if self._first_waiting is None else max(0.0, now - self._first_waiting)
        self._first_waiting = None
        self._due = None
        return waited
