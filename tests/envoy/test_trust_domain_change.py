"""
A mesh gets another trust domain while it works: the old one is an alias until nobody has it.

A real Envoy with its identity from a whole server; clients by token and by certificate (C-S-8,
C-R-13, S-PA-8, MC-08).
"""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509
from serving import replace_file
from workplace import CLOSED, Workplace, eventually, guarded, handshake, identity_of, workplace

from pilothouse.agent.control_plane import ControlPlaneAccess, ControlPlaneClient
from pilothouse.agent.identity import HeldIdentity
from pilothouse.agent.keys import KeyKind, SigningRequest

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("joining"),
]
ADDRESS = "127.0.0.1"
MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "{{trustDomain: {own}, trustDomainAliases: [{aliases}]}}"}}
"""
OLD, NEW = "old.example", "new.example"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("t", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


def identity(trust_domain: str, account: str) -> str:
    return f"spiffe://{trust_domain}/ns/default/sa/{account}"


class Agent:
    """Asks for certificates by the token in a file, or by what it already holds."""

    def __init__(self, place: Workplace, account: str) -> None:
        access = ControlPlaneAccess(
            target=place.target,
            server_name="istiod.istio-system.svc",
            root_file=place.root_file,
            token_file=place.token_file(account),
            name=account,
            address=ADDRESS,
        )
        self._client = ControlPlaneClient(access)
        self._folder = place.folder

    async def ask(self, held: HeldIdentity | None = None) -> HeldIdentity:
        """Return a certificate. Raises: grpc.aio.AioRpcError: We are not known."""
        made = SigningRequest(KeyKind.ECDSA_P256)
        elements = await self._client.create_certificate(made.csr_pem, timedelta(), held)
        return HeldIdentity.read(elements, made.key_pem, datetime.now(UTC))

    async def is_refused(self, held: HeldIdentity | None = None) -> bool:
        """Tell whether nobody here knows us, by certificate or by token."""
        try:
            await self.ask(held)
        except grpc.aio.AioRpcError as error:
            codes = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
            return error.code() in codes
        return False

    def context(self, held: HeldIdentity) -> ssl.SSLContext:
        """Return a TLS client that shows what we hold to workloads."""
        file = self._folder / "held.pem"
        file.write_bytes(held.chain_pem + held.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=held.trust.roots_pem.decode())
        context.load_cert_chain(file)
        context.set_alpn_protocols(["istio"])
        return context


async def is_served(context: ssl.SSLContext, port: int) -> bool:
    """Tell whether the workload answers; with TLS 1.3 a refusal comes after the handshake."""
    with suppress(ssl.SSLError, OSError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(
                ADDRESS, port, ssl=context, server_hostname="web"
            )
            try:
                writer.write(b"hello\n")
                return await reader.readline() == b"welcome\n"
            finally:
                writer.transport.abort()
    return False


@asynccontextmanager
async def program() -> AsyncIterator[int]:
    """Run what the workload serves; yields its port."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"welcome\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, ADDRESS, 0) as server:
        yield int(server.sockets[0].getsockname()[1])


async def shown_by(context: ssl.SSLContext, port: int) -> str:
    found: x509.Certificate = await handshake(context, ADDRESS, port)
    return identity_of(found)


async def test_there_and_no_way_back(folder: Path, port: int) -> None:
    """Old certificates and tokens count as long as the alias stands, and what is new is of NEW."""
    before = MESH.format(own=OLD, aliases="")
    async with (
        program() as behind,
        workplace(folder, CLOSED, guarded("web", ADDRESS, port, behind), before) as place,
    ):
        for account in ("web", "client"):
            await place.write_token(account)
        agent = Agent(place, "client")
        old = await agent.ask()
        assert str(old.identity) == identity(OLD, "client")
        context = agent.context(old)
        async with place.envoy("web") as envoy:
            await envoy.wait_ready()
            await eventually(lambda: is_served(context, port))
            assert await shown_by(context, port) == identity(OLD, "web")

            replace_file(folder / "mesh" / "2.yaml", MESH.format(own=NEW, aliases=OLD))

            async def renewed() -> HeldIdentity | None:
                found = await agent.ask(old)
                return found if found.identity.trust_domain == NEW else None

            new: HeldIdentity = await eventually(renewed)
            assert str(new.identity) == identity(NEW, "client")
            assert str((await agent.ask()).identity) == identity(NEW, "client"), "by its old token"
            await eventually(lambda: is_served(agent.context(new), port))
            assert await is_served(agent.context(old), port)
        async with place.envoy("web") as envoy:
            await envoy.wait_ready()
            await eventually(lambda: is_served(agent.context(new), port))
            assert await shown_by(agent.context(new), port) == identity(NEW, "web")
            assert await is_served(agent.context(old), port)

            replace_file(folder / "mesh" / "2.yaml", MESH.format(own=NEW, aliases=""))

            async def given_up() -> bool:
                return not await is_served(agent.context(old), port)

            await eventually(given_up)
            assert await agent.is_refused(old)
            assert await agent.is_refused(), "by its old token"
            assert await is_served(agent.context(new), port)
            assert not await agent.is_refused(new)
        assert not list(place.server.plane.streams.rejected())
