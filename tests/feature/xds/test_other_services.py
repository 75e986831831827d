"""The per-type services, CSDS, and what observers and registries are told."""

import asyncio
import threading
import time
from contextlib import AsyncExitStack

import grpc
import pytest
from fake_proxy import ADS, NODE_ID, FakeProxy, node
from xds_catalog import eventually, running, service

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse._pb.envoy.service.status.v3 import csds_pb2
from pilothouse._pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.xds.admission import StreamLimits
from pilothouse.xds.auth import NotAuthenticated, Verified
from pilothouse.xds.csds import MAX_MATCHERS, ClientStatus
from pilothouse.xds.observer import SilentObserver
from pilothouse.xds.requests import InvalidRequest
from pilothouse.xds.server import (
    MAX_STATUS_CALLS_EACH,
    METHODS,
    AddressInUse,
    DiscoveryServer,
)

CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/"


@pytest.mark.parametrize(
    ("package", "service_name", "plural", "type_url"),
    [
        ("cluster", "Cluster", "Clusters", CDS),
        ("endpoint", "Endpoint", "Endpoints", EDS),
        ("listener", "Listener", "Listeners", LDS),
        ("route", "Route", "Routes", RDS),
    ],
)
@pytest.mark.parametrize("verb", ["Stream", "Delta"])
async def test_a_stream_of_one_type(package, service_name, plural, type_url, verb):
    """Issue 2 item 4: a type on a stream of its own, whose requests may omit the type."""
    method = f"/envoy.service.{package}.v3.{service_name}DiscoveryService/{verb}{plural}"
    names = [] if type_url in {CDS, LDS} else ["a"]
    if verb == "Delta":
        request = pb.DeltaDiscoveryRequest(node=node(), resource_names_subscribe=names)
    else:
        request = pb.DiscoveryRequest(node=node(), resource_names=names)
    async with running() as here, grpc.aio.insecure_channel(here.address) as channel:
        await here.put(*service("a"))
        call = channel.stream_stream(method)()
        await call.write(request.SerializeToString())
        data = await call.read()
        response = (pb.DeltaDiscoveryResponse if verb == "Delta" else pb.DiscoveryResponse)()
        response.ParseFromString(data)
        assert response.type_url == type_url
        assert len(response.resources) == 1
        request = type(request)(type_url=RDS if type_url != RDS else CDS)
        await call.write(request.SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_every_service_of_the_protocol_is_there():
    """SotW and delta of ADS and six types; two methods never share a path."""
    paths = [f"/{service_name}/{method}" for service_name, method, _, _ in METHODS]
    assert len(paths) == len(set(paths)) == 14


async def test_csds_shows_what_was_sent_and_what_was_refused():
    """Issue 2 item 4: CSDS."""

    def reject(type_url, name, message):
        return "no good" if type_url == CDS and message.alt_stat_name == "bad" else None

    async with running() as here:
        await here.put(*service("a"), *service("b"))
        async with FakeProxy(here.address, reject=reject) as proxy:
            await proxy.until(lambda p: p.is_complete and len(p.routes) == 2)
            await here.put((CDS, "a", "bad"))
            await eventually(lambda: any(_rejected(here)))
            response = await _status(here, csds_pb2.ClientStatusRequest())
            (config,) = response.config
            assert config.node.id == NODE_ID
            by_name = {(c.type_url, c.name): c for c in config.generic_xds_configs}
            assert by_name[CDS, "a"].error_state.details.endswith("no good")
            assert by_name[CDS, "a"].config_status == csds_pb2.ERROR
            assert by_name[CDS, "b"].config_status == csds_pb2.SYNCED
            shown = Cluster.FromString(by_name[CDS, "a"].xds_config.value)
            assert shown.alt_stat_name == "1", "the version in use is shown, not the refused one"
            assert (RDS, "b") in by_name


async def test_csds_matches_node_ids():
    """Node matchers choose proxies; contents may be left out."""
    async with running() as here, FakeProxy(here.address) as proxy:
        await here.put(*service("a"))
        await proxy.until(lambda p: "a" in p.routes)
        request = csds_pb2.ClientStatusRequest(exclude_resource_contents=True)
        request.node_matchers.add(node_id=StringMatcher(prefix="sidecar~10."))
        (config,) = (await _status(here, request)).config
        assert not any(c.HasField("xds_config") for c in config.generic_xds_configs)
        request.node_matchers[0].node_id.exact = "somebody else"
        assert not (await _status(here, request)).config
        request.node_matchers[0].node_id.safe_regex.regex = ".*"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _status(here, request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class Recorder(SilentObserver):
    def __init__(self):
        self.events = []

    def connected(self, stream):
        self.events.append(("connected", stream.proxy.name))

    def disconnected(self, stream, reason):
        self.events.append(("disconnected", reason))

    def refused(self, peer, reason):
        self.events.append(("refused", reason))

    def pushed(self, stream, type_url, count, size_bytes):
        assert size_bytes > 0
        self.events.append(("pushed", type_url, count))

    def acked(self, stream, acked):
        assert acked.round_trip_seconds >= 0
        self.events.append(("acked", acked.type_url, acked.convergence_seconds))

    def rejected(self, stream, type_url, error, found):
        self.events.append(("rejected", type_url, tuple(r.name for r in found)))


async def test_observers_see_the_life_of_a_stream():
    """XP-*, PU-11: pushes, ACKs with the time from commit to ACK, rejections, the end."""
    seen = Recorder()

    def reject(type_url, name, message):
        return "no good" if type_url == CDS and message.alt_stat_name == "bad" else None

    async with running(observer=seen) as here:
        await here.put(*service("a"))
        async with FakeProxy(here.address, reject=reject) as proxy:
            await proxy.until(lambda p: p.is_complete)
            await eventually(lambda: len([e for e in seen.events if e[0] == "acked"]) == 4)
            assert seen.events[0] == ("connected", "client-1")
            assert all(e[2] is None for e in seen.events if e[0] == "acked"), "answers, no pushes"
            seen.events.clear()
            await here.put((EDS, "a", "10.0.0.5"))
            await eventually(lambda: len(seen.events) == 2)
            (_, _, count), (what, type_url, seconds) = seen.events
            assert (count, what, type_url) == (1, "acked", EDS)
            assert 0 < seconds < 5
            await here.put((CDS, "a", "bad"))
            await eventually(lambda: ("rejected", CDS, ("a",)) in seen.events)
        await eventually(lambda: seen.events[-1][0] == "disconnected")


async def test_the_registry_tells_how_far_each_proxy_is():
    """/debug/syncz: versions, nonces and resources by type, and the class."""
    async with running() as here:
        await here.put(*service("a"))
        async with FakeProxy(here.address, node=node(metadata={"LABELS": {"class": "x"}})) as proxy:
            await proxy.until(lambda p: p.is_complete)
            await eventually(lambda: all(t.state == "SYNCED" for t in _types(here)))
            (status,) = here.streams.status()
            assert status.proxy_class == "x"
            assert [t.type_url for t in status.types] == [CDS, EDS, LDS, RDS]
            assert all(
                t.sent_nonce == t.acked_nonce and t.resource_count == 1 for t in status.types
            )
            held = here.streams.resources(NODE_ID)
            assert {type_url: len(found) for type_url, found in held.items()} == dict.fromkeys(
                (CDS, EDS, LDS, RDS), 1
            )
            assert here.streams.resources("somebody else") is None
        await eventually(lambda: not list(here.streams.status()))


async def test_a_peer_may_only_be_who_it_proved_to_be():
    """XP-03, C-A-8: what the node claims is held against who the peer is."""
    seen = Recorder()

    async def alice(call):
        return Verified(identity=WorkloadIdentity("cluster.local", "default", "alice"))

    async with running(authenticate=alice, observer=seen) as here:
        async with FakeProxy(here.address) as proxy:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await proxy.until(lambda p: p.messages)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "spiffe://cluster.local/ns/default/sa/alice" in caught.value.details()
        claims = node(metadata={"SERVICE_ACCOUNT": "alice"})
        async with FakeProxy(here.address, node=claims) as proxy:
            await proxy.until(lambda p: p.messages)
            (status,) = here.streams.status()
            assert status.stream.proxy.identity.service_account == "alice"
    assert [event[0] for event in seen.events[:2]] == ["refused", "connected"]


async def test_a_peer_that_proves_nothing_is_refused_before_it_is_read():
    """C-A-6: the end is UNAUTHENTICATED, and no first request is waited for."""

    async def nobody(call):
        raise NotAuthenticated("authentication failure")

    async with (
        running(authenticate=nobody) as here,
        grpc.aio.insecure_channel(here.address) as channel,
    ):
        for stream in (ADS + "StreamAggregatedResources", CSDS + "StreamClientStatus"):
            call = channel.stream_stream(stream)()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call.details() == "authentication failure"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(CSDS + "FetchClientStatus")(b"")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


ALICE = WorkloadIdentity("cluster.local", "default", "alice")


@pytest.mark.parametrize("how", ["ends", "is revoked"])
async def test_a_stream_ends_with_its_credential(how):
    """XP-08: the proxy is told to come again, with another credential."""
    ends_at = time.time() + 0.3 if how == "ends" else None

    async def alice(call):
        return Verified(identity=ALICE, credential="token:1", ends_at_epoch_seconds=ends_at)

    async with running(authenticate=alice) as here:
        claims = node(metadata={"SERVICE_ACCOUNT": "alice"})
        async with FakeProxy(here.address, node=claims) as proxy:
            if how == "is revoked":
                # Has said all it has to say: a write into an ended stream hides how it ended.
                await proxy.until(lambda p: p.is_complete)
                assert here.streams.end(lambda credential: credential == "token:2", "void") == 0
                assert here.streams.end(lambda credential: credential == "token:1", "void") == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await proxy.until(lambda _: False)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await eventually(lambda: not len(here.streams))


async def test_a_credential_is_revoked_on_the_way_in():
    """XP-08: a stream that is recognised and says nothing does not outlive its credential."""
    recognised = asyncio.Event()

    async def alice(call):
        recognised.set()
        return Verified(identity=ALICE, credential="token:1")

    claims = node(metadata={"SERVICE_ACCOUNT": "alice"})
    request = pb.DeltaDiscoveryRequest(type_url=CDS, node=claims).SerializeToString()
    async with running(authenticate=alice) as here:
        await here.put(*service("a"))
        async with grpc.aio.insecure_channel(here.address) as channel:
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
            await recognised.wait()
            here.streams.end(lambda credential: credential == "token:1", "void")
            await call.write(request)
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call.details() == "void"
            here.streams.end(lambda credential: False, "void")
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
            await call.write(request)
            assert await call.read() is not grpc.aio.EOF
            call.cancel()


async def test_a_stampede_is_let_in_at_a_rate():
    """XP-04: after a burst, streams wait for their turn; who would wait too long is refused."""
    limits = StreamLimits(connects_per_second=2, connect_within_seconds=0.7)
    request = pb.DeltaDiscoveryRequest(type_url=CDS, node=node()).SerializeToString()

    def first_answer(channel):
        # Not grpc.aio: its client forgets how a stream ended if that happens while it writes.
        answered = threading.Event()

        def requests():
            yield request
            answered.wait()

        call = channel.stream_stream(ADS + "DeltaAggregatedResources")(requests())
        try:
            return bool(next(call))
        except grpc.RpcError as error:
            return error.code()
        finally:
            answered.set()
            call.cancel()

    async with running(limits=limits) as here:
        await here.put(*service("a"))
        with grpc.insecure_channel(here.address) as channel:
            answers = await asyncio.gather(
                *(asyncio.to_thread(first_answer, channel) for _ in range(8))
            )
    assert answers.count(True) >= 2
    assert set(answers) == {True, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_streams_that_say_nothing_are_limited():
    """Half-open streams cost something, so there are only so many; who speaks makes room."""
    limits = StreamLimits(silent=3)
    async with running(limits=limits) as here:
        async with grpc.aio.insecure_channel(here.address) as channel:
            ads = channel.stream_stream(ADS + "StreamAggregatedResources")
            calls = [ads() for _ in range(5)]
            await eventually(lambda: sum(call.done() for call in calls) == 2)
            codes = {await call.code() for call in calls if call.done()}
            assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            for call in calls:
                call.cancel()
        async with FakeProxy(here.address) as proxy:
            await proxy.until(lambda p: p.messages)


async def who_calls(call):
    """Believe the header `who`."""
    account = dict(call.metadata).get("who", "alice")
    return Verified(identity=WorkloadIdentity("cluster.local", "default", account))


@pytest.mark.parametrize(
    ("method", "most"),
    [(ADS + "DeltaAggregatedResources", 6), (CSDS + "StreamClientStatus", MAX_STATUS_CALLS_EACH)],
)
async def test_one_workload_does_not_keep_the_others_out(method, most):
    """Streams that say nothing: those of one identity are limited before those of all are."""
    claims = node(metadata={"SERVICE_ACCOUNT": "bob"})
    request = (
        pb.DeltaDiscoveryRequest(type_url=CDS, node=claims).SerializeToString()
        if method.startswith(ADS)
        else b""
    )
    async with (
        running(authenticate=who_calls, limits=StreamLimits(silent=8)) as here,
        grpc.aio.insecure_channel(here.address) as channel,
    ):
        await here.put(*service("a"))
        calls = [channel.stream_stream(method)() for _ in range(most + 2)]
        await eventually(lambda: sum(call.done() for call in calls) == 2)
        for call in calls:
            if call.done():
                assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        other = channel.stream_stream(method)(metadata=(("who", "bob"),))
        await other.write(request)
        assert await other.read() is not grpc.aio.EOF
        for call in (*calls, other):
            call.cancel()


async def test_the_status_service_shows_what_the_caller_may_see():
    """GN-07: what the port's rule says."""

    async def somebody(call):
        account = dict(call.metadata).get("who", "alice")
        return Verified(identity=WorkloadIdentity("cluster.local", "default", account))

    def only_own(caller, proxy):
        return caller is not None and proxy.identity == caller.identity

    async with running(authenticate=somebody, may_inspect=only_own) as here:
        await here.put(*service("a"))
        async with FakeProxy(here.address, node=node(metadata={"SERVICE_ACCOUNT": "alice"})) as own:
            await own.until(lambda p: p.is_complete)
            for who, seen in (("alice", 1), ("bob", 0)):
                async with grpc.aio.insecure_channel(here.address) as channel:
                    call = channel.unary_unary(CSDS + "FetchClientStatus")
                    data = await call(b"", metadata=(("who", who),))
                    assert len(csds_pb2.ClientStatusResponse.FromString(data).config) == seen


async def test_the_status_service_asks_who_calls_for_each_request():
    """GN-07: a stream of it may be silent for days; a credential that is revoked ends it."""
    door = [Verified(identity=ALICE)]

    async def somebody(call):
        if not door:
            raise NotAuthenticated("authentication failure")
        return door[0]

    async with running(authenticate=somebody) as here:
        await here.put(*service("a"))
        async with grpc.aio.insecure_channel(here.address) as channel:
            call = channel.stream_stream(CSDS + "StreamClientStatus")()
            await call.write(b"")
            assert isinstance(await call.read(), bytes)
            door.clear()
            await call.write(b"")
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_status_service_is_bounded():
    """Callers that say nothing, many matchers, and answers of a whole mesh at once."""
    async with running() as here, grpc.aio.insecure_channel(here.address) as channel:
        await here.put(*service("a"))
        silent = [channel.stream_stream(CSDS + "StreamClientStatus")() for _ in range(60)]
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(here.address, options=own) as other:
            more = [other.stream_stream(CSDS + "StreamClientStatus")() for _ in range(5)]
            calls = [*silent, *more]
            await eventually(lambda: any(call.done() for call in calls))
            (refused,) = [call for call in calls if call.done()]
            assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            for call in calls:
                call.cancel()
        request = csds_pb2.ClientStatusRequest()
        for _ in range(MAX_MATCHERS + 1):
            request.node_matchers.add()
        await eventually_answered(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="matchers"):
            await channel.unary_unary(CSDS + "FetchClientStatus")(request.SerializeToString())


async def eventually_answered(channel):
    """Wait until callers that have gone are forgotten."""
    code = None
    while code is not grpc.StatusCode.OK:
        code = await channel.unary_unary(CSDS + "FetchClientStatus")(b"").code()


async def test_a_dump_is_of_one_identity():
    """A node's id is its own word: what somebody else was sent by it is in no other's dump."""

    async def somebody(call):
        space = dict(call.metadata)["space"]
        return Verified(identity=WorkloadIdentity("cluster.local", space, "alice"))

    async with running(authenticate=somebody) as here, AsyncExitStack() as open_:
        await here.put(*service("a"), *service("b"))
        for space, name in (("bad", "a"), ("default", "b")):
            who = node(metadata={"NAMESPACE": space, "SERVICE_ACCOUNT": "alice"})
            request = pb.DeltaDiscoveryRequest(
                type_url=RDS, node=who, resource_names_subscribe=[name]
            )
            channel = await open_.enter_async_context(grpc.aio.insecure_channel(here.address))
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")(
                metadata=(("space", space),)
            )
            open_.callback(call.cancel)
            await call.write(request.SerializeToString())
            assert await call.read() is not grpc.aio.EOF
        proxy = NODE_ID.split("~")[2].partition(".")[0]
        for space, name in (("bad", "a"), ("default", "b")):
            found = here.streams.resources(f"{proxy}.{space}")
            assert [each.name for each in found[RDS]] == [name]


async def test_a_status_of_everybody_lets_others_run():
    """Proxy by proxy; a proxy's streams count together; too much is refused in a word."""
    async with running() as here, AsyncExitStack() as open_:
        await here.put(*service("a"))
        for number in range(5):
            who = node(f"sidecar~10.0.0.{number}~p-{number}.default~default.svc.cluster.local")
            proxy = await open_.enter_async_context(FakeProxy(here.address, node=who))
            await proxy.until(lambda p: p.is_complete)
        status = ClientStatus(here.streams)
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running_ = asyncio.create_task(other())
        await asyncio.sleep(0)
        before = turns
        data = await status.answer(b"", lambda _: True)
        assert turns - before >= 5
        running_.cancel()
        assert len(csds_pb2.ClientStatusResponse.FromString(data).config) == 5
        small = ClientStatus(here.streams, max_answer_bytes=len(data) - 1)
        with pytest.raises(InvalidRequest, match="match node_id"):
            await small.answer(b"", lambda _: True)
        assert await small.answer(b"", lambda proxy: proxy.name != "p-1")


async def test_a_port_in_use_is_named():
    """A second server on the port is refused rather than sharing the proxies."""
    async with running() as here:
        second = DiscoveryServer(here.streams)
        with pytest.raises(AddressInUse, match=here.address):
            await second.start(here.address)


def _types(here):
    return [t for status in here.streams.status() for t in status.types]


def _rejected(here):
    return [r for t in _types(here) for r in t.rejected]


async def _status(here, request):
    async with grpc.aio.insecure_channel(here.address) as channel:
        call = channel.unary_unary(CSDS + "FetchClientStatus")
        data = await call(request.SerializeToString())
        stream = channel.stream_stream(CSDS + "StreamClientStatus")()
        await stream.write(request.SerializeToString())
        assert await stream.read() == data
        return csds_pb2.ClientStatusResponse.FromString(data)
