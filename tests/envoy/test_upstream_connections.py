"""Connections a real Envoy makes to destinations: TLS by the request's name, headers, tunnels."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from mesh import Mesh
from self_signed import self_signed

from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.model.proxies import InterceptionMode
from pilothouse.translators.envoy.bootstrap import PipeAddress, Workload, bootstrap

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("upstream"),
]

PATIENCE_SECONDS = 20.0
WRONG_NAMES = "ssl.fail_verify_san"
CLIENT = Workload(
    name="client",
    namespace="default",
    addresses=("127.0.0.1",),
    labels={"app": "client"},
    interception_mode=InterceptionMode.NONE,
)
CONFIG = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: default}}
spec:
  egress:
    - {{port: {{number: {web}, protocol: HTTP, name: web}}, bind: 127.0.0.1, captureMode: NONE,
       hosts: ["./api.example", "./other.example"]}}
    - {{port: {{number: {raw}, protocol: TCP, name: raw}}, bind: 127.0.0.1, captureMode: NONE,
       hosts: ["./raw.example"]}}
    - {{port: {{number: {far}, protocol: TCP, name: far}}, bind: 127.0.0.1, captureMode: NONE,
       hosts: ["./far.example"]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: default}}
spec:
  hosts: [api.example, other.example]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
  ports: [{{number: {web}, name: web, protocol: HTTP, targetPort: {tls_server}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api, namespace: default}}
spec:
  host: "*.example"
  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {certificate}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: raw, namespace: default}}
spec:
  hosts: [raw.example]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
  ports: [{{number: {raw}, name: raw, protocol: TCP, targetPort: {line_server}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: raw, namespace: default}}
spec: {{host: raw.example, trafficPolicy: {{proxyProtocol: {{version: V1}}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far, namespace: default}}
spec:
  hosts: [far.example]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
  ports: [{{number: {far}, name: far, protocol: TCP, targetPort: {connect_server}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: far, namespace: default}}
spec:
  host: far.example
  trafficPolicy: {{tunnel: {{targetHost: db.internal, targetPort: 5432}}}}
"""


@dataclass
class Ground:
    """The client's ports, and what the servers behind its Envoy saw."""

    ports: dict[str, int]
    envoy: EnvoyProcess
    names: list[str | None] = field(default_factory=list)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """One Envoy with the config above, and the servers it leads to."""
    folder = tmp_path_factory.mktemp("u")
    ports = {name: free_port() for name in ("web", "raw", "far")}
    names: list[str | None] = []
    tls = self_signed(folder, "api.example")
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    async with AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_get("/", _hello)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        servers = {"tls_server": runner.addresses[0][1]}
        for name, serve in (("line_server", _say_line), ("connect_server", _say_target)):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.callback(server.close)
            servers[name] = server.sockets[0].getsockname()[1]
        mesh = await stack.enter_async_context(Mesh(f"unix:{folder}/xds"))
        await mesh.apply(CONFIG.format(**ports, **servers, certificate=folder / "server.pem"))
        assert mesh.findings() == []
        plan = bootstrap(
            CLIENT,
            control_plane=PipeAddress(path=f"{folder}/xds"),
            admin=PipeAddress(path=f"{folder}/envoy/a"),
            stats_kept=[{"suffix": WRONG_NAMES}],
        )
        envoy = await stack.enter_async_context(EnvoyProcess(plan, folder / "envoy"))
        await envoy.wait_ready(timeout_seconds=PATIENCE_SECONDS)
        yield Ground(ports, envoy, names)


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


async def _hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _say_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def _say_target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + head.split(b"\r\n", 1)[0] + b"\n")
    await writer.drain()
    writer.close()


async def eventually(ask: Callable[[], Awaitable[str]], wanted: Callable[[str], bool]) -> str:
    """Ask until the answer is as wanted; the config may still be on its way."""
    answer = "nothing yet"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not wanted(answer):
                await asyncio.sleep(0.05)
                try:
                    answer = await ask()
                except (OSError, aiohttp.ClientError) as error:
                    answer = str(error)
    except TimeoutError:
        pytest.fail(answer)
    return answer


async def get(port: int, host: str) -> str:
    """Return status and text of a request to the client's Envoy."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/", headers={"host": host}) as answer,
    ):
        return f"{answer.status} {await answer.text()}"


async def first_line(port: int) -> str:
    """Return the first line that comes back over a connection through the client's Envoy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"anybody\n")
    line = await reader.readline()
    writer.close()
    return line.decode()


async def test_tls_takes_its_name_from_the_request(ground: Ground) -> None:
    """DR-51, DR-55: SNI is the request's host, and the certificate is for it."""
    port = ground.ports["web"]
    answer = await eventually(lambda: get(port, "api.example"), lambda text: text[:3] == "200")
    assert answer == "200 hello"
    assert ground.names[-1] == "api.example"


async def test_tls_refuses_a_certificate_for_another_name(ground: Ground) -> None:
    """DR-55: the same server answers to other.example, and its certificate does not."""
    port = ground.ports["web"]
    await eventually(lambda: get(port, "api.example"), lambda text: text[:3] == "200")
    assert sum((await ground.envoy.stats(WRONG_NAMES)).values()) == 0
    answer = await get(port, "other.example")
    assert answer.startswith("503")
    assert sum((await ground.envoy.stats(WRONG_NAMES)).values()) > 0
    assert ground.names[-1] == "other.example"


async def test_the_proxy_protocol_says_who_connects(ground: Ground) -> None:
    """DR-61"""
    port = ground.ports["raw"]
    line = await eventually(lambda: first_line(port), lambda text: text.startswith("PROXY"))
    kind, source, target, _, asked = line.removeprefix("PROXY ").split()
    assert (kind, source, target, int(asked)) == ("TCP4", "127.0.0.1", "127.0.0.1", port)


async def test_tcp_goes_through_a_tunnel(ground: Ground) -> None:
    """DR-60: the proxy is asked to CONNECT to the tunnel's target."""
    port = ground.ports["far"]
    line = await eventually(lambda: first_line(port), lambda text: text.startswith("CONNECT"))
    assert line == "CONNECT db.internal:5432 HTTP/1.1\n"
