"""
Finds out before anything starts whether the addresses we need are free, and who has them if not.

Reads /proc, so the owner of a port is found on Linux only, and only where we may look.
"""

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from pilothouse.demo.errors import PortBusy

_LISTEN: Final = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortNeed:
    """An IPv4 address and TCP port, and what it is for."""

    address: str
    port: int
    purpose: str


def check_free(needs: Iterable[PortNeed]) -> None:
    """Raise PortBusy for the first of `needs` that another program listens on."""
    for need in needs:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the servers do: connections of an earlier run in TIME_WAIT are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((need.address, need.port))
                probe.listen(1)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                owner = owner_of(need.address, need.port)
                raise PortBusy(need.address, need.port, need.purpose, owner) from None


def owner_of(address: str, port: int) -> str | None:
    """Return ``name (pid N)`` of the process listening there, or None if it cannot be told."""
    inode = _listening_inode(address, port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        # Other users' processes may not be read, and any process may end while we look.
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) == wanted:
                        name = (process / "comm").read_text(encoding="utf-8").strip()
                        return f"{name} (pid {process.name})"
    return None


def _listening_inode(address: str, port: int) -> str | None:
    hosts = {_proc_address(address), _proc_address("0.0.0.0")}  # noqa: S104 (compared, not bound)
    try:
        table = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    for line in table:
        fields = line.split()
        host, _, port_hex = fields[1].partition(":")
        if fields[3] == _LISTEN and int(port_hex, 16) == port and host in hosts:
            return fields[9]
    return None


def _proc_address(address: str) -> str:
    # /proc/net/tcp prints the address as one number in the machine's byte order.
    return IPv4Address(address).packed[::-1].hex().upper()
