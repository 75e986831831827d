"""A credential must count when a certificate is signed, not only when the call was opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from certificates import ALICE, NOW, csr, make_chain

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.authority import Authority, LocalIssuer
from pilothouse.certs.callers import OPAQUE, Caller, How, NotAuthenticated
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.refusals import Refusal
from pilothouse.certs.service import METHOD, SERVICE, CertificateService

AUTHORITY = Authority(make_chain(NOW, intermediates=0))
REQUEST = ca_pb2.IstioCertificateRequest(csr=csr().decode()).SerializeToString()


class Silent:
    """An observer that remembers for how many certificates were signed."""

    def __init__(self) -> None:
        self.issued_count = 0

    def requested(self) -> None:
        pass

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        assert chain.leaf_pem
        assert caller.identity == ALICE
        self.issued_count += 1

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        pass


class Door:
    """Knows alice until she is revoked."""

    def __init__(self) -> None:
        self.is_revoked = False
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def __call__(self, _context: object) -> Caller:
        self.asked += 1
        self.was_asked.set()
        if self.is_revoked:
            raise NotAuthenticated
        return Caller(identity=ALICE, how=How.TOKEN)


@asynccontextmanager
async def calling(door: Door, **times: float) -> AsyncIterator[tuple[grpc.aio.Channel, Silent]]:
    told = Silent()
    service = CertificateService(LocalIssuer(AUTHORITY, lambda: NOW), door, told)
    for name, seconds in times.items():
        setattr(service, name, seconds)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, told
    await server.stop(0)


async def test_a_call_that_was_held_open_outlives_no_revocation() -> None:
    """C-A-6: opened with a good token, used after it was revoked: no certificate."""
    door = Door()
    async with calling(door, known_seconds=-1.0) as (channel, told):
        call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        await door.was_asked.wait()
        door.is_revoked = True
        await call.write(REQUEST)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await call.details() == OPAQUE
    assert told.issued_count == 0


async def test_a_caller_who_asks_at_once_is_known_once() -> None:
    """To know a caller costs as much as the rest, so it is done again only after a while."""
    door = Door()
    async with calling(door, known_seconds=60.0) as (channel, told):
        await channel.unary_unary(f"/{SERVICE}/{METHOD}")(REQUEST)
    assert (door.asked, told.issued_count) == (1, 1)


async def test_a_known_caller_who_says_nothing_is_not_waited_for() -> None:
    """Calls of the service are short; one without a message holds nothing for ever."""
    async with calling(Door(), message_seconds=0.05) as (channel, _):
        call = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
