"""
A workload that nobody wrote an entry for: its Envoy registers it, and others reach its program.

No part is modified or stands in for another: server, tokens, roots, bootstraps, Envoys.
"""

import asyncio
import json
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from workplace import CLOSED, Workplace, eventually, guarded, workplace

from pilothouse.demo.envoy import EnvoyProcess

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("joining"),
]
ADDRESS = "127.0.0.1"
GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: default}
spec:
  metadata: {labels: {app: web}}
  template: {serviceAccount: web}
"""


def calling(egress: int, port: int) -> str:
    """Return config by which the client reaches whoever is registered, at its port `egress`."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {egress}, name: tcp, protocol: TCP, targetPort: {port}}}]
  workloadSelector: {{labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: client, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: client}}}}
  egress:
  - port: {{number: {egress}, protocol: TCP, name: tcp}}
    bind: {ADDRESS}
    captureMode: NONE
    hosts: ["./web.internal"]
"""


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("r", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def program(port: int = 0) -> AsyncIterator[int]:
    """Run a program that greets; yield its port."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, ADDRESS, port) as server:
        yield server.sockets[0].getsockname()[1]


async def answer(port: int) -> bytes:
    """Say something at a port and return what is answered, nothing if nobody is there."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(ADDRESS, port)
        try:
            writer.write(b"whoever you are\n")
            return await reader.readline()
        finally:
            writer.close()


async def hosts(envoy: EnvoyProcess) -> int:
    """Return how many endpoints an Envoy has of the service."""
    listed = json.loads(await envoy.admin("/clusters?format=json"))["cluster_statuses"]
    return sum(
        len(each.get("host_statuses", ()))
        for each in listed
        if each["name"].endswith("web.internal")
    )


@pytest.mark.parametrize("variant", ["--delta", "--sotw"])
async def test_an_envoy_registers_its_program(folder: Path, variant: str) -> None:
    """WG-01: reached through mutual TLS while it runs, for the grace known, and then gone."""
    egress, port = free_port(), free_port()
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(program())
        config = (CLOSED, GROUP, guarded("web", ADDRESS, port, own), calling(egress, port))
        grace = timedelta(seconds=2)
        place = await stack.enter_async_context(
            workplace(folder, *config, workload_entry_grace=grace)
        )
        await place.write_token("web")
        await place.write_token("client")
        client = await stack.enter_async_context(place.envoy("client", variant, ip="127.0.0.2"))
        await client.wait_ready()
        assert await hosts(client) == 0
        async with place.envoy("web", variant, "--auto-register-group", "web") as web:
            await web.wait_ready()
            assert await eventually(lambda: answer(egress)) == b"hello whoever you are\n"
            handshakes = await web.stats("ssl.handshake")
            assert sum(handshakes.values()) > 0, "callers verify it as the template's account"
            (shown,) = await place.server.json("/debug/registrations")
            assert shown["from"] == "WorkloadGroup default/web"
        await place.server.until("/debug/registrations", lambda f: "leaves_in_seconds" in f[0])
        assert await hosts(client) == 1
        await place.server.until("/debug/registrations", lambda f: not f)
        await eventually(lambda: has_none(client))
        assert await is_cut_off(egress)
        async with place.envoy("web", variant, "--auto-register-group", "web"):
            assert await eventually(lambda: answer(egress)) == b"hello whoever you are\n"
        assert not list(place.server.plane.streams.rejected())


async def is_cut_off(port: int) -> bool:
    try:
        return await answer(port) == b""
    except ConnectionError:
        return True


async def has_none(envoy: EnvoyProcess) -> bool:
    return await hosts(envoy) == 0


async def test_an_envoy_waits_for_its_group(folder: Path) -> None:
    """WG-01: refused while there is none, it comes again by itself."""
    async with workplace(folder, CLOSED) as place:
        await place.write_token("web")
        async with place.envoy("web", "--auto-register-group", "web") as web:
            await eventually(lambda: is_refused(place))
            assert not len(place.server.plane.streams)
            (folder / "mesh" / "group.yaml").write_text(GROUP)
            await web.wait_ready()
            (shown,) = await place.server.json("/debug/registrations")
            assert shown["entry"] == "default/web-127.0.0.1"


@asynccontextmanager
async def agent(place: Workplace, path: Path, *options: str | Path) -> AsyncIterator[None]:
    """Run our agent for the workload, its secrets at a path."""
    with (place.folder / "agent.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pilothouse", "agent", "--control-plane", place.target),
            *("--token-file", str(place.token_file("web")), "--sds-socket", str(path)),
            *("--root-cert-file", str(place.root_file), "--name", "web-1", "--ip", ADDRESS),
            *map(str, options),
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0


async def test_an_agent_probes_the_program(folder: Path) -> None:
    """WG-03, GN-06: no traffic before the program answers, nor after it has ended."""
    egress, port, own = free_port(), free_port(), free_port()
    probed = (
        f"{GROUP}  probe: {{periodSeconds: 1, timeoutSeconds: 20, tcpSocket: {{port: {own}}}}}\n"
    )
    config = (CLOSED, probed, guarded("web", ADDRESS, port, own), calling(egress, port))
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(workplace(folder, *config))
        await place.write_token("web")
        await place.write_token("client")
        client = await stack.enter_async_context(place.envoy("client", ip="127.0.0.2"))
        await client.wait_ready()
        path = folder / "sds"
        options = ("--certificates", "agent", "--sds-socket", str(path))
        # Written before, as the agent reads it; the Envoy that is run has the same.
        (folder / "group.yaml").write_text(probed)
        await place.write_bootstrap("web", *options, "--auto-register-group", "web")
        files = ("--bootstrap", folder / "web" / "envoy.json")
        await stack.enter_async_context(
            agent(place, path, *files, "--workload-group", folder / "group.yaml")
        )
        web = place.envoy("web", *options, "--auto-register-group", "web")
        await stack.enter_async_context(web)
        await eventually(lambda: is_probed(place))
        (shown,) = await place.server.json("/debug/registrations")
        assert (shown["health"], "Refused" in shown["problem"]) == ("unhealthy", True)
        assert list(shown["proxies"].values()) == [1], "the agent's own stream does not count"
        assert await hosts(client) == 0
        async with program(own):
            assert await eventually(lambda: answer(egress)) == b"hello whoever you are\n"
            assert await hosts(client) == 1
        await eventually(lambda: has_none(client))
        (shown,) = await place.server.json("/debug/registrations")
        assert shown["health"] == "unhealthy"


async def is_probed(place: Workplace) -> bool:
    found = await place.server.json("/debug/registrations")
    return bool(found) and "health" in found[0]


async def is_refused(place: Workplace) -> bool:
    found = await place.server.json("/debug/findings")
    return "RegistrationRefused" in {each["code"] for each in found}
