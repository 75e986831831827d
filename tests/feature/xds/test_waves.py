"""When a wave is written: streams that are slow are waited for once, and for a bounded time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fake_proxy import node
from xds_catalog import Catalog, eventually

from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.certs.precedence import Precedence, RightOfWay
from pilothouse.model.resource import CDS
from pilothouse.runtime.pushes_first import PushesFirst
from pilothouse.xds.auth import know_nobody
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.requests import Variant
from pilothouse.xds.streams import Streams


class Wire:
    """A client that asks for all clusters and answers everything; one may be slow to read."""

    peer = "test"
    address = "127.0.0.1:1"
    metadata = ()

    def __init__(self, number: int) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.received = 0
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        asked = pb.DeltaDiscoveryRequest(
            node=node(f"sidecar~10.0.0.{number}~p-{number}.default~default.svc.cluster.local"),
            type_url=CDS,
        )
        self._inbox.put_nowait(asked.SerializeToString())

    async def receive(self) -> bytes | None:
        return await self._inbox.get()

    async def send(self, data: bytes) -> None:
        await self.reads.wait()
        self.received += 1
        nonce = pb.DeltaDiscoveryResponse.FromString(data).nonce
        answer = pb.DeltaDiscoveryRequest(type_url=CDS, response_nonce=nonce)
        self._inbox.put_nowait(answer.SerializeToString())

    def leave(self) -> None:
        self._inbox.put_nowait(None)


class Ground:
    """Streams of some clients, and commits that are pushed to them."""

    def __init__(self, count: int, writing_seconds: float) -> None:
        self.catalog = Catalog()
        self.publisher = Publisher(self.catalog.graph, Catalog, time.monotonic)
        self.streams = Streams(self.publisher, on_written=self._written)
        self.first = PushesFirst(self.publisher, self.streams, writing_seconds)
        self.first.precedence = Precedence(RightOfWay(longest_seconds=3_600))
        self.wires = [Wire(number) for number in range(count)]
        self._edits = 0

    def _written(self) -> None:
        self.first.written()

    @property
    def is_closed(self) -> bool:
        return self.first.precedence.is_closed

    async def push(self) -> None:
        self._edits += 1
        self.catalog.commit((CDS, "web", f"{self._edits}"))
        await self.first.publish()


@asynccontextmanager
async def ground(writing_seconds: float = 3_600) -> AsyncIterator[Ground]:
    made = Ground(3, writing_seconds)
    made.catalog.commit((CDS, "web", "0"))
    made.streams.set_ready()
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for wire in made.wires:
            tasks.create_task(made.streams.serve(wire, Variant.DELTA, know_nobody))
        await eventually(lambda: all(wire.received == 1 for wire in made.wires))
        yield made
        for wire in made.wires:
            wire.reads.set()
            wire.leave()


async def test_the_way_is_closed_until_the_last_write() -> None:
    """First evaluated, then written by streams of their own: it opens after both."""
    async with ground() as here:
        assert not here.is_closed
        last = here.wires[-1]
        last.reads.clear()
        await here.push()
        await eventually(lambda: all(wire.received == 2 for wire in here.wires[:-1]))
        assert here.is_closed
        assert here.streams.is_writing
        last.reads.set()
        await eventually(lambda: not here.is_closed)
        assert last.received == 2
        assert not here.streams.is_writing


async def test_what_concerns_nobody_closes_nothing_for_long() -> None:
    async with ground() as here:
        here.first.begin()
        assert here.is_closed
        await here.first.publish()
        assert not here.is_closed


async def test_a_slow_client_is_waited_for_in_one_wave_only() -> None:
    """Whoever does not read must not keep certificates from everybody else."""
    async with ground(writing_seconds=0.05) as here:
        slow = here.wires[0]
        slow.reads.clear()
        await here.push()
        await eventually(lambda: all(wire.received == 2 for wire in here.wires[1:]))
        await eventually(lambda: not here.is_closed)  # its patience has ended
        assert slow.received == 1
        await here.push()
        await eventually(lambda: all(wire.received == 3 for wire in here.wires[1:]))
        await eventually(lambda: not here.streams.is_writing)
        assert not here.is_closed
        slow.reads.set()
        await eventually(lambda: slow.received == 3)
        assert not here.streams.is_writing


async def test_a_client_that_goes_is_not_waited_for() -> None:
    async with ground() as here:
        gone = here.wires[0]
        gone.reads.clear()
        await here.push()
        assert here.streams.is_writing
        gone.leave()
        await eventually(lambda: not here.streams.is_writing)
        assert not here.is_closed
