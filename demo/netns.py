"""
Network namespaces on a bridge, as the pods of one node are, for the demo and for tests.

Nothing is made outside the new namespaces: the bridge is in one of its own (the hub), and no route
leads to this machine's networks. They go away with their maker, even if that is killed (guard.py).
Needs root and the ``ip`` program. Calls block for some milliseconds each: asyncio code calls
`create`, `add`, `intercept` and `close` in a thread.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from pilothouse.demo import guard
from pilothouse.demo.errors import NamespaceError
from pilothouse.demo.interception import iptables_rules, nft_rules

_CLONE_NEWNET: Final = 0x40000000
_FOLDER: Final = Path("/run/netns")
_SUBNET: Final = IPv4Network("10.244.77.0/24")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNamespace:
    """One namespace: its full name for ``ip netns``, and its address on the bridge."""

    name: str
    address: str

    @property
    def path(self) -> Path:
        """The file that stands for it."""
        return _FOLDER / self.name

    def run(self, *argv: str, text_in: str | None = None) -> str:
        """Run a program in it to its end and return its output. Raises NamespaceError."""
        return _run(["ip", "netns", "exec", self.name, *argv], text_in)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a new socket that lives in this namespace; usable from anywhere in here."""
        made: list[socket.socket | OSError] = []

        def make() -> None:
            # A namespace belongs to a thread; this one enters and never returns.
            try:
                with self.path.open("rb") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        number = ctypes.get_errno()
                        raise OSError(number, os.strerror(number))  # noqa: TRY301
                made.append(socket.socket(family, kind, protocol))
            except OSError as error:
                made.append(error)

        thread = Thread(target=make, name=f"socket-{self.name}")
        thread.start()
        thread.join()
        match made[0]:
            case OSError() as error:
                raise error
            case new:
                new.setblocking(False)
                return new

    def connector(self) -> aiohttp.TCPConnector:
        """Return an HTTP connector whose connections begin in this namespace."""

        def make(info: tuple[Any, ...]) -> socket.socket:
            return self.socket(info[0], info[1], info[2])

        return aiohttp.TCPConnector(socket_factory=make)

    def intercept(self) -> None:
        """Lead its TCP traffic through ports 15001 and 15006, as in a pod with a sidecar."""
        if shutil.which("iptables-restore"):
            self.run("iptables-restore", "--noflush", text_in=iptables_rules())
        elif shutil.which("nft"):
            self.run("nft", "-f", "-", text_in=nft_rules())
        else:
            raise NamespaceError(
                "Neither iptables nor nft was found, and traffic cannot be intercepted without. "
                "Install one, for example with: apt-get install iptables"
            )


class NetworkNamespaces:
    """
    Namespaces on one bridge; use as a context manager, or call `create` and `close`.

    Args:
        subnet: Addresses on the bridge; its first host is the hub.
    """

    def __init__(self, *, subnet: IPv4Network = _SUBNET) -> None:
        self._subnet = subnet
        self._owner = guard.owner(os.getpid()) or str(os.getpid())
        self._guard: subprocess.Popen[bytes] | None = None
        self._count = 0
        self.hub = self._namespace("hub", str(subnet[1]))

    def create(self) -> Self:
        """
        Remove what dead runs left, then make the hub.

        Raises: NamespaceError: No root, no ``ip``, or the kernel refuses.
        """
        _check_rights()
        guard.remove(guard.leftovers())
        self._guard = subprocess.Popen(  # noqa: S603 (our own script)
            [sys.executable, "-I", "-S", str(Path(guard.__file__)), self._owner],
            stdin=subprocess.PIPE,
            # It must not keep open what our reader waits on to end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._make(
            self.hub,
            "link add name bridge type bridge",
            f"address add {self._interface(self.hub)} dev bridge",
            "link set dev bridge up",
        )
        return self

    def add(self, name: str, address: str) -> NetworkNamespace:
        """Make a namespace with `address` on the bridge; all else it may reach is the bridge."""
        made = self._namespace(name, address)
        self._make(made)
        self._count += 1
        port = f"port{self._count}"
        _batch(
            self.hub,
            f"link add name {port} type veth peer name eth0 netns {made.name}",
            f"link set dev {port} master bridge up",
        )
        _batch(
            made,
            f"address add {self._interface(made)} dev eth0",
            "link set dev eth0 up",
            # A connection to a virtual address needs a route before it can be intercepted.
            f"route add default via {self.hub.address}",
        )
        return made

    def close(self) -> None:
        """Kill what still runs in the namespaces and remove them. Idempotent."""
        guarding, self._guard = self._guard, None
        if guarding is None:
            return
        guard.remove(guard.namespaces_of(self._owner))
        guarding.communicate()

    def __enter__(self) -> Self:
        """Create the hub."""
        try:
            return self.create()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything."""
        self.close()

    def _namespace(self, name: str, address: str) -> NetworkNamespace:
        return NetworkNamespace(name=f"{guard.PREFIX}{self._owner}-{name}", address=address)

    def _interface(self, namespace: NetworkNamespace) -> IPv4Interface:
        return IPv4Interface(f"{namespace.address}/{self._subnet.prefixlen}")

    def _make(self, namespace: NetworkNamespace, *commands: str) -> None:
        _run(["ip", "netns", "add", namespace.name])
        _batch(namespace, "link set dev lo up", *commands)


def _check_rights() -> None:
    if os.geteuid() != 0:
        raise NamespaceError("Network namespaces need root; run it with sudo.")
    if shutil.which("ip") is None:
        raise NamespaceError(
            "The program `ip` was not found. Install it, for example with: apt-get install iproute2"
        )


def _batch(namespace: NetworkNamespace, *commands: str) -> None:
    _run(["ip", "-netns", namespace.name, "-batch", "-"], "\n".join(commands) + "\n")


def _run(argv: Sequence[str], text_in: str | None = None) -> str:
    done = subprocess.run(  # noqa: S603 (programs are named here, arguments are ours)
        argv, input=text_in or "", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise NamespaceError(f"`{' '.join(argv)}` failed: {said}")
    return done.stdout
