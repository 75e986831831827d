"""
Workloads of another mesh call ours once the mesh config adds its roots, and not before (C-R-6).

A real Envoy with its identity from a whole server; the roots are text, or come from a real HTTPS
endpoint that goes away and comes back.
"""

import asyncio
import base64
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from self_signed import self_signed
from serving import replace_file
from workplace import CLOSED, Workplace, eventually, guarded, workplace

from pilothouse.certs.authority import Authority
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.runtime import bundle_fetches
from pilothouse.runtime.bundle_fetches import NOT_FETCHED

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("joining"),
]
ADDRESS = "127.0.0.1"
PARTNER = "partner.example"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("a", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


class Caller:
    """A workload of another mesh, as a TLS client."""

    def __init__(self, folder: Path, ours: bytes, authority: Authority, domain: str) -> None:
        identity = WorkloadIdentity(domain, "default", "visitor")
        pair = authority.issue_workload(identity, datetime.now(UTC))
        file = folder / f"{domain}.pem"
        file.write_bytes(pair.certificate_pem + pair.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.load_verify_locations(cadata=ours.decode())
        self._context.load_cert_chain(file)
        self._context.set_alpn_protocols(["istio"])

    async def is_served(self, port: int) -> bool:
        """Tell whether a workload of ours answers; with TLS 1.3 a refusal comes after the hello."""
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(
                    ADDRESS, port, ssl=self._context, server_hostname="web"
                )
                try:
                    writer.write(b"hello\n")
                    return await reader.readline() == b"welcome\n"
                finally:
                    writer.transport.abort()
        except (ssl.SSLError, OSError):
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


@asynccontextmanager
async def serving_workload(folder: Path, port: int) -> AsyncIterator[Workplace]:
    """Run a server and an Envoy that takes mutual TLS only, with a program behind it."""
    async with (
        program() as behind,
        workplace(folder, CLOSED, guarded("web", ADDRESS, port, behind)) as place,
    ):
        await place.write_token("web")
        async with place.envoy("web") as envoy:
            await envoy.wait_ready()
            yield place


def configure(place: Workplace, *entries: object) -> None:
    """Say in the mesh config which roots there are beside our own."""
    settings = json.dumps({"caCertificates": entries})
    row = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": settings},
    }
    replace_file(place.folder / "mesh" / "istio.json", json.dumps(row))


async def becomes(*expected: tuple[Caller, bool], port: int) -> None:
    """Wait until each is served or not."""

    async def holds() -> bool:
        return [await each.is_served(port) for each, _ in expected] == [
            is_in for _, is_in in expected
        ]

    await eventually(holds)


async def test_roots_as_text(folder: Path, port: int) -> None:
    """C-R-6, MC-29, S-PA-8: a root lets in accepted trust domains only, and nobody without it."""
    partner = Authority.create(PARTNER, datetime.now(UTC))
    async with serving_workload(folder, port) as place:
        ours = place.root_file.read_bytes()
        visitor = Caller(folder, ours, partner, PARTNER)
        other = Caller(folder, ours, partner, "elsewhere.example")
        assert not await visitor.is_served(port)
        configure(place, {"pem": partner.root_pem.decode(), "trustDomains": [PARTNER]})
        await becomes((visitor, True), (other, False), port=port)
        configure(place, {"pem": partner.root_pem.decode()})
        await becomes((visitor, False), (other, False), port=port)
        assert not list(place.server.plane.streams.rejected())


class Endpoint:
    """A SPIFFE bundle endpoint: HTTPS on loopback, which may be told to answer something else."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.roots: list[bytes] = []

    async def _answer(self, _request: web.Request) -> web.Response:
        keys = []
        for pem in self.roots:
            der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
            keys.append({"use": "x509-svid", "x5c": [base64.b64encode(der).decode()]})
        return web.json_response({"keys": keys}, status=self.status)

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext) -> AsyncIterator["Endpoint"]:
        app = web.Application()
        app.router.add_get("/bundle", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, ADDRESS, 0, ssl_context=context).start()
        self.url = f"https://localhost:{runner.addresses[0][1]}/bundle"
        try:
            yield self
        finally:
            await runner.cleanup()


async def test_roots_from_a_bundle_endpoint(
    folder: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C-R-6, MC-29: fetched over verified HTTPS; new ones are used; a failure changes nothing."""
    context = self_signed(folder, "localhost")
    monkeypatch.setattr(bundle_fetches, "SHORTEST_REFRESH", bundle_fetches.FIRST_RETRY)
    monkeypatch.setattr(bundle_fetches, "REFRESH", bundle_fetches.FIRST_RETRY)
    first, second = (Authority.create(PARTNER, datetime.now(UTC)) for _ in range(2))
    async with Endpoint().running(context) as endpoint, serving_workload(folder, port) as place:
        ours = place.root_file.read_bytes()
        old, new = (Caller(folder, ours, each, PARTNER) for each in (first, second))
        endpoint.roots = [first.root_pem]
        configure(place, {"spiffeBundleUrl": endpoint.url, "trustDomains": [PARTNER]})
        # Nobody vouches for the endpoint yet, so what it says is not believed.
        await place.server.until("/debug/findings", told_of(NOT_FETCHED, "error"))
        assert not await old.is_served(port)
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "server.pem"))
        await becomes((old, True), (new, False), port=port)
        await place.server.until("/debug/findings", lambda found: not told_of(NOT_FETCHED)(found))
        endpoint.roots = [first.root_pem, second.root_pem]
        await becomes((old, True), (new, True), port=port)
        endpoint.status = 503
        await place.server.until("/debug/findings", told_of(NOT_FETCHED, "warning"))
        await becomes((old, True), (new, True), port=port)
        endpoint.status, endpoint.roots = 200, [second.root_pem]
        await becomes((old, False), (new, True), port=port)


def told_of(code: str, severity: str = "") -> Callable[[list[dict[str, str]]], bool]:
    """Return whether a list of findings has one."""

    def holds(found: list[dict[str, str]]) -> bool:
        return any(
            each["code"] == code and severity in ("", each["severity"].lower()) for each in found
        )

    return holds


async def test_an_added_root_proves_nothing_to_the_server(folder: Path, port: int) -> None:
    """C-R-13: callers of the secure port are verified by the mesh's own roots alone."""
    partner = Authority.create(PARTNER, datetime.now(UTC))
    async with serving_workload(folder, port) as place:
        configure(place, {"pem": partner.root_pem.decode(), "trustDomains": [PARTNER]})
        visitor = Caller(folder, place.root_file.read_bytes(), partner, PARTNER)
        await becomes((visitor, True), port=port)
        # The partner's authority names one of our own workloads, which only ours may do.
        forged = partner.issue_workload(
            WorkloadIdentity("cluster.local", "default", "web"), datetime.now(UTC)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=place.root_file.read_text())
        pem = folder / "forged.pem"
        pem.write_bytes(forged.certificate_pem + forged.key_pem)
        context.load_cert_chain(pem)
        context.set_alpn_protocols(["h2"])
        assert not await greeted(place.target, context)
        own = await place.client_context("web")
        own.set_alpn_protocols(["h2"])
        assert await greeted(place.target, own)


async def greeted(target: str, context: ssl.SSLContext) -> bool:
    """Tell whether a gRPC server answers a client's first words."""
    host, _, port = target.rpartition(":")
    with suppress(ssl.SSLError, OSError):
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname="istiod.istio-system.svc"
            )
            try:
                writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                return bool(await reader.read(1))
            finally:
                writer.transport.abort()
    return False
