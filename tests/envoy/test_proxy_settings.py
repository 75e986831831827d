"""
What a proxy's own config does to real requests: headers it adds, connections it keeps.

One mesh serves all tests; each writes the mesh config it is about.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import aiohttp
import isolation
import pytest
import pytest_asyncio
from live_mesh import TCP_PORT, LiveMesh, Reply, eventually
from self_signed import self_signed
from web_mesh import entry, service

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("proxy_settings"),
]

CLIENT, SERVER = "10.244.77.11", "10.244.77.12"
IDLE_SECONDS = 1.0
BASE = "---".join(
    [
        service(
            "web",
            "10.96.0.10",
            "{name: http, port: 80, targetPort: 8080}",
            "{name: tcp, port: 9000}",
        ),
        entry("web-v1", SERVER, {"app": "web"}),
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
    - match: [{uri: {prefix: /renamed}}]
      rewrite: {authority: inside.example}
      route: [{destination: {host: web, port: {number: 80}}}]
    - route: [{destination: {host: web, port: {number: 80}}}]
""",
    ]
)
MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultConfig: %s
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveMesh]:
    """A client whose idle connections end, and what it asks."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as mesh:
        await mesh.control.apply(BASE, "base.yaml")
        idle = {"IDLE_TIMEOUT": f"{IDLE_SECONDS}s"}
        await mesh.add("client", CLIENT, {"app": "client"}, tls, metadata=idle)
        await mesh.add("web-v1", SERVER, {"app": "web"}, tls)
        mesh.probe = ("client", "http://10.96.0.10", "web")
        yield mesh


async def ask(mesh: LiveMesh, path: str = "/") -> Reply:
    """Ask on a connection of its own: one from before a change stays with the old listener."""
    connector = mesh.workloads["client"].namespace.connector()
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://10.96.0.10{path}", headers={"host": "web"}) as answer,
    ):
        text = await answer.text()
    found = json.loads(text) if text.startswith("{") else {}
    return Reply(answer.status, answer.headers, **found)


async def answered_by(mesh: LiveMesh, server: str) -> None:
    """Wait until answers name the server: a listener with new settings warms up first."""

    async def is_named() -> bool:
        return server in (await ask(mesh)).headers["server"]

    await eventually(is_named)


async def test_headers_as_istio_adds_them(mesh: LiveMesh) -> None:
    """PC-06: without proxyHeaders a request has an id and a count, an answer names the server."""
    await mesh.apply(MESH % "{}")
    await answered_by(mesh, "envoy")
    reply = await ask(mesh, "/renamed")
    assert reply.seen["x-request-id"]
    assert reply.seen["x-envoy-attempt-count"] == "1"
    assert "x-forwarded-host" not in reply.seen
    assert reply.headers["x-envoy-upstream-service-time"]


async def test_headers_as_the_mesh_wants_them(mesh: LiveMesh) -> None:
    """PC-06: each of them can be kept from the wire, and the host before a rewrite kept on it."""
    await mesh.apply(
        MESH % "{proxyHeaders: {server: {value: shop}, requestId: {disabled: true}, "
        "attemptCount: {disabled: true}, envoyDebugHeaders: {disabled: true}, "
        "xForwardedHost: {enabled: true}, xForwardedPort: {enabled: true}}}"
    )
    await answered_by(mesh, "shop")

    async def has_no_id() -> bool:  # the other sidecar takes the change over in its own time
        return "x-request-id" not in (await ask(mesh)).seen

    await eventually(has_no_id)
    reply = await ask(mesh, "/renamed")
    assert not {"x-request-id", "x-envoy-attempt-count"} & reply.seen.keys()
    assert (reply.seen["host"], reply.seen["x-forwarded-host"]) == ("inside.example", "web")
    assert reply.seen["x-forwarded-port"] in ("80", "8080", "15006")
    assert "x-envoy-upstream-service-time" not in reply.headers


async def test_the_programs_own_server_header_passes(mesh: LiveMesh) -> None:
    """PC-06: with the header disabled the client sees who really answered."""
    await mesh.apply(MESH % "{proxyHeaders: {server: {disabled: true}}}")
    await answered_by(mesh, "aiohttp")


async def test_requests_may_not_last(mesh: LiveMesh) -> None:
    """PC-07: httpMaxStreamDuration ends requests that take longer."""
    await mesh.apply(
        MESH % "{proxyHeaders: {server: {value: brief}}, "
        "connectionSettings: {httpMaxStreamDuration: 0.3s}}"
    )
    await answered_by(mesh, "brief")
    assert (await ask(mesh, "/slow/0")).status == 200
    assert (await ask(mesh, "/slow/5")).status in (408, 504)


async def test_idle_connections_end(mesh: LiveMesh) -> None:
    """NM-14: a connection on which nobody speaks is closed after IDLE_TIMEOUT, not before."""
    await mesh.apply(MESH % "{}")
    made = mesh.workloads["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, ("10.96.0.10", TCP_PORT))
    reader, writer = await asyncio.open_connection(sock=made)
    began = loop.time()
    async with asyncio.timeout(15):
        assert await reader.read() == b""
    assert loop.time() - began >= IDLE_SECONDS * 0.9
    writer.close()
