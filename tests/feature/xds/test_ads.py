"""ADS end to end: a real server, real gRPC, simulated proxies, in both variants."""

import asyncio
from collections import Counter

import grpc
import pytest
from fake_proxy import ADS, FakeProxy, node
from xds_catalog import CLASSES, eventually, running, service

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.xds.admission import StreamLimits

both = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


@both
async def test_a_new_proxy_gets_everything(delta):
    """XP-01: clusters, their endpoints, listeners, their routes."""
    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            assert set(proxy.clusters) == set(proxy.endpoints) == {"a", "b"}
            assert proxy.routes["a"].virtual_hosts[0].name == "1-for-any"


@both
async def test_a_proxy_of_an_empty_mesh_is_answered(delta):
    """Envoy starts only once CDS and LDS have been answered, even with nothing."""
    async with running() as here, FakeProxy(here.address, delta=delta) as proxy:
        await proxy.until(lambda p: p.messages[CDS] == p.messages[LDS] == 1)
        assert not proxy.clusters


@both
async def test_a_change_of_endpoints_is_one_small_message(delta):
    """XD-06, XD-07: only what changed is sent, and nothing that did not."""
    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            proxy.history.clear()
            assert await here.put((EDS, "a", "10.0.0.77")) == 1
            await proxy.until(lambda p: p.history)
            assert proxy.history == [(EDS, ("a",), ())]
            assert await here.put((EDS, "a", "10.0.0.77")) == 0


@both
async def test_a_changed_cluster_is_followed_by_its_endpoints(delta):
    """XD-08: Envoy withholds the ACK of a cluster until its endpoints have come."""
    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            proxy.history.clear()
            await here.put((CDS, "a", "2"))
            await proxy.until(lambda p: p.is_complete and len(p.history) == 2)
            (first, names, _), second = proxy.history
            assert (first, second) == (CDS, (EDS, ("a",), ()))
            assert names == (("a",) if delta else ("a", "b"))


@both
async def test_what_is_pointed_at_comes_first_and_goes_last(delta):
    """PU-08: one commit that replaces a service by another breaks nothing on the way."""
    async with running() as here:
        await here.put(*service("old"), *service("keep"))
        async with FakeProxy(here.address, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            proxy.history.clear()
            gone = [(url, "old", None) for url in (CDS, EDS, LDS, RDS)]
            await here.put(*gone, *service("new"))
            await proxy.until(lambda p: set(p.clusters) == {"keep", "new"} and p.is_complete)
            assert set(proxy.listeners) == {"keep", "new"}
            types = [type_url for type_url, _, _ in proxy.history]
            assert types[0] == CDS
            assert "old" not in proxy.history[0][2]
            last_cds = len(types) - 1 - types[::-1].index(CDS)
            assert types.index(LDS) < last_cds
            assert types.index(EDS) < types.index(LDS), "new clusters are warm before listeners"


@both
async def test_reconnect_restores_and_does_not_repeat(delta):
    """XD-02: after a reconnect the proxy has the present state; EDS is answered in any case."""
    async with running() as here:
        await here.put(*service("a"), *service("b"))
        proxy = FakeProxy(here.address, delta=delta)
        await proxy.connect()
        await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
        await proxy.close()
        gone = [(url, "b", None) for url in (CDS, EDS, LDS, RDS)]
        await here.put((EDS, "a", "10.0.0.78"), *gone)
        proxy.history.clear()
        await proxy.connect()
        try:
            await proxy.until(lambda p: set(p.clusters) == {"a"} and set(p.listeners) == {"a"})
            await proxy.until(lambda p: "10.0.0.78" in str(p.endpoints["a"]) and p.is_complete)
            answered = {name for url, names, _ in proxy.history for name in names if url == EDS}
            assert "a" in answered
            if delta:
                assert not any(names for url, names, _ in proxy.history if url in {CDS, LDS, RDS})
        finally:
            await proxy.close()


@both
async def test_a_rejected_resource_does_not_hold_up_others(delta):
    """Issue 2, How it is checked: a NACK is attributed and the other resources arrive."""

    def reject(type_url, name, message):
        return "no good" if type_url == CDS and message.alt_stat_name == "bad" else None

    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, delta=delta, reject=reject) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            await here.put((CDS, "a", "bad"), (CDS, "b", "2"), *service("c"))
            await proxy.until(lambda p: "c" in p.routes and p.clusters["b"].alt_stat_name == "2")
            assert proxy.clusters["a"].alt_stat_name == "1"
            rejected = _rejected(here)
            assert [(r.name, r.sources[0].kind) for r in rejected] == [("a", "Service")]
            assert "no good" in rejected[0].error
            await here.put((CDS, "a", "3"))
            await proxy.until(lambda p: p.clusters["a"].alt_stat_name == "3" and p.is_complete)
            await eventually(lambda: not _rejected(here))


@both
async def test_a_whole_message_refused_for_one_route(delta):
    """RDS is refused whole: what was innocent is sent again without the culprit."""

    def reject(type_url, name, message):
        bad = type_url == RDS and message.virtual_hosts[0].name.startswith("bad")
        return f"Duplicate entry of domain x in route {name}" if bad else None

    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, delta=delta, reject=reject) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            await here.put((RDS, "a", "bad"), (RDS, "b", "2"))
            await proxy.until(lambda p: p.routes["b"].virtual_hosts[0].name == "2-for-any")
            assert proxy.routes["a"].virtual_hosts[0].name == "1-for-any"
            assert [r.name for r in _rejected(here)] == ["a"]


async def test_a_proxy_whose_class_changes_is_moved():
    """A class may change after a commit, as when a Pod gains a label: only differences are sent."""
    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            proxy.history.clear()
            await here.put((CLASSES, "client-1", "special"))
            await proxy.until(lambda p: p.routes["a"].virtual_hosts[0].name == "1-for-special")
            assert [(url, set(names)) for url, names, _ in proxy.history] == [(RDS, {"a", "b"})]
            assert here.publisher.channel_count == 1
            await here.put((RDS, "a", "2"))
            await proxy.until(lambda p: p.routes["a"].virtual_hosts[0].name == "2-for-special")


async def test_cost_follows_what_is_affected():
    """One endpoint change evaluates one root, whatever the number of services."""
    async with running() as here:
        await here.put(*(row for number in range(50) for row in service(f"s{number}")))
        async with FakeProxy(here.address) as one, FakeProxy(here.address) as two:
            for proxy in (one, two):
                await proxy.until(lambda p: p.is_complete and len(p.routes) == 50)
            assert here.publisher.channel_count == 1
            assert here.publisher.root_count == 102
            assert await here.put((EDS, "s7", "10.9.9.9")) == 2
            assert here.catalog.graph.stats.total == 1
        await eventually(lambda: here.publisher.root_count == 0)
        assert not list(here.catalog.graph.pinned())


@both
async def test_no_stream_is_answered_before_the_config_was_read(delta):
    """Issue 2 item 4: streams wait open, and are answered with the first config."""
    async with running(ready=False) as here, FakeProxy(here.address, delta=delta) as proxy:
        with pytest.raises(TimeoutError):
            await proxy.until(lambda p: p.messages, timeout_seconds=0.2)
        await here.put(*service("a"))
        here.streams.set_ready()
        await proxy.until(lambda p: "a" in p.routes)


async def test_a_stream_does_not_wait_for_the_config_for_ever():
    """XP-02: UNAVAILABLE once the bound has passed."""
    limits = StreamLimits(ready_within_seconds=0.05)
    async with running(ready=False, limits=limits) as here:
        error = await _refusal(here, node())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "config" in error.details()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (None, "no node"),
        (node(""), "no id"),
        (node("sidecar~10.0.0.1~x"), "type~ip~name.namespace~domain"),
        (node("sidecar~10.0.0.1~x~d"), "name.namespace"),
        (node("waypoint~10.0.0.1~x.y~d"), "waypoint"),
        (node("sidecar~nowhere~x.y~d"), "no IP address"),
        (node(metadata={"PILOTHOUSE_PROFILE": "nginx"}), "nginx"),
    ],
)
async def test_a_bad_node_is_refused_in_one_sentence(bad, words):
    """NM-27: INVALID_ARGUMENT, and the sentence says what is wrong."""
    async with running() as here:
        error = await _refusal(here, bad)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in error.details()


async def test_garbage_is_refused():
    """Bytes that are no request end the stream, not the server."""
    async with running() as here, grpc.aio.insecure_channel(here.address) as channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
        await call.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _read(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_reader_that_stops_reading_costs_one_message():
    """PU-06, performance.md D 10: latest wins; what was missed is not queued."""
    async with running() as here:
        await here.put(*service("a"))
        options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(here.address, options=options) as channel:
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
            request = pb.DeltaDiscoveryRequest(type_url=CDS, node=node())
            await call.write(request.SerializeToString())
            await _read(call)
            sent = Counter()
            here.streams._observer.pushed = lambda *_: sent.update(n=1)
            for number in range(60):
                await here.put((CDS, "a", f"{number}-" + "x" * 500_000))
                await asyncio.sleep(0.005)  # the writer has its chance
            assert sent["n"] < 10, "30 MB would have been buffered"
            watch = next(iter(here.streams._streams.values())).member.session.watches[CDS]
            assert watch.in_flight <= 4
            last = None
            received = 0
            while last != "59":
                received += 1
                message = pb.DeltaDiscoveryResponse.FromString(await _read(call))
                made = Cluster.FromString(message.resources[0].resource.value)
                last = made.alt_stat_name.split("-")[0]
            assert 1 < received < 15, "what was missed is not sent later"
            call.cancel()


async def test_shutdown_tells_proxies_to_come_back():
    """A stopped server ends streams with UNAVAILABLE, so that proxies reconnect."""
    async with running() as here, FakeProxy(here.address) as proxy:
        await proxy.until(lambda p: p.messages[LDS])
        await here.server.stop(0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await proxy.until(lambda _p: False)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(here.streams) == 0


def _rejected(here):
    return [r for status in here.streams.status() for t in status.types for r in t.rejected]


async def _read(call):
    data = await call.read()
    if data is grpc.aio.EOF:
        raise grpc.aio.AioRpcError(await call.code(), (), (), details=await call.details())
    return data


async def _refusal(here, bad):
    async with grpc.aio.insecure_channel(here.address) as channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
        request = pb.DeltaDiscoveryRequest(type_url=CDS, node=bad)
        await call.write(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _read(call)
        return caught.value
