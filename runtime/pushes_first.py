"""
When config is being pushed, so that the signing of certificates waits for it.

A push begins with the notice of a change that is committed at once, or with its commit, and ends
when every stream that it concerns has written what it had to, or is slow about it. What proxies
answer, and what follows from that, is no push by itself.
"""

import asyncio
from typing import Final

from pilothouse.certs.precedence import Precedence
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.streams import Streams

WRITING_SECONDS: Final = 0.1
"""How long streams may take to write a push before it goes first no more."""


class PushesFirst:
    """Publishes commits, and closes the way of everything else meanwhile."""

    def __init__(
        self, publisher: Publisher, streams: Streams, writing_seconds: float = WRITING_SECONDS
    ) -> None:
        """Publish by `publisher` to `streams`, which call `written`."""
        self._publisher = publisher
        self._streams = streams
        self._writing_seconds = writing_seconds
        self._is_publishing = False
        self._patience: asyncio.TimerHandle | None = None
        self.precedence = Precedence()

    def begin(self) -> None:
        """Something has changed that is committed at once."""
        self.precedence.begin()

    async def publish(self) -> None:
        """Publish a commit."""
        self._streams.begin_wave()
        self._is_publishing = True
        self.precedence.begin()
        try:
            await self._publisher.publish()
        finally:
            self._is_publishing = False
            if self._patience is not None:
                self._patience.cancel()
            self._patience = asyncio.get_running_loop().call_later(self._writing_seconds, self._end)
            self.written()

    def written(self) -> None:
        """A stream has nothing more to write, perhaps as the last."""
        if not self._streams.is_writing:
            self._end()

    def _end(self) -> None:
        if not self._is_publishing:
            self.precedence.end()
