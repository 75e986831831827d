"""A name server on loopback whose records, faults and times to live a test sets."""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Self

from pilothouse.runtime.addresses import Address

NO_SUCH_NAME = 3
SERVER_FAILURE = 2


class DnsServer(asyncio.DatagramProtocol):
    """
    Answers over UDP and TCP at `address`; use as an async context manager.

    `records` are addresses by name, a name in place of an address is an alias. `codes` are errors
    by kind of record (1 or 28), 0 for both. Silent servers hear and say nothing.
    """

    def __init__(self, records: Mapping[str, Sequence[str]] | None = None) -> None:
        self.records = {name: list(found) for name, found in (records or {}).items()}
        self.ttl_seconds = 60
        self.codes: dict[int, int] = {}
        self.is_silent = False
        self.truncates = False
        self.says_other_numbers = False
        self.asked: list[tuple[str, int]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._streams = await asyncio.start_server(self._serve_stream, "127.0.0.1", 0)
        port = self._streams.sockets[0].getsockname()[1]
        self._datagrams, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", port)
        )
        self.address = Address("127.0.0.1", port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._datagrams.close()
        self._streams.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        if self.is_silent:
            self._read(data)
            return
        if self.says_other_numbers:
            forged = bytes((data[0] ^ 1, *data[1:]))
            self._datagrams.sendto(self.answer(forged, ["192.0.2.66"]), addr)
        answer = self.answer(data)
        if self.truncates:
            head = answer[:2] + bytes((answer[2] | 0x02,)) + answer[3:12]
            answer = head + data[12:]
        self._datagrams.sendto(answer, addr)

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(length))
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def _read(self, data: bytes) -> tuple[str, int]:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        (kind,) = struct.unpack_from("!H", data, at + 1)
        self.asked.append((".".join(labels), kind))
        return self.asked[-1]

    def answer(self, data: bytes, found: Sequence[str] | None = None) -> bytes:
        """Return the answer to a question."""
        name, kind = self._read(data)
        code = self.codes.get(kind) or self.codes.get(0, 0)
        if found is None:
            found = self.records.get(name, [])
            code = code or (0 if name in self.records else NO_SUCH_NAME)
        parts = []
        for each in found if not code else ():
            if each[-1].isalpha():
                target = b"".join(bytes((len(p),)) + p.encode() for p in each.split(".")) + b"\0"
                parts.append(self._record(5, target))
                parts += [
                    self._record(kind, packed) for packed in self._packed(self.records[each], kind)
                ]
            else:
                parts += [self._record(kind, packed) for packed in self._packed([each], kind)]
        return (
            data[:2]
            + struct.pack("!HHHHH", 0x8180 | code, 1, len(parts), 0, 0)
            + data[12:]
            + b"".join(parts)
        )

    def _record(self, kind: int, content: bytes) -> bytes:
        head = struct.pack("!HHHIH", 0xC00C, kind, 1, self.ttl_seconds, len(content))
        return head + content

    @staticmethod
    def _packed(addresses: Sequence[str], kind: int) -> list[bytes]:
        version = 4 if kind == 1 else 6
        found = map(ip_address, addresses)
        return [each.packed for each in found if each.version == version]
