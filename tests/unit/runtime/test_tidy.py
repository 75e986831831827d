"""Memory goes back when a rush is over, and only then."""

import asyncio

from pilothouse.runtime import memory
from pilothouse.runtime.tidy import WORTH_BYTES, Tidier


class Rush:
    """A count of sent bytes that the test moves, one value for each look."""

    def __init__(self, *counts: int) -> None:
        """Answer with `counts`, then say that the script is over."""
        self._counts = list(counts)
        self.tidied = 0
        self.over = asyncio.Event()

    def sent(self) -> int:
        """Return the next count; the last one stays."""
        if len(self._counts) == 1:
            self.over.set()
            return self._counts[0]
        return self._counts.pop(0)

    def tidy(self) -> None:
        """Count a call."""
        self.tidied += 1

    async def play(self) -> int:
        """Run a tidier through the script; return how often it tidied."""
        task = asyncio.create_task(Tidier(self.sent, tidy=self.tidy, tick_seconds=0).run())
        async with asyncio.timeout(5):
            await self.over.wait()
        await asyncio.sleep(0)
        task.cancel()
        return self.tidied


async def test_rush_is_tidied_once() -> None:
    """Not while it lasts, and once after it."""
    much = WORTH_BYTES
    assert await Rush(0, much, 2 * much, 3 * much, 3 * much, 3 * much, 3 * much).play() == 1


async def test_small_changes_are_not_worth_it() -> None:
    """Everyday pushes cause no tidying."""
    assert await Rush(0, 100, 100, 200, 200, 300, 300).play() == 0


def test_return_freed_is_harmless() -> None:
    """It may be called at any time, on any C library."""
    assert memory.return_freed() in {True, False}
