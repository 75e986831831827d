"""
How fast streams are let in: a steady rate with a burst of one second's worth; no clock, no I/O.

Each stream that comes makes work for all (its class may be new, its first answers are large), so a
stampede is spread out rather than let through at once (traffic.md XP-04).
"""

from typing import Final

_BURST_SECONDS: Final = 1.0


class RateLimit:
    """Turns at a rate; times are seconds of any one clock."""

    def __init__(self, per_second: float) -> None:
        """Give `per_second` turns a second."""
        self._interval_seconds = 1.0 / per_second
        self._next_turn = float("-inf")

    def take(self, now: float, within_seconds: float) -> float | None:
        """Return how long to wait for a turn; None, and no turn, if longer than allowed."""
        # Turns that nobody took for a while are kept, up to a burst.
        turn = max(self._next_turn, now - _BURST_SECONDS + self._interval_seconds)
        wait_seconds = max(0.0, turn - now)
        if wait_seconds > within_seconds:
            return None
        self._next_turn = turn + self._interval_seconds
        return wait_seconds
