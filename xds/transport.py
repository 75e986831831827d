"""
The seam between discovery streams and whatever carries them.

A stream hands over framed bytes and waits until they have drained before it hands over more: that
is all the flow control there is, and all it needs. Today `pilothouse.xds.server` carries them with
grpc.aio; a faster writer would implement the same protocol.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol


class EndReason(StrEnum):
    """Why the server ends a stream; the names are gRPC's status codes."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class StreamEnded(Exception):
    """The server ends the stream with a status and a sentence for the client."""

    def __init__(self, reason: EndReason, text: str) -> None:
        """Keep both."""
        super().__init__(reason, text)
        self.reason = reason
        self.text = text


class Call(Protocol):
    """What is known of a call before its first message."""

    @property
    def peer(self) -> str:
        """The client's connection, as the carrier names it."""

    @property
    def metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """The headers of the call; may hold credentials, so never to be shown."""


class Transport(Call, Protocol):
    """One stream of messages, each a complete protobuf message without gRPC's five-byte prefix."""

    @property
    def address(self) -> str:
        """Where the client is, for people."""

    async def receive(self) -> bytes | None:
        """Return the next message of the client, None once it has closed its side."""

    async def send(self, data: bytes) -> None:
        """
        Write a message; returns when the next may be written.

        Raises: ConnectionError: The client is gone.
        """
