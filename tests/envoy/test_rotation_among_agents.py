"""A rotation among real Envoys with our agents: over without the operator, nobody refused."""

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from workplace import CLOSED, Workplace, calling, eventually, guarded, handshake, workplace

from pilothouse.certs.root_store import certificate_file, read_state
from pilothouse.certs.rotation import Phase, RootRotation

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("joining"),
]

ADDRESS = "127.0.0.1"
PATIENCE_SECONDS = 120


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets."""
    folder = tmp_path_factory.mktemp("r")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def with_agent(place: Workplace, account: str) -> AsyncIterator[Path]:
    """Run an agent; yield the socket it serves."""
    path = place.folder / f"{account}.s"
    with (place.folder / f"{account}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pilothouse", "agent", "--control-plane", place.target),
            *("--token-file", str(place.token_file(account)), "--sds-socket", str(path)),
            *("--root-cert-file", str(place.root_file), "--name", f"{account}-1"),
            *("--renewal-spread", "500ms"),
            stdout=log,
            stderr=log,
        )
        try:
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0


class Caller:
    """Opens a connection after another through the client's Envoy, each with its own handshake."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0
        self.lost: list[str] = []

    async def ask(self) -> bytes:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(ADDRESS, self._port)
            try:
                writer.write(b"whoever you are\n")  # longer than the head of a TLS record
                return await reader.readline()
            finally:
                writer.close()

    async def run(self) -> None:
        while True:
            try:
                answer = await self.ask()
            except (OSError, TimeoutError) as failure:
                answer = repr(failure).encode()
            if answer == b"hello whoever you are\n":
                self.answered += 1
            else:
                self.lost.append(answer.decode())
            await asyncio.sleep(0.01)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello " + await reader.readline())
    await writer.drain()
    writer.close()


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


async def test_no_connection_is_refused_and_nobody_hastens_it(folder: Path) -> None:
    """Roots and certificates of both sides change while each request makes a new connection."""
    port, egress = free_port(), free_port()

    def state() -> RootRotation:
        found = read_state(folder / "ca")
        assert found is not None
        return found

    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(await asyncio.start_server(greet, ADDRESS, 0))
        own = program.sockets[0].getsockname()[1]
        texts = (
            CLOSED,
            guarded("web", ADDRESS, port, own),
            calling("client", egress, port),
        )
        settle = timedelta(seconds=1)
        place = await stack.enter_async_context(
            workplace(folder, *texts, ca_rotation_settle=settle)
        )
        for account in ("web", "client"):
            await place.write_token(account)
            path = await stack.enter_async_context(with_agent(place, account))
            options = ("--certificates", "agent", "--sds-socket", str(path))
            envoy = await stack.enter_async_context(place.envoy(account, *options))
            await envoy.wait_ready()
        caller = Caller(egress)
        assert await eventually(caller.ask) == b"hello whoever you are\n"
        calls = asyncio.create_task(caller.run())
        old = state().current
        await place.run("ca", "rotate", "--ca-dir", place.ca_dir)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while state().current == old or state().phase is not Phase.STABLE:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        answered = caller.answered
        await eventually(lambda: _more_than(caller, answered + 20))
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)
        assert caller.lost == []
        client = await place.client_context("client")
        leaf = await handshake(client, ADDRESS, port)
        new = (place.ca_dir / certificate_file(state().current)).read_bytes()
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(new))


async def _more_than(caller: Caller, count: int) -> bool:
    return caller.answered > count
