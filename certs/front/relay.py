"""
Two connections as one: what comes in on either is written to the other, as fast as that drains.

Each direction holds a bounded buffer; whoever does not read stops only his own peer. Sides that
give way pass nothing on while somebody else goes first.
"""

import asyncio
from collections.abc import Callable
from typing import cast


class Stop:
    """Where sides that give way wait."""

    def __init__(self) -> None:
        """Begin open."""
        self._sides: list[Side] = []
        self.is_on = False

    def add(self, side: "Side") -> None:
        """Let a side go on when this is off."""
        self._sides.append(side)

    def turn(self, is_on: bool) -> None:  # noqa: FBT001
        """Turn on or off."""
        self.is_on = is_on
        if not is_on:
            sides, self._sides = self._sides, []
            for side in sides:
                side.go_on()


class Side(asyncio.Protocol):
    """One of the two; `on_lost` is called when it has gone. Reads nothing before `join`."""

    def __init__(
        self, on_lost: Callable[[], None], buffer_bytes: int, stop: Stop | None = None
    ) -> None:
        """Let `buffer_bytes` wait for this side at most, roughly; `stop` is where it gives way."""
        self._on_lost = on_lost
        self._buffer_bytes = buffer_bytes
        self._stop = stop or Stop()
        self._is_stopped = False
        self._is_other_full = False
        self.gives_way = False
        self._transport: asyncio.Transport | None = None
        self._other: Side | None = None
        self._early: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    def write(self, data: bytes) -> None:
        """Send it, unless this side has gone."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not (self._is_stopped or self._is_other_full):
            self._transport.resume_reading()

    def go_on(self) -> None:
        """Pass on what waited here, and read on."""
        self._is_stopped = False
        self._flush()
        self.resume()

    def other_is_full(self, is_full: bool) -> None:  # noqa: FBT001
        """Read no more until the other side has written what it has."""
        self._is_other_full = is_full
        if is_full:
            self.pause()
        else:
            self.resume()

    def close(self) -> None:
        """Write what is left, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's callbacks ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing before there is another side."""
        made = cast("asyncio.Transport", transport)  # uvloop's are not subclasses
        self._transport = made
        made.set_write_buffer_limits(high=self._buffer_bytes)
        made.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._other is None:  # came with the end of the handshake, before it could be paused
            self._early.append(data)
        elif self.gives_way and self._stop.is_on:
            self._early.append(data)
            if not self._is_stopped:
                self._is_stopped = True
                self._stop.add(self)
                self.pause()
        else:
            self._other.write(data)

    def pause_writing(self) -> None:
        """Stop reading from the other side: this one is slower."""
        if self._other is not None:
            self._other.other_is_full(True)

    def resume_writing(self) -> None:
        """Go on reading from the other side."""
        if self._other is not None:
            self._other.other_is_full(False)

    def eof_received(self) -> bool:
        """Close: gRPC never ends one direction only."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the other side along."""
        self._transport = None
        if self._other is not None:
            self._other.close()
        self._on_lost()

    def joins(self, other: "Side") -> None:
        """Write what comes in here to `other`, and what has come in already."""
        self._other = other
        self._flush()

    def _flush(self) -> None:
        early, self._early = self._early, []
        if self._other is not None:
            for data in early:
                self._other.write(data)


def join(one: Side, other: Side) -> None:
    """Begin to relay between two connections; if either has gone already, both go."""
    one.joins(other)
    other.joins(one)
    for side in (one, other):
        if one.is_open and other.is_open:
            side.resume()
        else:
            side.close()
