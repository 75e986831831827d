"""When an agent renews early: another root signs, told by the order of the mesh's roots."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from pilothouse.agent.identity import HeldIdentity, Trust
from pilothouse.agent.keys import KeyKind
from pilothouse.agent.renewal import Renewal
from pilothouse.agent.secrets import AgentSecrets, Asked
from pilothouse.certs.authority import Authority
from pilothouse.model.credentials import WORKLOAD
from pilothouse.model.identity import WorkloadIdentity

WEB = WorkloadIdentity("cluster.local", "shop", "web")
NOW = datetime.now(UTC)
OLD, NEW, OTHER = (Authority.create("cluster.local", NOW) for _ in range(3))


def bundle(*authorities: Authority) -> bytes:
    return b"".join(each.root_pem for each in authorities)


class ControlPlane:
    """Signs with one root, whatever it tells of the order."""

    def __init__(self, signer: Authority) -> None:
        self.signer = signer
        self.roots_pem = bundle(signer)
        self.asked = 0
        self.streams: list[HeldIdentity] = []
        self._changed = asyncio.Event()

    async def create_certificate(
        self, csr_pem: bytes, _lifetime: timedelta, _held: HeldIdentity | None
    ) -> tuple[str, ...]:
        self.asked += 1
        chain = self.signer.sign_csr(csr_pem, WEB, datetime.now(UTC))
        return (*(each.decode() for each in chain.elements[:-1]), self.roots_pem.decode())

    async def follow_trust(self, held: HeldIdentity) -> AsyncIterator[Trust]:
        self.streams.append(held)
        while True:
            self._changed.clear()
            yield Trust(self.roots_pem)
            await self._changed.wait()

    def tell(self, *authorities: Authority) -> None:
        self.roots_pem = bundle(*authorities)
        self._changed.set()


@asynccontextmanager
async def renewing(
    plane: ControlPlane, spread: timedelta = timedelta()
) -> AsyncIterator[AgentSecrets]:
    secrets = AgentSecrets()
    renewal = Renewal(
        plane,  # type: ignore[arg-type]  # what is needed of it
        secrets,
        key_kind=KeyKind.ECDSA_P256,
        lifetime=timedelta(),
        clock=lambda: datetime.now(UTC),
        spread=spread,
    )
    running = [asyncio.create_task(each) for each in (renewal.run(), renewal.follow_trust())]
    try:
        await until(lambda: bool(plane.streams))
        yield secrets
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def settled() -> None:
    """Let everything happen that does not wait for anything."""
    await asyncio.sleep(0.2)


async def test_another_root_to_trust_is_no_reason_to_renew() -> None:
    plane = ControlPlane(OLD)
    async with renewing(plane):
        plane.tell(OLD, NEW)
        await settled()
        assert plane.asked == 1


async def test_another_root_that_signs_is_a_reason() -> None:
    """And the stream is opened anew with the new certificate, which shows that it arrived."""
    plane = ControlPlane(OLD)
    async with renewing(plane):
        plane.tell(OLD, NEW)
        plane.signer = NEW
        plane.tell(NEW, OLD)
        await until(lambda: plane.asked == 2 and len(plane.streams) == 2)
        plane.tell(NEW)
        await settled()
        assert plane.asked == 2
        first, second = plane.streams
        assert (first.root, second.root) == (Trust(bundle(OLD)).signer, Trust(bundle(NEW)).signer)


async def test_an_authority_that_orders_roots_otherwise_is_asked_once_per_change() -> None:
    """Its first root is not the one that signs: a renewal that did not help is not repeated."""
    plane = ControlPlane(OLD)
    async with renewing(plane):
        plane.tell(OTHER, OLD)
        await until(lambda: plane.asked == 2)
        await settled()
        assert plane.asked == 2
        plane.tell(NEW, OTHER, OLD)
        await until(lambda: plane.asked == 3)
        await settled()
        assert plane.asked == 3


async def test_renewals_are_spread() -> None:
    """All agents of a mesh hear of it in the same moment."""
    plane = ControlPlane(OLD)
    async with renewing(plane, spread=timedelta(hours=10**4)):
        plane.signer = NEW
        plane.tell(NEW, OLD)
        await settled()
        assert plane.asked == 1


async def test_the_stream_changes_over_when_proxies_have_the_certificate() -> None:
    """Before that the one before is in use, and the control plane has to know."""
    plane = ControlPlane(OLD)
    async with renewing(plane) as secrets:
        proxy = Asked()
        proxy.names = (WORKLOAD,)
        plane.signer = NEW
        plane.tell(NEW, OLD)
        before = secrets.get(WORKLOAD)
        assert before is not None
        proxy.accepted = {WORKLOAD: before.version}
        secrets.streams.add(proxy)
        await until(lambda: plane.asked == 2)
        await settled()
        assert len(plane.streams) == 1
        now = secrets.get(WORKLOAD)
        assert now is not None
        proxy.accepted = {WORKLOAD: now.version}
        async with secrets.changed:
            secrets.changed.notify_all()
        await until(lambda: len(plane.streams) == 2)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_roots_that_cannot_be_read_tell_no_signer(text: bytes) -> None:
    assert Trust(text).signer == ""
