"""Log lines that strangers cause, limited: whoever can connect must not be able to fill a disk."""

from collections.abc import Callable
from typing import Final

import structlog

LINES: Final = 20
INTERVAL_SECONDS: Final = 10.0


class FewLines:
    """Lets so many lines pass in an interval, and says afterwards how many it kept."""

    def __init__(self, clock: Callable[[], float], event: str) -> None:
        """Measure by `clock`, seconds that never go back; `event` names the line about the rest."""
        self._clock = clock
        self._event = event
        self._began = float("-inf")
        self._passed = 0
        self._kept = 0

    def passes(self) -> bool:
        """Whether one more line may be written."""
        now = self._clock()
        if now - self._began >= INTERVAL_SECONDS:
            if self._kept:
                structlog.get_logger().warning(self._event, count=self._kept)
            self._began, self._passed, self._kept = now, 0, 0
        if self._passed >= LINES:
            self._kept += 1
            return False
        self._passed += 1
        return True
