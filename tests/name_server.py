"""A name server of a few names for a network namespace whose resolver would lead nowhere."""

import asyncio
import re
import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from pilothouse.demo.netns import NetworkNamespace

TTL_SECONDS = 5


class NameServer(asyncio.DatagramProtocol):
    """Answers questions for A records of the names it knows, and all others with nothing."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = {tuple(name.lower().split(".")): address for name, address in names.items()}
        self.asked: list[str] = []

    async def start(self, namespace: NetworkNamespace) -> asyncio.DatagramTransport:
        """Answer at the address that programs of this machine ask."""
        address = configured()
        if not address.startswith("127."):
            namespace.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        made = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, 53))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=made)
        self._transport = transport
        return transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        labels, end = [], 12
        while data[end]:
            labels.append(data[end + 1 : end + 1 + data[end]].decode().lower())
            end += 1 + data[end]
        question = data[12 : end + 5]
        (kind,) = struct.unpack("!H", data[end + 1 : end + 3])
        self.asked.append(".".join(labels))
        address = self._names.get(tuple(labels)) if kind == 1 else None
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if address else 0, 0, 0)
        answer = b""
        if address:
            answer = (
                struct.pack("!HHHIH", 0xC00C, 1, 1, TTL_SECONDS, 4) + IPv4Address(address).packed
            )
        self._transport.sendto(head + question + answer, addr)


def configured() -> str:
    """Return the address that programs of this machine ask."""
    text = Path("/etc/resolv.conf").read_text()
    found = re.search(r"^nameserver\s+([\d.]+)\s*$", text, re.MULTILINE)
    return found.group(1) if found else "127.0.0.1"
