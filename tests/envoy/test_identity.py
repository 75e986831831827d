"""
Stock Envoys that get their identity from here, started with what our own commands write.

No part is modified or stands in for another: server, tokens, roots, bootstrap, agent, Envoy.
"""

import asyncio
import json
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
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
from pilothouse.model.inputs import WORKLOAD_CERTIFICATES
from pilothouse.model.resource import SDS

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("identity"),
]
WEB = "spiffe://cluster.local/ns/default/sa/web"
ADDRESS = "127.0.0.1"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("i", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


async def shown(envoy: EnvoyProcess) -> set[str]:
    """Return the names in the certificates an Envoy holds."""
    listed = json.loads(await envoy.admin("/certs"))["certificates"]
    return {
        name["uri"]
        for entry in listed
        for leaf in entry["cert_chain"]
        for name in leaf["subject_alt_names"]
    }


async def secrets(envoy: EnvoyProcess) -> dict[str, Any]:
    """Return the secrets an Envoy holds, by name, as its config dump shows them."""
    dump = json.loads(await envoy.admin("/config_dump"))
    section = next(each for each in dump["configs"] if each["@type"].endswith("SecretsConfigDump"))
    return {each["name"]: each["secret"] for each in section.get("dynamic_active_secrets", ())}


@pytest.mark.parametrize("variant", ["--delta", "--sotw"])
async def test_an_envoy_with_a_token_needs_nothing_else(
    folder: Path, port: int, variant: str
) -> None:
    """D-A-7: `default` and `ROOTCA` over ADS; it serves under STRICT; no key is shown anywhere."""
    async with workplace(folder, CLOSED, guarded("web", ADDRESS, port)) as place:
        await place.write_token("web")
        await place.write_token("client")
        client = await place.client_context("client")
        async with place.envoy("web", variant) as envoy:
            await envoy.wait_ready()
            answer = await eventually(lambda: handshake(client, ADDRESS, port))
            assert identity_of(answer) == WEB
            assert await shown(envoy) == {WEB}
            assert {"default", "ROOTCA"} <= (await secrets(envoy)).keys()
            stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            stranger.check_hostname = False
            stranger.verify_mode = ssl.CERT_NONE
            stranger.set_alpn_protocols(["istio"])
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await say_something(stranger, port)
            await no_key_is_shown(place)
        assert not list(place.server.plane.streams.rejected())


async def test_two_envoys_with_tokens_trust_each_other(folder: Path, port: int) -> None:
    """S-PA-11: one with its key from here, one with an agent; a bare client is turned away."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        await writer.drain()
        writer.close()

    async def answer(where: int) -> bytes:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(ADDRESS, where)
            try:
                writer.write(b"whoever you are\n")  # longer than the head of a TLS record
                return await reader.readline()
            finally:
                writer.close()

    with socket.create_server((ADDRESS, 0)) as probe:
        egress = int(probe.getsockname()[1])
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(await asyncio.start_server(greet, ADDRESS, 0))
        own = program.sockets[0].getsockname()[1]
        config = (CLOSED, guarded("web", ADDRESS, port, own), calling("client", egress, port))
        place = await stack.enter_async_context(workplace(folder, *config))
        await place.write_token("web")
        await place.write_token("client")
        web = await stack.enter_async_context(place.envoy("web"))
        path = await stack.enter_async_context(agent(place, "client"))
        options = ("--certificates", "agent", "--sds-socket", str(path))
        client = await stack.enter_async_context(place.envoy("client", *options))
        await web.wait_ready()
        await client.wait_ready()
        assert await eventually(lambda: answer(egress)) == b"hello whoever you are\n"
        handshakes = await web.stats("ssl.handshake")
        assert sum(handshakes.values()) > 0
        assert await refused(answer(port))


async def refused(answer: Awaitable[bytes]) -> bool:
    try:
        return await answer == b""
    except ConnectionError:
        return True


async def say_something(context: ssl.SSLContext, port: int) -> None:
    # With TLS 1.3 a client learns only after its own part that its certificate was missed.
    reader, writer = await asyncio.open_connection(
        ADDRESS, port, ssl=context, server_hostname="web"
    )
    try:
        writer.write(b"hello\n")
        await writer.drain()
        if not await reader.read(1):
            raise ConnectionError("closed")
    finally:
        writer.close()


async def no_key_is_shown(place: Workplace) -> None:
    (row,) = place.server.plane.graph.store(WORKLOAD_CERTIFICATES).rows.values()
    key = row.key_pem.decode().splitlines()[1]
    for path in (
        "/debug/config_dump?proxyID=web-1.default",
        "/debug/syncz",
        "/debug/findings",
        "/debug/graph",
        "/metrics",
    ):
        status, text = await place.server.get(path)
        assert status == 200
        assert key not in text
        assert "PRIVATE KEY" not in text
    _, dump = await place.server.get("/debug/config_dump?proxyID=web-1.default")
    assert "W3JlZGFjdGVkXQ==" in dump  # "[redacted]", as Envoy writes it
    method = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
    async with grpc.aio.insecure_channel(str(place.server.ports.grpc)) as channel:
        opened: Any = channel
        status = await opened.unary_unary(method)(b"")
    assert SDS.encode() in status
    assert b"default" in status
    assert key.encode() not in status


async def test_certificates_are_renewed_without_a_restart(folder: Path, port: int) -> None:
    """D-A-4: at half of their life; what is served changes under a running Envoy."""
    config = (CLOSED, guarded("web", ADDRESS, port))
    async with workplace(folder, *config, workload_cert_ttl=timedelta(seconds=6)) as place:
        await place.write_token("web")
        async with place.envoy("web") as envoy:
            await envoy.wait_ready()
            serials = set[int]()

            async def is_renewed() -> bool:
                client = await place.client_context("web")
                serials.add((await handshake(client, ADDRESS, port)).serial_number)
                return len(serials) >= 3

            await eventually(is_renewed)
        assert not list(place.server.plane.streams.rejected())


async def test_a_restarted_server_issues_anew(folder: Path, port: int) -> None:
    """Keys are kept nowhere; meanwhile Envoy serves by what it has, and it refuses nothing."""
    config = (CLOSED, guarded("web", ADDRESS, port))
    async with AsyncExitStack() as envoys:
        async with workplace(folder, *config) as place:
            address = place.server.ports.secure_grpc
            await place.write_token("web")
            await place.write_token("client")
            client = await place.client_context("client")
            envoy = await envoys.enter_async_context(place.envoy("web"))
            await envoy.wait_ready()
            first = await eventually(lambda: handshake(client, ADDRESS, port))
        assert await handshake(client, ADDRESS, port) == first
        async with workplace(folder, *config, secure_grpc_addr=address) as again:

            async def is_another() -> bool:
                return await handshake(client, ADDRESS, port) != first

            await eventually(is_another)
            assert not list(again.server.plane.streams.rejected())
        rejected = await envoy.stats("update_rejected")
        assert sum(rejected.values()) == 0


async def test_token_and_roots_are_read_again(folder: Path, port: int) -> None:
    """A running Envoy takes over what replaces a wrong root, a missing and a revoked token."""
    async with workplace(folder, guarded("web", ADDRESS, port)) as place:
        right = place.root_file.read_bytes()
        place.root_file.write_bytes(_other_root())
        async with place.envoy("web") as envoy:
            await eventually(lambda: failed_handshakes(envoy))
            draft = folder / "roots-draft"
            draft.write_bytes(right)
            draft.replace(place.root_file)
            await eventually(lambda: refused_streams(place))
            first = await place.write_token("web")
            await envoy.wait_ready()
            await eventually(lambda: shown(envoy))
            await place.run("token", "revoke", "--ca-dir", place.ca_dir, first)
            await eventually(lambda: is_gone(place))
            await place.write_token("web")
            await eventually(lambda: is_back(place))


def _other_root() -> bytes:
    from key_pairs import pair  # noqa: PLC0415

    return pair("other").chain


async def failed_handshakes(envoy: EnvoyProcess) -> int:
    found = await envoy.stats("cluster.xds-grpc.*(fail_verify|connection_error|connect_fail)")
    return sum(found.values())


async def refused_streams(place: Workplace) -> bool:
    _, text = await place.server.get("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("pilothouse_xds_streams_refus")]
    return any(float(line.rpartition(" ")[2]) for line in lines)


async def is_gone(place: Workplace) -> bool:
    return len(place.server.plane.streams) == 0


async def is_back(place: Workplace) -> bool:
    return len(place.server.plane.streams) == 1


async def test_a_token_is_good_for_its_own_workload_only(folder: Path, port: int) -> None:
    """C-A-8: an Envoy that says it is another gets neither config nor a secret."""
    async with workplace(folder, guarded("web", ADDRESS, port)) as place:
        await place.write_token("other")
        shutil.copy(place.token_file("other"), place.token_file("web"))
        async with place.envoy("web") as envoy:
            await eventually(lambda: refused_streams(place))
            assert await shown(envoy) == set()
        assert not place.server.plane.graph.store(WORKLOAD_CERTIFICATES).rows


@asynccontextmanager
async def agent(place: Workplace, account: str, *options: str) -> AsyncIterator[Path]:
    """Run our agent for an account; yield the socket it serves."""
    path = place.folder / "sds"
    with (place.folder / "agent.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pilothouse", "agent", "--control-plane", place.target),
            *("--token-file", str(place.token_file(account)), "--sds-socket", str(path)),
            *("--root-cert-file", str(place.root_file), "--name", f"{account}-1"),
            *options,
            stdout=log,
            stderr=log,
        )
        try:
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0


async def test_an_agent_keeps_the_key_on_its_host(folder: Path, port: int) -> None:
    """D-A-1 to D-A-4: Envoy proves itself with the agent's certificate; renewed in time."""
    async with workplace(folder, CLOSED, guarded("web", ADDRESS, port)) as place:
        await place.write_token("web")
        await place.write_token("client")
        client = await place.client_context("client")
        async with agent(place, "web", "--ttl", "6s") as path:
            options = ("--certificates", "agent", "--sds-socket", str(path))
            async with place.envoy("web", *options) as envoy:
                await envoy.wait_ready()
                serials = set[int]()

                async def is_renewed() -> x509.Certificate | None:
                    answer = await handshake(client, ADDRESS, port)
                    serials.add(answer.serial_number)
                    return answer if len(serials) >= 2 else None

                answer = await eventually(is_renewed)
                assert identity_of(answer) == WEB
        assert not place.server.plane.graph.store(WORKLOAD_CERTIFICATES).rows
        log = (folder / "agent.log").read_text()
        assert "PRIVATE" not in log
        assert place.token_file("web").read_text().strip() not in log


async def test_an_agent_hears_of_new_roots_at_once(folder: Path, port: int) -> None:
    """Roots come over the agent's own discovery stream, not with the next certificate."""
    async with workplace(folder, CLOSED, guarded("web", ADDRESS, port)) as place:
        await place.write_token("web")
        async with agent(place, "web") as path:
            options = ("--certificates", "agent", "--sds-socket", str(path))
            async with place.envoy("web", *options) as envoy:
                await envoy.wait_ready()
                await eventually(lambda: root_count(envoy, 1))
                await place.run("ca", "rotate", "--ca-dir", place.ca_dir)
                await eventually(lambda: root_count(envoy, 2))


async def root_count(envoy: EnvoyProcess, wanted: int) -> bool:
    import base64  # noqa: PLC0415

    found = (await secrets(envoy)).get("ROOTCA")
    if found is None:
        return False
    pem = base64.b64decode(found["validation_context"]["trusted_ca"]["inline_bytes"])
    return pem.count(b"BEGIN CERTIFICATE") == wanted
