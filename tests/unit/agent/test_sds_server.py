"""The agent's socket: what is given, when, and to whom not (D-A-1 to D-A-4)."""

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from key_pairs import pair

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilothouse.agent.identity import BadAnswer, HeldIdentity, Trust
from pilothouse.agent.keys import KeyKind, SigningRequest
from pilothouse.agent.renewal import Renewal
from pilothouse.agent.sds_server import SERVICE, SdsServer, somebody_listens
from pilothouse.agent.secrets import AgentSecrets
from pilothouse.certs.authority import Authority
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import SDS

WEB = WorkloadIdentity("cluster.local", "shop", "web")


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A socket's path that is short enough."""
    folder = tmp_path_factory.mktemp("a")
    yield folder / "run" / "socket"
    shutil.rmtree(folder, ignore_errors=True)


def answer(lifetime: timedelta = timedelta(hours=1)) -> tuple[tuple[str, ...], bytes]:
    """What an authority answers to a request, and the key it is for."""
    now = datetime.now(UTC)
    made = SigningRequest(KeyKind.ECDSA_P256)
    authority = Authority.create("cluster.local", now)
    chain = authority.sign_csr(made.csr_pem, WEB, now, lifetime=lifetime)
    return tuple(each.decode() for each in chain.elements), made.key_pem


def held() -> HeldIdentity:
    elements, key_pem = answer()
    return HeldIdentity.read(elements, key_pem, datetime.now(UTC))


class Stream:
    """An Envoy's stream for some names."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, *names: str, nonce: str = "") -> None:
        request = DiscoveryRequest(type_url=SDS, resource_names=names, response_nonce=nonce)
        await self._call.write(request.SerializeToString())

    async def next(self) -> tuple[dict[str, Secret], str]:
        async with asyncio.timeout(10):
            data = await self._call.read()
        got = DiscoveryResponse.FromString(data)
        secrets = [Secret.FromString(each.value) for each in got.resources]
        return {each.name: each for each in secrets}, got.nonce


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[AgentSecrets, grpc.aio.Channel]]:
    secrets = AgentSecrets()
    server = SdsServer(secrets, path)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            yield secrets, channel
    finally:
        await server.stop()


def stream(channel: Any) -> Stream:
    return Stream(channel.stream_stream(f"/{SERVICE}/StreamSecrets")())


async def test_secrets_come_when_there_are_some_and_again_when_they_change(path: Path) -> None:
    """D-A-3, D-A-4: who asks early waits; an ACK is not answered."""
    async with served(path) as (secrets, channel):
        envoy, other = stream(channel), stream(channel)
        await envoy.ask("default")
        first = held()
        await secrets.show(first)
        got, nonce = await envoy.next()
        assert got["default"].tls_certificate.private_key.inline_bytes == first.key_pem
        await envoy.ask("default", nonce=nonce)
        await other.ask("ROOTCA")
        got, _ = await other.next()
        assert got["ROOTCA"].validation_context.trusted_ca.inline_bytes == first.trust.roots_pem
        await secrets.show(second := held())
        got, _ = await envoy.next()
        assert got["default"].tls_certificate.private_key.inline_bytes == second.key_pem
        got, _ = await other.next()
        assert got["ROOTCA"].validation_context.trusted_ca.inline_bytes == second.trust.roots_pem


async def test_only_one_way_to_ask(path: Path) -> None:
    """D-A-2."""
    async with served(path) as (_, channel):
        any_channel: Any = channel
        for method in ("DeltaSecrets", "FetchSecrets"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await any_channel.unary_unary(f"/{SERVICE}/{method}")(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        call = any_channel.stream_stream(f"/{SERVICE}/StreamSecrets")()
        await call.write(DiscoveryRequest(type_url="other").SerializeToString())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_files_are_read_for_their_names(path: Path) -> None:
    """D-A-3: and again when they change; what cannot be read is waited for."""
    chain, key = path.parent.parent / "c.pem", path.parent.parent / "k.pem"
    made = pair()
    async with served(path) as (_, channel):
        envoy, other = stream(channel), stream(channel)
        await envoy.ask(f"file-cert:{chain}~{key}")
        chain.write_bytes(made.chain)
        key.write_bytes(made.key)
        got, _ = await envoy.next()
        assert got[f"file-cert:{chain}~{key}"].tls_certificate.private_key.inline_bytes == made.key
        await other.ask(f"file-root:{chain}")
        got, _ = await other.next()
        trusted = got[f"file-root:{chain}"].validation_context.trusted_ca.inline_bytes
        assert trusted == made.chain


async def test_the_socket_is_not_for_everybody(path: Path) -> None:
    """And what a killed agent left is replaced; a living provider is noticed (D-A-1)."""
    path.parent.mkdir()
    path.touch()  # noqa: ASYNC240 (a test)
    assert not somebody_listens(path)
    async with served(path):
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0  # noqa: ASYNC240
        assert somebody_listens(path)


@pytest.mark.parametrize("elements", [(), ("x",), ("x", "y")])
def test_an_odd_answer_is_refused(elements: tuple[str, ...]) -> None:
    """C-W-3: at least a leaf and the roots."""
    with pytest.raises(BadAnswer):
        HeldIdentity.read(elements, b"", datetime.now(UTC))


def test_keys_are_never_shown() -> None:
    assert "PRIVATE" not in repr(held())
    assert "CERTIFICATE" not in repr(held())


class FlakyClient:
    """An authority that is away at first; its certificates live two seconds."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[bool] = []

    async def create_certificate(
        self, csr_pem: bytes, lifetime: timedelta, proof: HeldIdentity | None
    ) -> tuple[str, ...]:
        self.asked.append(proof is not None)
        if self.failures:
            self.failures -= 1
            raise BadAnswer("not yet")
        now = datetime.now(UTC)
        authority = Authority.create("cluster.local", now)
        chain = authority.sign_csr(csr_pem, WEB, now, lifetime=lifetime)
        return tuple(each.decode() for each in chain.elements)

    async def follow_trust(self, _held: HeldIdentity) -> AsyncIterator[Trust]:
        yield Trust(b"the roots", b"the revocations")
        await asyncio.Event().wait()


async def test_revocations_stay_when_the_certificate_is_renewed() -> None:
    """They come by the stream only, so an answer without them takes none away (C-R-8)."""
    client, secrets = FlakyClient(0), AgentSecrets()
    renewal = Renewal(
        client,  # type: ignore[arg-type]  # a double
        secrets,
        key_kind=KeyKind.ECDSA_P256,
        lifetime=timedelta(seconds=2),
        clock=lambda: datetime.now(UTC),
    )

    def crl() -> bytes:
        found = secrets.get("ROOTCA")
        return Secret.FromString(found.data).validation_context.crl.inline_bytes if found else b""

    tasks = [asyncio.create_task(each) for each in (renewal.run(), renewal.follow_trust())]
    try:
        async with asyncio.timeout(20), secrets.changed:
            await secrets.changed.wait_for(crl)
            first = secrets.get("default")
            await secrets.changed.wait_for(lambda: secrets.get("default") != first)
            assert crl() == b"the revocations"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_absent_authority_is_asked_again_and_renewal_follows() -> None:
    """G-9, D-A-4: the new certificate is asked for with the old one."""
    client, secrets = FlakyClient(2), AgentSecrets()
    renewal = Renewal(
        client,  # type: ignore[arg-type]  # a double
        secrets,
        key_kind=KeyKind.ECDSA_P256,
        lifetime=timedelta(seconds=2),
        clock=lambda: datetime.now(UTC),
    )
    task = asyncio.create_task(renewal.run())
    try:
        async with asyncio.timeout(20):
            await renewal.obtained.wait()
            first = secrets.get("default")
            async with secrets.changed:
                await secrets.changed.wait_for(lambda: secrets.get("default") != first)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert client.asked == [False, False, False, True]
