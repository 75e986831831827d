"""Health reports on discovery streams (GN-06, Y-3): heard, answered by nothing, and bounded."""

import asyncio
import time
from contextlib import suppress

import grpc
import grpc.aio
from fake_proxy import ADS, node
from xds_catalog import Catalog, running, service

from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS
from pilothouse.xds.admission import StreamLimits
from pilothouse.xds.health import HEALTH_TYPE
from pilothouse.xds.observer import SilentObserver
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.server import DiscoveryServer
from pilothouse.xds.streams import Streams

REPORT = pb.DiscoveryRequest(type_url=HEALTH_TYPE).SerializeToString()


async def test_a_report_is_heard_and_answered_by_nothing():
    """GN-06: its text is bounded; the next answer is that of the next request."""
    heard = []
    catalog = Catalog()
    streams = Streams(
        Publisher(catalog.graph, Catalog, time.monotonic),
        on_health=lambda proxy, problem: heard.append((proxy.name, problem)),
    )
    server = DiscoveryServer(streams)
    port = await server.start("127.0.0.1:0")
    streams.set_ready()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(ADS + "StreamAggregatedResources")()
            first = pb.DiscoveryRequest(type_url=HEALTH_TYPE, node=node())
            await call.write(first.SerializeToString())
            bad = pb.DiscoveryRequest(type_url=HEALTH_TYPE)
            bad.error_detail.message = "x" * 100_000
            await call.write(bad.SerializeToString())
            await call.write(pb.DiscoveryRequest(type_url=CDS).SerializeToString())
            assert pb.DiscoveryResponse.FromString(await call.read()).type_url == CDS
            call.cancel()
    finally:
        await server.stop(0)
    assert heard[0] == ("client-1", None)
    name, problem = heard[1]
    assert (name, len(heard)) == ("client-1", 2)
    assert len(problem) < 5_000


class Refusals(SilentObserver):
    """Keeps why streams were not let in."""

    def __init__(self):
        self.reasons = []

    def refused(self, peer, reason):
        self.reasons.append(reason)


async def test_reports_of_nobody_do_not_keep_a_stream_open():
    """GN-06: before the first request they are passed over, for as long as that may take."""
    refusals = Refusals()
    limits = StreamLimits(first_request_within_seconds=0.3)
    async with (
        running(limits=limits, observer=refusals) as here,
        grpc.aio.insecure_channel(here.address) as channel,
        asyncio.timeout(20),
    ):
        call = channel.stream_stream(ADS + "StreamAggregatedResources")()
        # How the end reaches a client that is writing is not told the same each time.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(REPORT)
        assert await call.code() is not grpc.StatusCode.OK
        assert refusals.reasons == ["no discovery request came"]
        assert len(here.streams) == 0


async def test_a_stream_of_one_type_takes_no_reports():
    """Y-3: only the aggregated stream is the agent's."""
    method = "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
    async with running() as here, grpc.aio.insecure_channel(here.address) as channel:
        await here.put(*service("a"))
        call = channel.stream_stream(method)()
        request = pb.DiscoveryRequest(type_url=HEALTH_TYPE, node=node())
        await call.write(request.SerializeToString())
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
