"""
Stock Envoys whose certificates are by somebody else's authority, and a server that has none.

The authority is made with `cryptography` alone, as an operator's tools would; we sign nothing.
"""

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from certificates import PEM, make_ca, private_key_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from workplace import (
    CLOSED,
    Workplace,
    calling,
    eventually,
    guarded,
    handshake,
    identity_of,
    workplace,
)

from pilothouse.demo.envoy import EnvoyProcess

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("joining"),
]
ADDRESS = "127.0.0.1"
Files = tuple[Path, Path]
SERVER = "istiod.istio-system.svc"
SPIFFE = "spiffe://cluster.local/ns/default/sa/"


class Operator:
    """An authority, and the files by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = make_ca("Somebody's root", datetime.now(UTC))
        self.roots_file = folder / "outside-roots.pem"
        self.roots_file.write_bytes(self._root[0].public_bytes(PEM))

    def settings(self) -> dict[str, Any]:
        """Return what a server is started with that has no authority."""
        names = (x509.DNSName(SERVER), x509.IPAddress(ip_address(ADDRESS)))
        chain, key = self.issue("server", *names)
        return {
            "ca_server": False,
            "tls_cert_file": chain,
            "tls_key_file": key,
            "ca_cert_file": self.roots_file,
        }

    def issue_workload(self, account: str, file: str = "") -> tuple[Path, Path]:
        """Certify an account; return chain and key."""
        name = x509.UniformResourceIdentifier(f"{SPIFFE}{account}")
        return self.issue(file or account, name)

    def issue(self, file: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Certify names with a new key; return chain and key, which are replaced by renaming."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._root[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._root[1], hashes.SHA256())
        )
        return (
            self._write(f"{file}-chain.pem", made.public_bytes(PEM)),
            self._write(f"{file}-key.pem", private_key_pem(key)),
        )

    def _write(self, name: str, content: bytes) -> Path:
        draft = self.folder / f".{name}"
        draft.write_bytes(content)
        return draft.replace(self.folder / name)

    def context(self, account: str) -> ssl.SSLContext:
        """Return the TLS context of a client of the mesh."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.load_verify_locations(self.roots_file)
        made.load_cert_chain(*self.issue_workload(account, f"{account}-bare"))
        made.set_alpn_protocols(["istio"])
        return made


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("o", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


def told_of(chain: Path, key: Path) -> Mapping[str, str]:
    """Return the metadata of a proxy that has these files (NM-11, NM-12); for roots it asks."""
    return {
        f"TLS_{side}_{part}": str(file)
        for side in ("CLIENT", "SERVER")
        for part, file in (("CERT_CHAIN", chain), ("KEY", key))
    }


@asynccontextmanager
async def envoy_with(
    place: Workplace, account: str, files: Files, *options: str, told: Files | None = None
) -> AsyncIterator[EnvoyProcess]:
    """Run an Envoy whose certificate, towards the server too, is in files; no token, no agent.

    Its listeners and clusters show those it has `told` of, if these are others.
    """
    file = await place.write_bootstrap(account, "--certificates", "ads", *options)
    config = json.loads(file.read_text())
    config["node"]["metadata"].update(told_of(*(told or files)))
    clusters = config["static_resources"]["clusters"]
    (server,) = (each for each in clusters if each["name"] == "xds-grpc")
    common = server["transport_socket"]["typed_config"]["common_tls_context"]
    common["tls_certificates"] = [
        {
            "certificate_chain": {"filename": str(files[0])},
            "private_key": {"filename": str(files[1])},
        }
    ]
    made = EnvoyProcess(config, file.parent / "run", name=account)
    async with made:
        yield made


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello " + await reader.readline())
    await writer.drain()
    writer.close()


async def answer(where: int) -> bytes:
    """Return what a program hears that calls in plain text."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(ADDRESS, where)
        try:
            writer.write(b"whoever you are\n")  # longer than the head of a TLS record
            return await reader.readline()
        finally:
            writer.close()


@pytest.mark.parametrize("variant", ["--delta", "--sotw"])
async def test_certificates_by_somebody_else_are_enough(folder: Path, variant: str) -> None:
    """C-R-11: config, roots and mutual TLS under STRICT; bare and foreign callers stay outside."""
    port, egress = free_port(), free_port()
    operator = Operator(folder)
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(await asyncio.start_server(greet, ADDRESS, 0))
        own = program.sockets[0].getsockname()[1]
        config = (CLOSED, guarded("web", ADDRESS, port, own), calling("client", egress, port))
        place = await stack.enter_async_context(workplace(folder, *config, **operator.settings()))
        shutil.copy(operator.roots_file, place.root_file)
        for account in ("web", "client"):
            files = operator.issue_workload(account)
            made = await stack.enter_async_context(envoy_with(place, account, files, variant))
            await made.wait_ready()
        assert await eventually(lambda: answer(egress)) == b"hello whoever you are\n"
        certificate = await handshake(operator.context("client"), ADDRESS, port)
        assert identity_of(certificate) == f"{SPIFFE}web"
        assert await is_turned_away(answer(port))
        (folder / "other").mkdir()
        stranger = Operator(folder / "other").context("client")
        stranger.load_verify_locations(operator.roots_file)
        assert await is_turned_away(say(stranger, port))
        assert await say(operator.context("client"), port) == b"hello me\n"
        assert not list(place.server.plane.streams.rejected())


async def say(context: ssl.SSLContext, port: int) -> bytes:
    """Return what a client hears that comes with a certificate of its own."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(
            ADDRESS, port, ssl=context, server_hostname="web"
        )
        try:
            writer.write(b"me\n")
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()


async def is_turned_away(asked: Awaitable[bytes]) -> bool:
    try:
        return await asked == b""
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.mark.parametrize("variant", ["--delta", "--sotw"])
async def test_a_chain_and_key_may_come_late(folder: Path, variant: str) -> None:
    """N-64: Envoy looks again where it was told of files; roots from here need none (ADR 19)."""
    port = free_port()
    operator = Operator(folder)
    late = (folder / "late-chain.pem", folder / "late-key.pem")
    config = (CLOSED, guarded("web", ADDRESS, port))
    async with workplace(folder, *config, **operator.settings()) as place:
        shutil.copy(operator.roots_file, place.root_file)
        own = operator.issue_workload("web")
        async with envoy_with(place, "web", own, variant, told=late) as envoy:
            await eventually(lambda: has_refused(envoy))
            assert operator.issue_workload("web", "late") == late
            client = operator.context("client")
            certificate = await eventually(lambda: handshake(client, ADDRESS, port))
            assert identity_of(certificate) == f"{SPIFFE}web"


async def has_refused(envoy: EnvoyProcess) -> bool:
    return sum((await envoy.stats("sds.*update_rejected")).values()) > 0
