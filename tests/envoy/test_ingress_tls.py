"""A real Envoy ends TLS on ports of a Sidecar, with certificates from its own disk (SC-09)."""

import asyncio
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from key_pairs import Pair, pair
from serving import replace_file
from workplace import Workplace, eventually, workplace

from pilothouse.demo.envoy import EnvoyProcess

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("identity"),
]
ADDRESS = "127.0.0.1"
OWN, CALLER, STRANGER = pair("shop.example"), pair("caller"), pair("stranger")


@dataclass(frozen=True)
class Ports:
    """Where the workload is reached: by the mode of its TLS, and one whose files are missing."""

    simple: int
    mutual: int
    optional: int
    absent: int


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("i", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_ports() -> Ports:
    probes = [socket.create_server((ADDRESS, 0)) for _ in range(4)]
    numbers = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return Ports(*numbers)


@asynccontextmanager
async def program() -> AsyncIterator[tuple[int, int]]:
    """Run what the workload does; yield its ports for HTTP and for TCP."""

    async def answer(request: web.Request) -> web.Response:
        seen = request.headers.get("x-forwarded-client-cert", "none")
        return web.Response(text=f"{request.headers['x-forwarded-proto']} {seen}")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0)
    await site.start()
    http = int(runner.addresses[0][1])
    async with await asyncio.start_server(greet, ADDRESS, 0) as server:
        yield http, int(server.sockets[0].getsockname()[1])
    await runner.cleanup()


def sidecar(folder: Path, ports: Ports, http: int, tcp: int) -> str:
    pair_of_files = f"serverCertificate: {folder}/own.crt, privateKey: {folder}/own.key"
    checked = f"{pair_of_files}, caCertificates: {folder}/caller.crt"
    text = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web, namespace: default}
spec:
  workloadSelector: {labels: {app: web}}
  egress: [{hosts: ["~/*"]}]
  ingress:
"""
    for number, protocol, to, tls in (
        (ports.simple, "HTTPS", http, f"mode: SIMPLE, {pair_of_files}"),
        (ports.mutual, "TLS", tcp, f"mode: MUTUAL, {checked}, minProtocolVersion: TLSV1_3"),
        (ports.optional, "HTTPS", http, f"mode: OPTIONAL_MUTUAL, {checked}"),
        (
            ports.absent,
            "TLS",
            tcp,
            f"mode: MUTUAL, {pair_of_files}, caCertificates: {folder}/absent.crt",
        ),
    ):
        text += f"""
  - port: {{number: {number}, protocol: {protocol}, name: p{number}}}
    bind: {ADDRESS}
    captureMode: NONE
    defaultEndpoint: {ADDRESS}:{to}
    tls: {{{tls}}}
"""
    return text


def policy(mode: str) -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: default}}
spec: {{mtls: {{mode: {mode}}}}}
"""


class Client:
    """Speaks TLS to the ports, as a program outside the mesh."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ask(
        self,
        port: int,
        said: bytes,
        shown: Pair | None = None,
        *,
        alpn: str = "http/1.1",
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> tuple[str, str, str]:
        """Return the answer, the name in the certificate, and the protocol agreed on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # which it is, is looked at below
        context.maximum_version = newest
        context.set_alpn_protocols([alpn])
        if shown is not None:
            file = self._folder / "client.pem"
            file.write_bytes(shown.chain + shown.key)
            context.load_cert_chain(file)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(ADDRESS, port, ssl=context)
            try:
                tls = writer.get_extra_info("ssl_object")
                der = tls.getpeercert(binary_form=True)
                name = x509.load_der_x509_certificate(der).subject.rfc4514_string()
                writer.write(said)
                return (
                    (await reader.read()).decode(errors="replace"),
                    name,
                    tls.selected_alpn_protocol() or "",
                )
            finally:
                writer.transport.abort()

    async def is_refused(self, port: int, shown: Pair | None = None) -> bool:
        """Tell whether TLS is refused; with 1.3 a client learns it only when it reads."""
        try:
            return (await self.ask(port, GREETING, shown))[0] == ""
        except (OSError, ssl.SSLError):
            return True

    async def has_no_plain_text(self, port: int) -> bool:
        """Tell whether what is not TLS has no answer of the program."""
        try:
            reader, writer = await asyncio.open_connection(ADDRESS, port)
            writer.write(REQUEST)
            async with asyncio.timeout(10):
                answer = await reader.read()
        except ConnectionError:
            return True
        writer.transport.abort()
        return answer == b""


GREETING = b"who\n"
REQUEST = (
    b"GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n"
    b"x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\r\n"
)


@dataclass(frozen=True)
class Ground:
    place: Workplace
    envoy: EnvoyProcess
    ports: Ports
    client: Client


@asynccontextmanager
async def agent(place: Workplace) -> AsyncIterator[Path]:
    """Run our agent beside the workload; yield the socket it serves."""
    path = place.folder / "sds"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pilothouse", "agent", "--control-plane", place.target, "--name", "web-1"),
        *("--token-file", str(place.token_file("web")), "--sds-socket", str(path)),
        *("--root-cert-file", str(place.root_file)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.wait()


@pytest.fixture(params=["ads", "none", "agent"])
async def ground(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Ground]:
    """One workload behind TLS of its own, with certificates of the mesh and without."""
    (folder / "own.crt").write_bytes(OWN.chain)
    (folder / "own.key").write_bytes(OWN.key)
    (folder / "caller.crt").write_bytes(CALLER.chain)
    ports = free_ports()
    async with AsyncExitStack() as stack:
        http, tcp = await stack.enter_async_context(program())
        config = (sidecar(folder, ports, http, tcp), policy("DISABLE"))
        place = await stack.enter_async_context(workplace(folder, *config))
        await place.write_token("web")
        options = ["--certificates", request.param]
        if request.param == "agent":
            options += ["--sds-socket", str(await stack.enter_async_context(agent(place)))]
        envoy = await stack.enter_async_context(place.envoy("web", *options))
        await envoy.wait_ready()
        yield Ground(place, envoy, ports, Client(folder))


async def test_a_sidecar_ends_tls(ground: Ground) -> None:
    """SC-09: own certificates are shown, clients are checked, and plain text gets nowhere."""
    client, ports = ground.client, ground.ports

    async def is_served() -> bool:
        return bool((await client.ask(ports.mutual, GREETING, CALLER))[0])

    await eventually(is_served)
    answer, name, agreed = await client.ask(ports.simple, REQUEST)
    assert answer.startswith("HTTP/1.1 200")
    assert answer.endswith("https none")  # nobody says in a header who they are
    assert (name, agreed) == ("CN=shop.example", "http/1.1")
    assert (await client.ask(ports.simple, b"no preface of HTTP/2\r\n" * 2, alpn="h2"))[2] == "h2"
    answer, name, agreed = await client.ask(ports.mutual, GREETING, CALLER)
    assert (answer, name, agreed) == ("hello\n", "CN=shop.example", "")
    assert await client.is_refused(ports.mutual)
    assert await client.is_refused(ports.mutual, STRANGER)
    with pytest.raises(ssl.SSLError):
        await client.ask(ports.mutual, GREETING, CALLER, newest=ssl.TLSVersion.TLSv1_2)
    assert (await client.ask(ports.optional, REQUEST))[0].endswith("https none")
    answer, _, _ = await client.ask(ports.optional, REQUEST, CALLER)
    assert answer.startswith("HTTP/1.1 200")
    assert "sa/admin" not in answer
    assert 'Subject="CN=caller"' in answer
    assert await client.is_refused(ports.optional, STRANGER)
    for port in (ports.simple, ports.mutual, ports.optional, ports.absent):
        assert await client.has_no_plain_text(port)
    # The port whose roots are not there is closed, whatever a client shows, and nothing else is.
    for shown in (None, CALLER, STRANGER):
        assert await client.is_refused(ports.absent, shown)


async def test_files_are_read_again(ground: Ground, folder: Path) -> None:
    """SC-09, N-64: a renewed certificate is shown without anything sent."""
    client, ports = ground.client, ground.ports
    renewed = pair("renewed.example")

    async def name() -> str:
        return (await client.ask(ports.simple, REQUEST))[1]

    assert await eventually(name) == "CN=shop.example"
    replace_file(folder / "own.key", renewed.key.decode())
    replace_file(folder / "own.crt", renewed.chain.decode())

    async def is_renewed() -> bool:
        return await name() == "CN=renewed.example"

    await eventually(is_renewed)


@pytest.mark.parametrize("ground", ["ads"], indirect=True)
@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
async def test_mutual_tls_of_the_mesh_comes_first(ground: Ground, mode: str) -> None:
    """SC-09: then the port's own certificates are not shown, and it is no way in without TLS."""
    client, ports = ground.client, ground.ports
    replace_file(ground.place.folder / "mesh" / "1.yaml", policy(mode))

    async def is_of_the_mesh() -> bool:
        return await client.is_refused(ports.simple)

    await eventually(is_of_the_mesh)
    for port in (ports.simple, ports.mutual, ports.optional):
        assert await client.has_no_plain_text(port)
        assert await client.is_refused(port, CALLER)
    found = await ground.place.server.json("/debug/findings")
    unused = [each for each in found if each["code"] == "IngressTlsUnused"]
    assert len(unused) == 4
    context = await ground.place.client_context("web")
    reader, writer = await asyncio.open_connection(ADDRESS, ports.mutual, ssl=context)
    writer.write(GREETING)
    async with asyncio.timeout(10):
        assert await reader.readline() == b"hello\n"
    writer.close()
