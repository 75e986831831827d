"""
How many certificate requests are worked on at once, who is next, and how fast they follow.

The event loop that answers requests also pushes config, and a mesh that restarts asks for thousands
of certificates in one second. So calls are looked at by turns, each a little after the one before,
and by turns of the addresses they come from, as strangers wait in the same line. Nobody's turn
comes while config is pushed, and who would wait too long is refused at once, not served late.
"""

import asyncio
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from pilothouse.certs.precedence import Precedence
from pilothouse.certs.refusals import SigningOverloaded

AT_ONCE: Final = 2
"""One that is signed and one that is made ready: whoever is inside takes time from a push."""
DEFAULT_MAX_WAITING: Final = 10_000
DEFAULT_INTERVAL_SECONDS: Final = 0.003
"""To answer a call takes the event loop a millisecond; a change must not wait for many of them."""

_Turn = asyncio.Future[None]
_Line = OrderedDict[_Turn, None]


class Gate(AbstractAsyncContextManager["Gate"]):
    """
    Wait for a `turn` to be looked at, then be inside: ``async with gate: ...``.

    `interval_seconds` lie between two turns that were waited for, and addresses alternate. At most
    `at_once` are inside; who has had a turn goes in as soon as there is room, and no turn comes
    while somebody waits for that. So who is slow between the two holds nothing up. No more than
    `max_waiting` wait for turns, but one of each address, and twice as many in all; no more than
    `max_waiting` wait to go in. Raises: SigningOverloaded: On entering, if too many do.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        max_waiting: int = DEFAULT_MAX_WAITING,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
        precedence: Precedence | None = None,
    ) -> None:
        """Begin empty; nothing moves while `precedence` is closed."""
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._interval_seconds = interval_seconds
        self._precedence = precedence or Precedence()
        self._precedence.heed(self._heed)
        self._inside = 0
        self._next_at = 0.0
        self._at_door: _Line = OrderedDict()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._waiting = 0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def waiting_count(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    async def turn(self, address: str) -> None:
        """Return when it is the turn of a call. Raises: SigningOverloaded: At once."""
        loop = asyncio.get_running_loop()
        if not self._lines and self._is_time(loop.time()):
            self._next_at = loop.time() + self._interval_seconds
            return
        line = self._lines.get(address)
        if self._waiting >= self._max_waiting * (2 if line is None else 1):
            raise SigningOverloaded(
                f"{self._waiting} requests for certificates wait already; try again later"
            )
        if line is None:
            line = self._lines[address] = OrderedDict()
        turn = loop.create_future()
        line[turn] = None
        self._waiting += 1
        self._move()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in line:
                del line[turn]
                self._waiting -= 1
                if not line:
                    del self._lines[address]
            raise
        await self._precedence.opened()  # a push may have begun since

    async def __aenter__(self) -> Self:
        if self._has_room() and not self._at_door:
            self._inside += 1
            return self
        if len(self._at_door) >= self._max_waiting:
            raise SigningOverloaded("too many requests for certificates are here; try again later")
        turn = asyncio.get_running_loop().create_future()
        self._at_door[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._at_door:
                del self._at_door[turn]
            else:
                self._inside -= 1
            self._move()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside -= 1
        self._move()

    def _heed(self, is_closed: bool) -> None:  # noqa: FBT001 (a callback's one fact)
        if not is_closed:
            self._move()

    def _has_room(self) -> bool:
        return self._inside < self._at_once and not self._precedence.is_closed

    def _is_time(self, now: float) -> bool:
        return now >= self._next_at and self._has_room() and not self._at_door

    def _move(self) -> None:
        """Let in who is at the door, then give turns."""
        while self._at_door and self._has_room():
            self._inside += 1
            self._wake(self._at_door)
        loop = asyncio.get_running_loop()
        while self._lines and self._is_time(loop.time()):
            self._next_at = loop.time() + self._interval_seconds
            address, line = self._lines.popitem(last=False)
            self._wake(line)
            self._waiting -= 1
            if line:
                self._lines[address] = line  # behind the others
        if self._lines and self._has_room() and self._alarm is None:
            self._alarm = loop.call_at(self._next_at, self._ring)

    @staticmethod
    def _wake(line: _Line) -> None:
        turn, _ = line.popitem(last=False)
        if not turn.done():
            turn.set_result(None)

    def _ring(self) -> None:
        self._alarm = None
        self._move()
