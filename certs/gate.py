"""
How many certificate requests are worked on at once, and how fast they follow each other.

The event loop that answers requests also pushes config, and a mesh that restarts asks for thousands
of certificates in one second. So few are let in at a time, each begins a little after the one
before, and who would wait too long is refused at once rather than served late.
"""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from pilothouse.certs.refusals import SigningOverloaded

DEFAULT_AT_ONCE: Final = 8
DEFAULT_MAX_WAITING: Final = 10_000
DEFAULT_INTERVAL_SECONDS: Final = 0.002


class Gate(AbstractAsyncContextManager["Gate"]):
    """
    Lets callers in by turns: ``async with gate: ...``.

    At most `at_once` are inside, `interval_seconds` lie between two that enter while others wait,
    and no more than `max_waiting` wait. Raises: SigningOverloaded: On entering, if more would.
    """

    def __init__(
        self,
        *,
        at_once: int = DEFAULT_AT_ONCE,
        max_waiting: int = DEFAULT_MAX_WAITING,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        """Begin empty."""
        self._at_once = at_once
        self._max_waiting = max_waiting
        self._interval_seconds = interval_seconds
        self._inside = 0
        self._opens_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def waiting_count(self) -> int:
        """How many wait to be let in."""
        return len(self._waiting)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if not self._waiting and self._is_open(loop.time()):
            self._enter(loop.time())
            return self
        if len(self._waiting) >= self._max_waiting:
            raise SigningOverloaded(
                f"{self._max_waiting} requests for certificates wait already; try again later"
            )
        turn = loop.create_future()
        self._waiting.append(turn)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _is_open(self, now: float) -> bool:
        return self._inside < self._at_once and now >= self._opens_at

    def _enter(self, now: float) -> None:
        self._inside += 1
        self._opens_at = now + self._interval_seconds

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._is_open(loop.time()):
            turn = self._waiting.popleft()
            if not turn.done():
                self._enter(loop.time())
                turn.set_result(None)
        if self._waiting and self._inside < self._at_once and self._alarm is None:
            self._alarm = loop.call_at(self._opens_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._let_in()
