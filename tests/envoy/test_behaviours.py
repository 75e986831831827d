"""
How connections to destinations are pooled, balanced, limited and upgraded, by real sidecars.

One mesh serves all tests; each writes the one file of config that it is about.
"""

import asyncio
import re
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc_echo
import isolation
import pytest
import pytest_asyncio
from aiohttp import web
from live_mesh import LiveMesh, Reply, eventually
from self_signed import self_signed
from web_mesh import SUBSETS, entry, service

from pilothouse.demo.process import ChildProcess

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("behaviours"),
]

ADDRESSES = {
    "client": "10.244.77.11",
    "web-v1": "10.244.77.12",
    "web-v2": "10.244.77.13",
}
WEB = "http://10.96.0.10"
SOCKETS_PORT = 8081
GRPC_PORT = 8082

BASE = "---".join(
    [
        service(
            "web",
            "10.96.0.10",
            "{name: http, port: 80, targetPort: 8080}",
            f"{{name: http-sockets, port: 81, targetPort: {SOCKETS_PORT}}}",
            f"{{name: grpc, port: 82, targetPort: {GRPC_PORT}}}",
            "{name: tcp, port: 9000}",
        ),
        SUBSETS,
        entry("web-v1", ADDRESSES["web-v1"], {"app": "web", "version": "v1"}),
    ]
)
SECOND = entry("web-v2", ADDRESSES["web-v2"], {"app": "web", "version": "v2"})
POLICY = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: policy, namespace: default}
spec:
  host: web.default.svc.cluster.local
  trafficPolicy: %s
"""
ONE_TRY = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http: [{retries: {attempts: 0}, route: [{destination: {host: web}}]}]
"""
WEIGHTS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  %s:
    - route:
        - {destination: {host: web, subset: v1}, weight: %d}
        - {destination: {host: web, subset: v2}, weight: %d}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveMesh]:
    """The mesh of this file."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as mesh:
        await mesh.control.apply(BASE, "base.yaml")
        await mesh.control.apply(SECOND, "second.yaml")
        for name, address in ADDRESSES.items():
            app, _, version = name.partition("-")
            await mesh.add(name, address, {"app": app, "version": version or "v1"}, tls)
        mesh.probe = ("client", WEB, "web")
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(whole: LiveMesh) -> AsyncIterator[LiveMesh]:
    """The mesh with no config but its services, before and after; all programs work."""
    yield whole
    for workload in whole.workloads.values():
        workload.program.is_broken = False
    await whole.control.apply(SECOND, "second.yaml")
    await whole.control.delete("test.yaml")
    await whole.settled()


async def ask(mesh: LiveMesh, path: str = "/", **options: object) -> Reply:
    """Ask the web service as the client's program would."""
    return await mesh.workloads["client"].request(f"{WEB}{path}", host="web", **options)


async def answers(mesh: LiveMesh, count: int, path: str = "/", **options: object) -> Counter[str]:
    """Return how often each program (or status, if none) answered."""
    replies = [await ask(mesh, path, **options) for _ in range(count)]
    return Counter(map(named, replies))


def named(reply: Reply) -> str:
    return reply.by if reply.status == 200 else str(reply.status)


async def counted(mesh: LiveMesh, name: str, port: int = 80) -> int:
    """Return a statistic of the client's cluster of the web service."""
    pattern = re.compile(rf"cluster\.outbound.{port}..web.*\.{name}")
    found = await mesh.workloads["client"].envoy.stats(f"{name}$")
    return sum(value for key, value in found.items() if pattern.fullmatch(key))


@asynccontextmanager
async def load(mesh: LiveMesh) -> AsyncIterator[Counter[str]]:
    """Keep four requests in flight; yields who answered so far."""
    found: Counter[str] = Counter()
    stop = asyncio.Event()

    async def one() -> None:
        while not stop.is_set():
            found[named(await ask(mesh))] += 1

    tasks = [asyncio.create_task(one()) for _ in range(4)]
    try:
        yield found
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def test_a_failing_endpoint_is_ejected(mesh: LiveMesh) -> None:
    """DR-40, DR-41: after two failures nobody asks it; the last half is never ejected."""
    await mesh.apply(
        POLICY
        % "{outlierDetection: {consecutive5xxErrors: 2, interval: 0.1s, baseEjectionTime: 60s, "
        "maxEjectionPercent: 50}}" + ONE_TRY
    )
    broken = mesh.workloads["web-v1"].program
    broken.is_broken = True

    async def is_ejected() -> bool:
        return await answers(mesh, 10) == {"web-v2": 10}

    await eventually(is_ejected)
    assert await counted(mesh, "outlier_detection.ejections_active") == 1
    mesh.workloads["web-v2"].program.is_broken = True
    replies = [await ask(mesh) for _ in range(10)]
    assert {(reply.status, reply.by) for reply in replies} == {(503, "web-v2")}


async def test_an_ejected_endpoint_returns(mesh: LiveMesh) -> None:
    """DR-41: after its time."""
    await mesh.apply(
        POLICY
        % "{outlierDetection: {consecutive5xxErrors: 1, interval: 0.1s, baseEjectionTime: 0.3s, "
        "maxEjectionPercent: 50}}" + ONE_TRY
    )
    mesh.workloads["web-v1"].program.is_broken = True

    async def was_ejected() -> bool:
        await ask(mesh)
        return await counted(mesh, "outlier_detection.ejections_active") == 1

    await eventually(was_ejected)
    mesh.workloads["web-v1"].program.is_broken = False

    async def is_back() -> bool:
        return (await answers(mesh, 10)).keys() == {"web-v1", "web-v2"}

    await eventually(is_back)


async def test_more_than_the_limits_is_refused_at_once(mesh: LiveMesh) -> None:
    """DR-30, DR-35: one connection, one waiting; the others hear 503 that says why."""
    await mesh.apply(
        POLICY % "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}"
        + ONE_TRY
    )
    replies = await asyncio.gather(*(ask(mesh, "/slow/0.5") for _ in range(8)))
    refused = [reply for reply in replies if reply.status == 503]
    assert len(refused) >= 5
    assert all(reply.headers["x-envoy-overloaded"] == "true" for reply in refused)
    assert all(reply.seconds < 0.5 for reply in refused)
    assert Counter(reply.status for reply in replies)[200] >= 1


async def test_tcp_connections_are_limited(mesh: LiveMesh) -> None:
    """DR-30: the second connection is closed; once the first has ended, another is served."""
    await mesh.apply(POLICY % "{connectionPool: {tcp: {maxConnections: 1}}}")
    client = mesh.workloads["client"]
    held = client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setblocking(False)
    await asyncio.get_running_loop().sock_connect(held, ("10.96.0.10", 9000))

    async def is_refused() -> bool:
        return await client.who_answers("10.96.0.10", 9000) == ""

    await eventually(is_refused)
    held.close()

    async def is_served() -> bool:
        return (await client.who_answers("10.96.0.10", 9000)).startswith("web")

    await eventually(is_served)


async def test_a_cookie_keeps_a_user_at_one_endpoint(mesh: LiveMesh) -> None:
    """DR-13: the sidecar makes the cookie; who brings it back meets the same endpoint."""
    await mesh.apply(
        POLICY % "{loadBalancer: {consistentHash: {httpCookie: {name: seat, ttl: 60s, path: /}}}}"
    )
    # Envoy makes the cookie from the connection, so on a kept one all newcomers get the same.
    for _ in range(12):
        first = await ask(mesh)
        cookie = first.headers["set-cookie"]
        assert re.match(r'seat="[0-9a-f]+"; Max-Age=60; Path=/', cookie)
        headers = {"cookie": cookie.partition(";")[0]}
        assert await answers(mesh, 4, headers=headers) == {first.by: 4}
    met = {(await ask(mesh, headers={"cookie": f"seat=user-{n}"})).by for n in range(60)}
    assert met == {"web-v1", "web-v2"}


async def test_a_source_address_keeps_a_client_at_one_endpoint(mesh: LiveMesh) -> None:
    """DR-13: HTTP and TCP alike."""
    await mesh.apply(POLICY % "{loadBalancer: {consistentHash: {useSourceIp: true}}}")
    assert len(await answers(mesh, 12)) == 1
    client = mesh.workloads["client"]
    assert len({await client.who_answers("10.96.0.10", 9000) for _ in range(12)}) == 1


async def test_maglev_keeps_users_too(mesh: LiveMesh) -> None:
    """DR-14: by a query parameter."""
    await mesh.apply(
        POLICY
        % "{loadBalancer: {consistentHash: {httpQueryParameterName: u, maglev: {tableSize: 101}}}}"
    )
    users = [await answers(mesh, 3, f"/?u={number}") for number in range(12)]
    assert all(len(each) == 1 for each in users)
    assert set().union(*users) == {"web-v1", "web-v2"}


async def test_round_robin_takes_turns(mesh: LiveMesh) -> None:
    """DR-10."""
    await mesh.apply(POLICY % "{loadBalancer: {simple: ROUND_ROBIN}}")
    assert await answers(mesh, 20) == {"web-v1": 10, "web-v2": 10}


async def test_tcp_connections_are_shared_out_by_weight(mesh: LiveMesh) -> None:
    """VS-46: 80 to 20 over 200 connections, within five standard deviations."""
    await mesh.apply(WEIGHTS % ("tcp", 80, 20))
    client = mesh.workloads["client"]
    found = Counter([await client.who_answers("10.96.0.10", 9000) for _ in range(200)])
    assert found.keys() == {"web-v1", "web-v2"}
    assert abs(found["web-v2"] - 40) < 5 * (200 * 0.2 * 0.8) ** 0.5


async def test_connections_serve_so_many_requests(mesh: LiveMesh) -> None:
    """DR-36: one request each, so as many connections as requests."""
    await mesh.apply(POLICY % "{connectionPool: {http: {maxRequestsPerConnection: 1}}}")
    before = await counted(mesh, "upstream_cx_total")
    await answers(mesh, 10)
    assert await counted(mesh, "upstream_cx_total") == before + 10


async def test_idle_connections_are_closed(mesh: LiveMesh) -> None:
    """DR-36: the pool is empty soon after the last request."""
    await mesh.apply(POLICY % "{connectionPool: {http: {idleTimeout: 0.3s}}}")
    await answers(mesh, 4)
    assert await counted(mesh, "upstream_cx_active") > 0

    async def is_empty() -> bool:
        return await counted(mesh, "upstream_cx_active") == 0

    await eventually(is_empty)


async def test_requests_are_upgraded_to_http2(mesh: LiveMesh) -> None:
    """DR-38: the client speaks HTTP/1.1, the sidecars HTTP/2 with each other."""
    await mesh.apply(POLICY % "{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}")
    before = await counted(mesh, "upstream_cx_http2_total")
    found = await answers(mesh, 10)
    assert found.keys() == {"web-v1", "web-v2"}
    assert await counted(mesh, "upstream_cx_http2_total") > before


async def test_websockets_pass(mesh: LiveMesh) -> None:
    """VS-42: the upgrade, and messages both ways."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            await connection.send_str(f"echo {message.data}")
        return connection

    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for name in ("web-v1", "web-v2"):
        namespace = mesh.workloads[name].namespace
        made = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((namespace.address, SOCKETS_PORT))
        made.listen()
        await web.SockSite(runner, made).start()
    client = mesh.workloads["client"].namespace
    try:
        async with (
            aiohttp.ClientSession(connector=client.connector()) as session,
            session.ws_connect(f"{WEB}:81/ws", headers={"host": "web:81"}) as connection,
        ):
            for word in ("one", "two"):
                await connection.send_str(word)
                assert (await connection.receive_str(timeout=10)) == f"echo {word}"
    finally:
        await runner.cleanup()


async def test_grpc_passes(mesh: LiveMesh, tmp_path: Path) -> None:
    """CL-06, LS-03: a call over HTTP/2 from end to end, without TLS."""
    script = str(Path(grpc_echo.__file__))
    children = []
    for name in ("web-v1", "web-v2"):
        where = mesh.workloads[name].namespace
        server = ChildProcess(
            f"grpc-{name}",
            [sys.executable, script, "serve", f"{where.address}:{GRPC_PORT}"],
            log_dir=tmp_path,
            netns=where.path,
        )
        await server.start()
        children.append(server)
    try:

        async def is_answered() -> bool:
            caller = ChildProcess(
                "grpc-call",
                [sys.executable, script, "call", "10.96.0.10:82"],
                log_dir=tmp_path,
                netns=mesh.workloads["client"].namespace.path,
            )
            await caller.start()
            await caller.wait()
            return "echo hello" in (tmp_path / "grpc-call.log").read_text()

        await eventually(is_answered)
        assert await counted(mesh, "upstream_cx_http2_total", 82) > 0
    finally:
        for child in children:
            await child.stop()


async def test_a_canary_grows_without_a_lost_request(mesh: LiveMesh) -> None:
    """VS-20, PU-08: from none to all in steps, under load."""
    await mesh.apply(WEIGHTS % ("http", 100, 0))
    async with load(mesh) as found:
        for share in range(0, 101, 10):
            await mesh.apply(WEIGHTS % ("http", 100 - share, share))
            seen = found.total()

            async def has_run(since: int = seen) -> bool:
                return found.total() > since + 20

            await eventually(has_run)
    assert found.keys() == {"web-v1", "web-v2"}, found
    assert await answers(mesh, 10) == {"web-v2": 10}


async def test_an_endpoint_goes_and_comes_without_a_lost_request(mesh: LiveMesh) -> None:
    """PU-08, K8-08: under load."""
    async with load(mesh) as found:
        for _ in range(5):
            await mesh.control.delete("second.yaml")
            await mesh.settled()
            await mesh.control.apply(SECOND, "second.yaml")
            await mesh.settled()
    assert found.keys() <= {"web-v1", "web-v2"}, found
    assert found.total() > 50
    await mesh.control.delete("second.yaml")
    await mesh.settled()
    assert await answers(mesh, 10) == {"web-v1": 10}


async def test_a_sidecar_hides_what_it_does_not_name(mesh: LiveMesh) -> None:
    """SC-02, SC-11: with REGISTRY_ONLY nothing else is reached."""
    await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: default}
spec:
  workloadSelector: {labels: {app: client}}
  egress: [{hosts: [istio-system/*]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
""")
    client = mesh.workloads["client"]
    for port in (9000, 80):

        async def is_closed(port: int = port) -> bool:
            return await client.who_answers("10.96.0.10", port) == ""

        await eventually(is_closed)


async def test_requests_are_retried_elsewhere(mesh: LiveMesh) -> None:
    """VS-31, VS-32: not unasked, as the request may have done something; asked, by the other."""
    mesh.workloads["web-v1"].program.is_broken = True
    assert (await answers(mesh, 20)).keys() == {"web-v2", "503"}
    await mesh.apply(ONE_TRY.replace("attempts: 0", "attempts: 2, retryOn: '503'"))
    assert await answers(mesh, 20) == {"web-v2": 20}


async def test_a_policy_is_for_its_port(mesh: LiveMesh) -> None:
    """DR-04: a hash on port 80 says nothing of port 9000."""
    await mesh.apply(
        POLICY % "{portLevelSettings: [{port: {number: 80}, loadBalancer: {consistentHash: "
        "{useSourceIp: true}}}]}"
    )
    assert len(await answers(mesh, 12)) == 1
    client = mesh.workloads["client"]
    assert len({await client.who_answers("10.96.0.10", 9000) for _ in range(30)}) == 2


async def test_what_comes_in_goes_where_the_sidecar_says(mesh: LiveMesh) -> None:
    """SC-06, SC-08: a port that the program does not serve leads to one that it does."""
    await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web, namespace: default}
spec:
  workloadSelector: {labels: {app: web}}
  ingress:
    - {port: {number: 8081, protocol: HTTP, name: http}, defaultEndpoint: "0.0.0.0:8080"}
    - {port: {number: 8080, protocol: HTTP, name: main}, defaultEndpoint: "0.0.0.0:8080"}
""")
    client = mesh.workloads["client"]

    async def is_led() -> bool:
        reply = await client.request(f"{WEB}:81/", host="web:81")
        return reply.by.startswith("web")

    await eventually(is_led)


async def test_limits_protect_the_program_too(mesh: LiveMesh) -> None:
    """SC-10: the receiving sidecar refuses what is more than its program may get."""
    await mesh.apply(
        """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web, namespace: default}
spec:
  workloadSelector: {labels: {app: web}}
  inboundConnectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}
"""
        + ONE_TRY
    )
    replies = await asyncio.gather(*(ask(mesh, "/slow/0.5") for _ in range(10)))
    statuses = Counter(reply.status for reply in replies)
    assert statuses.keys() == {200, 503}
    assert statuses[503] >= 4
