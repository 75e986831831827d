"""
Pushes go first: while config is pushed, requests for certificates wait, for a bounded time.

Both take the same event loop, and the processors beside it. Whoever pushes says when that begins
and ends; whoever signs, or passes requests on, asks whether it is its turn. Constant pushes must
not keep certificates away, so the way is closed on credit: what is used up comes back only while
the way is open.
"""

import asyncio
from collections.abc import Callable
from typing import Final

LONGEST_SECONDS: Final = 0.1
"""How long the way is closed at most without a break: several waves of an endpoint change."""
BREAK_SECONDS: Final = 0.025
"""How long it then stays open whatever is pushed, a dozen requests at the gate's pace."""
_ALMOST: Final = 1e-9


class RightOfWay:
    """
    When the way is closed; sans-IO. Times are seconds of any clock that does not run backwards.

    Closed while a push is under way and there is credit. Credit is `longest_seconds` at first and
    at most, is spent while closed, and comes back within `break_seconds` of being open; when it is
    spent the way stays open until all of it has come back. So within any time T the way is open
    for at least (T - longest) * break / (longest + break).
    """

    __slots__ = ("_break", "_credit", "_is_closed", "_is_pushing", "_is_spent", "_longest", "_seen")

    def __init__(
        self, longest_seconds: float = LONGEST_SECONDS, break_seconds: float = BREAK_SECONDS
    ) -> None:
        """Begin open, with all credit."""
        self._longest = longest_seconds
        self._break = break_seconds
        self._credit = longest_seconds
        self._is_pushing = False
        self._is_closed = False
        self._is_spent = False
        self._seen = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the way was closed when last looked at."""
        return self._is_closed

    def begin(self, now: float) -> None:
        """A push is under way, if none was."""
        self.look(now)
        self._is_pushing = True
        self._is_closed = not self._is_spent

    def end(self, now: float) -> None:
        """No push is under way any more."""
        self.look(now)
        self._is_pushing = self._is_closed = False

    def look(self, now: float) -> None:
        """Take note of the time."""
        elapsed, self._seen = max(0.0, now - self._seen), now
        if self._is_closed:
            self._credit -= elapsed
            if self._credit <= _ALMOST:
                self._credit, self._is_spent, self._is_closed = 0.0, True, False
            return
        self._credit += elapsed * self._longest / self._break
        if self._credit >= self._longest - _ALMOST:
            self._credit, self._is_spent = self._longest, False
            self._is_closed = self._is_pushing

    def look_at(self) -> float | None:
        """Return when it has to be looked at again though nothing happens, None if never."""
        if self._is_closed:
            return self._seen + self._credit
        if self._is_pushing:
            return self._seen + (self._longest - self._credit) * self._break / self._longest
        return None


class Precedence:
    """A right of way on an event loop, told to whoever has to heed it."""

    def __init__(self, way: RightOfWay | None = None) -> None:
        """Begin open."""
        self._way = way or RightOfWay()
        self._alarm: asyncio.TimerHandle | None = None
        self._heeding: list[Callable[[bool], None]] = []
        self._told = False
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_closed(self) -> bool:
        """Whether requests for certificates have to wait."""
        return self._told

    async def opened(self) -> None:
        """Return when the way is open, at once if it is."""
        await self._open.wait()

    def heed(self, told: Callable[[bool], None]) -> None:
        """Call `told` with True when the way is closed, and with False when it is open again."""
        self._heeding.append(told)

    def begin(self) -> None:
        """A push is under way; also if it was already."""
        self._way.begin(asyncio.get_running_loop().time())
        self._tell()

    def end(self) -> None:
        """The last of what was to be pushed is written."""
        self._way.end(asyncio.get_running_loop().time())
        self._tell()

    def _ring(self) -> None:
        self._alarm = None
        self._way.look(asyncio.get_running_loop().time())
        self._tell()

    def _tell(self) -> None:
        at = self._way.look_at()
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_at(at, self._ring) if at is not None else None
        if self._told != self._way.is_closed:
            self._told = self._way.is_closed
            if self._told:
                self._open.clear()
            else:
                self._open.set()
            for told in self._heeding:
                told(self._told)
