"""
What a discovery server tells about itself, for logs and metrics.

The composition root implements it. Calls come on the event loop and must return at once.
"""

from typing import Protocol

from pilothouse.xds.progress import Acked
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.status import StreamInfo


class Observer(Protocol):
    """Somebody who counts and logs."""

    def connected(self, stream: StreamInfo) -> None:
        """A proxy opened a stream and was let in."""

    def disconnected(self, stream: StreamInfo, reason: str) -> None:
        """A stream that was let in has ended; `reason` is empty if the client closed it."""

    def refused(self, peer: str, reason: str) -> None:
        """A stream was not let in."""

    def subscribed(self, stream: StreamInfo, type_url: str) -> None:
        """A proxy asked for names it had not asked for before."""

    def pushed(self, stream: StreamInfo, type_url: str, count: int, size_bytes: int) -> None:
        """A response of so many resources and removals was written and has drained."""

    def acked(self, stream: StreamInfo, acked: Acked) -> None:
        """A response was accepted."""

    def rejected(
        self, stream: StreamInfo, type_url: str, error: str, found: tuple[RejectedResource, ...]
    ) -> None:
        """A response was refused; `found` may be empty while the culprit is being searched for."""

    def stale(self, stream: StreamInfo, type_url: str) -> None:
        """A request answered a response that has been replaced."""


class SilentObserver:
    """Tells nobody."""

    def connected(self, stream: StreamInfo) -> None:
        """Ignore it."""

    def disconnected(self, stream: StreamInfo, reason: str) -> None:
        """Ignore it."""

    def refused(self, peer: str, reason: str) -> None:
        """Ignore it."""

    def subscribed(self, stream: StreamInfo, type_url: str) -> None:
        """Ignore it."""

    def pushed(self, stream: StreamInfo, type_url: str, count: int, size_bytes: int) -> None:
        """Ignore it."""

    def acked(self, stream: StreamInfo, acked: Acked) -> None:
        """Ignore it."""

    def rejected(
        self, stream: StreamInfo, type_url: str, error: str, found: tuple[RejectedResource, ...]
    ) -> None:
        """Ignore it."""

    def stale(self, stream: StreamInfo, type_url: str) -> None:
        """Ignore it."""
