"""
Giving memory back once a rush is over.

A hundred proxies that connect at once have a hundred large responses in the air; the allocator is
told to keep that memory (`pilothouse.runtime.memory`), which is right during the rush and wrong for
the hours after it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from pilothouse.runtime import memory

WORTH_BYTES: Final = 16 << 20
"""After so much was sent, the rest of it may be worth returning."""

TICK_SECONDS: Final = 0.5


class Tidier:
    """Returns freed memory when nothing was sent for a tick after much was."""

    def __init__(
        self,
        sent_bytes: Callable[[], int],
        *,
        tidy: Callable[[], object] = memory.return_freed,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        """Watch the ever-growing count `sent_bytes`; call `tidy` when a rush is over."""
        self._sent_bytes = sent_bytes
        self._tidy = tidy
        self._tick_seconds = tick_seconds

    async def run(self) -> None:
        """Look once a tick, for ever."""
        tidied_at = seen = self._sent_bytes()
        while True:
            await asyncio.sleep(self._tick_seconds)
            sent = self._sent_bytes()
            if sent == seen and sent - tidied_at >= WORTH_BYTES:
                self._tidy()
                tidied_at = sent
            seen = sent
