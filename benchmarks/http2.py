"""
As much of an HTTP/2 client as one gRPC stream needs, so that the client is not what is measured.

One connection with one stream; the peer's headers are not decoded. A message is handed over with
the moment its last bytes were read from the socket.
"""

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Final, cast

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_STREAM: Final = 1
_WINDOW: Final = 1 << 30
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _header(name: str, value: str) -> bytes:
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


class GrpcStream(asyncio.Protocol):
    """One call; `on_message(data, monotonic_seconds)` gets each message, `on_end(text)` the end."""

    def __init__(
        self, path: str, on_message: Callable[[bytes, float], None], on_end: Callable[[str], None]
    ) -> None:
        self._path = path
        self._on_message = on_message
        self._on_end = on_end
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._message = bytearray()
        self._unacknowledged = 0
        self._waiting = bytearray()
        self._send_window = {0: 65_535, _STREAM: 65_535}
        self._initial_window = 65_535
        self._max_frame = 16_384

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, _WINDOW)
        headers = (
            (":method", "POST"), (":scheme", "http"), (":path", self._path),
            (":authority", "bench"), ("content-type", "application/grpc"), ("te", "trailers"),
        )  # fmt: skip
        block = b"".join(_header(*pair) for pair in headers)
        self._transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
            + _frame(_HEADERS, 0x4, _STREAM, block)
        )

    def send(self, message: bytes) -> None:
        """Send a message as far as the peer's windows allow, the rest when they open."""
        self._waiting += b"\x00" + struct.pack(">I", len(message)) + message
        self._flush()

    def close(self) -> None:
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end(f"connection lost: {exc}")

    def _flush(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), self._max_frame, *self._send_window.values())
            if size <= 0:
                return
            self._transport.write(_frame(_DATA, 0, _STREAM, bytes(self._waiting[:size])))
            del self._waiting[:size]
            for stream in self._send_window:
                self._send_window[stream] -= size

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        received = self._received
        received += data
        position = 0
        while len(received) - position >= 9:
            size = int.from_bytes(received[position : position + 3])
            end = position + 9 + size
            if len(received) < end:
                break
            kind, flags, stream = struct.unpack_from(">BBI", received, position + 3)
            payload = received[position + 9 : end]
            position = end
            if kind == _DATA:
                self._data(payload, now)
            else:
                self._control(kind, flags, stream, bytes(payload))
        del received[:position]

    def _data(self, payload: bytearray, now: float) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged > _WINDOW // 4:
            update = struct.pack(">I", self._unacknowledged)
            self._transport.write(_frame(_WINDOW_UPDATE, 0, 0, update))
            self._transport.write(_frame(_WINDOW_UPDATE, 0, _STREAM, update))
            self._unacknowledged = 0
        message = self._message
        message += payload
        while len(message) >= 5:
            end = 5 + int.from_bytes(message[1:5])
            if len(message) < end:
                return
            whole = bytes(message[5:end])
            del message[:end]
            self._on_message(whole, now)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & 1:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW_SIZE:
                    self._send_window[_STREAM] += value - self._initial_window
                    self._initial_window = value
                elif name == _MAX_FRAME_SIZE:
                    self._max_frame = value
            self._transport.write(_frame(_SETTINGS, 1, 0, b""))
            self._flush()
        elif kind == _PING and not flags & 1:
            self._transport.write(_frame(_PING, 1, 0, payload))
        elif kind == _WINDOW_UPDATE:
            self._send_window[stream] += int.from_bytes(payload)
            self._flush()
        elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & 1):
            self._on_end(f"ended by the server: frame {kind}, {payload[:200]!r}")
