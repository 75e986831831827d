"""A TLS front before a little server of a test's own, and clients of it."""

import asyncio
import socket
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pilothouse.certs.authority import Authority
from pilothouse.certs.client_certificates import ClientCertificates
from pilothouse.certs.front.control import Limits, Material
from pilothouse.certs.front.peers import Peers
from pilothouse.certs.front.supervisor import TlsFront
from pilothouse.certs.issued import KeyPair
from pilothouse.model.identity import WorkloadIdentity

ALICE = WorkloadIdentity("cluster.local", "default", "alice")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()


@dataclass
class Told:
    """The observer of a front."""

    turned: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    exits: list[int | None] = field(default_factory=list)

    def turned_away(self, counts: Mapping[str, int], address: str, detail: str) -> None:
        self.turned.update(counts)
        self.details.append(detail)

    def certificate_refused(self, address: str, detail: str) -> None:
        self.refused.append(detail)

    def front_ended(self, exit_code: int | None) -> None:
        self.exits.append(exit_code)


def material(authority: Authority, roots: bytes | None = None, crl: bytes = b"") -> Material:
    """Return what a front serves with: a fresh certificate of `authority`."""
    pair = authority.issue_server(["localhost", "127.0.0.1"], datetime.now(UTC))
    return Material(
        certificate_pem=pair.certificate_pem.decode(),
        key_pem=pair.key_pem.decode(),
        roots_pem=(roots or authority.root_pem).decode(),
        crl_pem=crl.decode(),
    )


def svid(authority: Authority, identity: WorkloadIdentity = ALICE) -> KeyPair:
    """Return a workload's certificate."""
    return authority.issue_workload(identity, datetime.now(UTC))


def client_context(root: bytes, pair: KeyPair | None = None) -> ssl.SSLContext:
    """Return a client's context, with a certificate or without."""
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(["h2"])
    if pair is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair.certificate_pem + pair.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


@dataclass
class Fronted:
    """A front that runs."""

    front: TlsFront
    peers: Peers
    told: Told
    port: int
    backend: Path

    @asynccontextmanager
    async def connected(
        self, context: ssl.SSLContext, local: str = "127.0.0.1"
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect a client from one of loopback's addresses."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost", local_addr=(local, 0)
        )
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def answers(self, context: ssl.SSLContext, local: str = "127.0.0.1") -> bool:
        """Tell whether a client gets an echo."""
        try:
            async with self.connected(context, local) as (reader, writer):
                writer.write(b"hello")
                await writer.drain()
                return await reader.read(5) == b"hello"
        except OSError:
            return False

    @property
    def rss_bytes(self) -> int:
        """The memory of the front."""
        return rss_bytes(self.front.pid or 0)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


@asynccontextmanager
async def fronted(
    authority: Authority, *, serve: Serve = echo, limits: Limits | None = None, **options: float
) -> AsyncIterator[Fronted]:
    """Run a front before a server on a Unix socket."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                await serve(reader, writer)
        finally:
            writer.close()

    with tempfile.TemporaryDirectory() as directory, socket.create_server(
        ("127.0.0.1", 0), backlog=1024
    ) as listener:  # fmt: skip
        listener.setblocking(False)
        backend = Path(directory) / "backend"
        server = await asyncio.start_unix_server(handle, backend, backlog=20)
        peers, told = Peers(), Told()
        front = TlsFront(
            listener, backend, peers=peers, observer=told, clock=time.monotonic, limits=limits,
            recognise=ClientCertificates(lambda: {"cluster.local"}).read, **options,
        )  # fmt: skip
        await front.start(material(authority))
        running = asyncio.create_task(front.run())
        try:
            yield Fronted(front, peers, told, listener.getsockname()[1], backend)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await front.stop()
            server.close()


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds of a part that cannot tell."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (nothing to wait on)
            await asyncio.sleep(0.01)
