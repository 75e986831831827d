"""
Attacks by workloads of the mesh: their credential is good, what they do with it is not.

As in `test_attacks`, honest clients' latency is compared with before, with a wide margin: each of
these once kept everybody else waiting for 5 to 90 seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import grpc.aio
import pytest
from attacked import ADS, CREATE, Attacked, attacked
from fake_proxy import node

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from pilothouse.model.resource import CDS, EDS, RDS, SDS

pytestmark = [pytest.mark.xdist_group("attacks_of_known"), pytest.mark.timeout(300)]

RATIO, SLACK_SECONDS = 20.0, 2.0
STREAM = ADS + "DeltaAggregatedResources"
NODE = node(metadata={"NAMESPACE": "default", "SERVICE_ACCOUNT": "client"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@asynccontextmanager
async def under_attack(server: Attacked) -> AsyncIterator[None]:
    """Measure honest clients before and meanwhile."""
    await server.honest()
    before = await server.honest_seconds()
    measuring = asyncio.create_task(server.honest_seconds())
    yield
    assert await measuring < before * RATIO + SLACK_SECONDS


@pytest.mark.parametrize(("type_url", "count"), [(RDS, 100_000), (EDS, 100_000), (SDS, 10_000)])
async def test_very_many_names_that_do_not_exist(
    server: Attacked, type_url: str, count: int
) -> None:
    """They are looked at in slices, and only so many."""
    request = DeltaDiscoveryRequest(type_url=type_url, node=NODE)
    request.resource_names_subscribe.extend(f"kubernetes://name-{n}" for n in range(count))
    async with server.secure() as channel:
        call = channel.stream_stream(STREAM)(metadata=server.headers)
        async with under_attack(server):
            await call.write(request.SerializeToString())
        call.cancel()


async def test_more_names_than_are_allowed(server: Attacked) -> None:
    """The stream ends, and says why."""
    request = DeltaDiscoveryRequest(type_url=SDS, node=NODE)
    request.resource_names_subscribe.extend(map(str, range(10_001)))
    async with server.secure() as channel:
        call = channel.stream_stream(STREAM)(metadata=server.headers)
        await call.write(request.SerializeToString())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_refusals_of_many_megabytes(server: Attacked) -> None:
    """Every response is refused with a text of 15 MB; the log has a few short lines of it."""
    lines = server.log().count(b"xds.rejected")
    async with under_attack(server), AsyncExitStack() as open_:
        for _ in range(30):
            channel = await open_.enter_async_context(server.secure())
            call = channel.stream_stream(STREAM)(metadata=server.headers)
            open_.callback(call.cancel)
            await call.write(DeltaDiscoveryRequest(type_url=CDS, node=NODE).SerializeToString())
            data = await call.read()
            assert data is not grpc.aio.EOF
            nack = DeltaDiscoveryRequest(
                type_url=CDS, response_nonce=DeltaDiscoveryResponse.FromString(data).nonce
            )
            nack.error_detail.code = 13
            nack.error_detail.message = "no good " * (15 * 1024 * 128)
            await call.write(nack.SerializeToString())
    assert 0 < server.log().count(b"xds.rejected") - lines <= 30
    assert max(map(len, server.log().splitlines())) < 10_000


async def test_calls_for_certificates_that_bring_none(server: Attacked) -> None:
    """Hundreds of calls of a known caller who says nothing: others get their certificates."""
    async with AsyncExitStack() as open_:
        for _ in range(8):
            channel = await open_.enter_async_context(server.secure())
            for _ in range(50):
                call = channel.stream_stream(CREATE)(metadata=server.headers)
                open_.callback(call.cancel)
                await call.wait_for_connection()
        async with under_attack(server):
            pass
