"""
The life of discovery streams: let in, read, write, end.

One writer per stream asks the session for the next message only when the last has drained, so a
client that does not read holds one message and no queue. No stream is answered before the config
has been read once: streams that come earlier are held open, `ready_within_seconds` at most, which
spares proxies the back-off of a refused reconnect.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count

from msgspec.structs import replace

from pilothouse.errors import MeshError
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import Resource
from pilothouse.xds.auth import Authenticate, NotAuthenticated, NotAuthorized, Verified, identified
from pilothouse.xds.node import read_proxy
from pilothouse.xds.observer import Observer, SilentObserver
from pilothouse.xds.publisher import Member, Publisher
from pilothouse.xds.rate import RateLimit
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.requests import InvalidRequest, Request, Variant
from pilothouse.xds.session import Outgoing
from pilothouse.xds.status import StreamInfo, StreamStatus, resources_of, type_status
from pilothouse.xds.transport import EndReason, StreamEnded, Transport
from pilothouse.xds.wire import Framer, parse


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """
    Bounds on what a stream may wait for, and on streams that are not let in yet.

    `connects_per_second` is the rate at which streams are let in, after a burst of one second's
    worth (None: no limit); one that would wait longer than `connect_within_seconds` is refused
    (traffic.md XP-04).
    """

    ready_within_seconds: float = 30.0
    first_request_within_seconds: float = 30.0
    waiting: int = 4_096
    connects_per_second: float | None = None
    connect_within_seconds: float = 1.0


@dataclass(slots=True, eq=False)
class _Stream:
    """A stream that was let in."""

    info: StreamInfo
    member: Member
    transport: Transport
    wake: asyncio.Event
    only_type: str
    ends_at_epoch_seconds: float | None
    first: Request | None
    fault: StreamEnded | None = None


class Streams:
    """All discovery streams of one control plane, whatever port they came by."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        observer: Observer | None = None,
        limits: StreamLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        prepare: Callable[[Proxy], Awaitable[None]] | None = None,
    ) -> None:
        """
        Serve what `publisher` publishes. `clock` must be the publisher's.

        `prepare` is awaited before a proxy is answered: for what is made for it alone.
        """
        self._publisher = publisher
        self._observer = observer or SilentObserver()
        self._limits = limits or StreamLimits()
        self._clock = clock
        self._wall_clock = wall_clock
        self._prepare = prepare
        self._framer = Framer()
        self._numbers = count(1)
        self._streams: dict[int, _Stream] = {}
        self._ready = asyncio.Event()
        self._closing = asyncio.Event()
        self._waiting = 0
        self._rate = (
            RateLimit(self._limits.connects_per_second)
            if self._limits.connects_per_second is not None
            else None
        )

    # -- state ------------------------------------------------------------------------------------

    def set_ready(self) -> None:
        """Begin to answer: the config has been read once."""
        self._ready.set()

    @property
    def is_ready(self) -> bool:
        """Whether streams are answered."""
        return self._ready.is_set()

    def close(self) -> None:
        """End every stream, and new ones at once."""
        self._closing.set()
        self._ready.set()
        for stream in self._streams.values():
            stream.wake.set()

    def __len__(self) -> int:
        """Count the streams that were let in."""
        return len(self._streams)

    def status(self) -> Iterator[StreamStatus]:
        """Yield the state of every stream, oldest first."""
        for stream in self._streams.values():
            watches = stream.member.session.watches.values()
            yield StreamStatus(
                stream=stream.info,
                proxy_class=stream.member.channel.proxy_class,
                types=tuple(map(type_status, watches)),
            )

    def members(self) -> Iterator[tuple[StreamInfo, Member]]:
        """Yield every stream with its session, oldest first, to be looked at only."""
        for stream in self._streams.values():
            yield stream.info, stream.member

    @property
    def are_settled(self) -> bool:
        """Whether every client has answered all it was sent, as far as it will (a NACK counts)."""
        return all(
            watch.is_settled or bool(watch.progress.error)
            for stream in self._streams.values()
            for watch in stream.member.session.watches.values()
            if watch.progress.sent_nonce
        )

    def rejected(self) -> Iterator[tuple[Proxy, RejectedResource]]:
        """Yield what proxies refuse at present."""
        for stream in self._streams.values():
            for each in stream.member.session.rejected():
                yield stream.info.proxy, each

    def resources(self, proxy_id: str) -> dict[str, tuple[Resource, ...]] | None:
        """Return what a proxy has, by type; None if it is not connected."""
        sessions = [
            stream.member.session
            for stream in self._streams.values()
            if stream.info.proxy.id == proxy_id
        ]
        return resources_of(sessions) if sessions else None

    def resources_like(self, info: StreamInfo) -> dict[str, tuple[Resource, ...]]:
        """Return what the proxy of a stream has by all its streams: same node, same identity."""
        return resources_of(
            stream.member.session
            for stream in self._streams.values()
            if stream.info.proxy.id == info.proxy.id
            and stream.info.proxy.identity == info.proxy.identity
        )

    def end(self, is_void: Callable[[str], bool], text: str) -> int:
        """End the streams whose credential no longer counts; return how many."""
        ended = 0
        for stream in self._streams.values():
            if stream.info.credential and stream.fault is None and is_void(stream.info.credential):
                stream.fault = StreamEnded(EndReason.UNAUTHENTICATED, text)
                stream.wake.set()
                ended += 1
        return ended

    # -- one stream -------------------------------------------------------------------------------

    async def serve(
        self,
        transport: Transport,
        variant: Variant,
        authenticate: Authenticate,
        only_type: str = "",
    ) -> None:
        """
        Serve a stream until one side ends it; `only_type` is the type of a per-type service.

        Raises: StreamEnded: The server ends it, with a status.
        """
        if self._waiting >= self._limits.waiting:
            text = "too many streams have not sent their first request"
            self._observer.refused(transport.address, text)
            raise StreamEnded(EndReason.RESOURCE_EXHAUSTED, text)
        self._waiting += 1
        try:
            stream = await self._let_in(transport, variant, authenticate, only_type)
        except StreamEnded as ended:
            self._observer.refused(transport.address, ended.text)
            raise
        finally:
            self._waiting -= 1
        if stream is None:
            return
        self._streams[stream.info.number] = stream
        self._observer.connected(stream.info)
        reason = ""
        try:
            await self._converse(stream)
            reason = stream.fault.text if stream.fault else ""
        except Exception as error:
            reason = f"internal error: {error!r}"
            raise
        finally:
            del self._streams[stream.info.number]
            self._publisher.leave(stream.member)
            self._observer.disconnected(stream.info, reason)
        if stream.fault is not None:
            raise stream.fault

    async def _let_in(
        self, transport: Transport, variant: Variant, authenticate: Authenticate, only_type: str
    ) -> _Stream | None:
        """Return a stream that may be served, None if the client has gone."""
        try:
            verified = await authenticate(transport)
        except NotAuthenticated as error:
            raise StreamEnded(EndReason.UNAUTHENTICATED, str(error)) from error
        await self._wait_for_turn()
        found = await self._first_request(transport, variant, verified)
        if isinstance(found, StreamEnded):
            raise found
        if found is None:
            return None
        request, proxy = found
        del found
        await self._wait_until_ready()
        if self._prepare is not None:
            await self._prepare(proxy)
        return self._open(transport, variant, proxy, verified, only_type, request)

    async def _first_request(
        self, transport: Transport, variant: Variant, verified: Verified | None
    ) -> tuple[Request, Proxy] | StreamEnded | None:
        """
        Return the first request and whose it is, None if the client has gone.

        Why it is refused is returned, not raised: a traceback would hold on to a message of many
        megabytes until the garbage collector comes by.
        """
        try:
            async with asyncio.timeout(self._limits.first_request_within_seconds):
                data = await transport.receive()
        except TimeoutError:
            return StreamEnded(EndReason.DEADLINE_EXCEEDED, "no discovery request came")
        if data is None:
            return None
        try:
            request, node = parse(variant, data)
            return request, identified(read_proxy(node), verified)
        except InvalidRequest as error:
            return StreamEnded(EndReason.INVALID_ARGUMENT, str(error))
        except NotAuthorized as error:
            return StreamEnded(EndReason.PERMISSION_DENIED, str(error))

    async def _wait_for_turn(self) -> None:
        if self._rate is None:
            return
        seconds = self._rate.take(self._clock(), self._limits.connect_within_seconds)
        if seconds is None:
            text = "too many streams are opened at once"
            raise StreamEnded(EndReason.RESOURCE_EXHAUSTED, text)
        await asyncio.sleep(seconds)

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._limits.ready_within_seconds):
                await self._ready.wait()
        except TimeoutError:
            text = "the config has not been read yet"
            raise StreamEnded(EndReason.UNAVAILABLE, text) from None
        if self._closing.is_set():
            raise StreamEnded(EndReason.UNAVAILABLE, "the control plane is shutting down")

    def _open(
        self,
        transport: Transport,
        variant: Variant,
        proxy: Proxy,
        verified: Verified | None,
        only_type: str,
        first: Request,
    ) -> _Stream:
        wake = asyncio.Event()
        try:
            member = self._publisher.join(proxy, variant, wake.set)
        except MeshError as error:
            raise StreamEnded(EndReason.INTERNAL, str(error)) from error
        info = StreamInfo(
            number=next(self._numbers),
            proxy=proxy,
            peer=transport.address,
            variant=variant,
            connected_at_epoch_seconds=self._wall_clock(),
            credential=verified.credential if verified is not None else "",
        )
        ends_at = verified.ends_at_epoch_seconds if verified is not None else None
        return _Stream(info, member, transport, wake, only_type, ends_at, first)

    async def _converse(self, stream: _Stream) -> None:
        """Read and write until either ends; what went wrong is left in `stream.fault`."""
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(stream))
            writer = tasks.create_task(self._write(stream))
            reader.add_done_callback(lambda _: writer.cancel())
            writer.add_done_callback(lambda _: reader.cancel())

    async def _read(self, stream: _Stream) -> None:
        # No name here keeps a request while the next is awaited: they may be large.
        request, stream.first = stream.first, None
        while request is not None:
            try:
                self._receive(stream, request)
                request = None
                request = await self._next_request(stream)
            except InvalidRequest as error:
                stream.fault = StreamEnded(EndReason.INVALID_ARGUMENT, str(error))
                return

    @staticmethod
    async def _next_request(stream: _Stream) -> Request | None:
        """Return what the client asks next, None if it has closed. Raises: InvalidRequest."""
        data = await stream.transport.receive()
        return None if data is None else parse(stream.info.variant, data)[0]

    def _receive(self, stream: _Stream, request: Request) -> None:
        request = _of_type(request, stream.only_type)
        effects = stream.member.receive(request, self._clock())
        if effects.added:
            self._observer.subscribed(stream.info, effects.type_url)
        if effects.acked is not None:
            self._observer.acked(stream.info, effects.acked)
        if effects.nack is not None:
            found = effects.rejected
            self._observer.rejected(stream.info, effects.type_url, effects.nack, found)
        if effects.is_stale:
            self._observer.stale(stream.info, effects.type_url)
        if stream.member.session.may_speak:
            stream.wake.set()

    async def _write(self, stream: _Stream) -> None:
        member, wake = stream.member, stream.wake
        while stream.fault is None:
            if self._closing.is_set():
                text = "the control plane is shutting down"
                stream.fault = StreamEnded(EndReason.UNAVAILABLE, text)
                return
            if (left_seconds := self._left_seconds(stream)) is not None and left_seconds <= 0:
                text = "the credential has ended; come again with a new one"
                stream.fault = StreamEnded(EndReason.UNAUTHENTICATED, text)
                return
            wake.clear()
            now = self._clock()
            message = member.next_message(now)
            if message is None:
                until = member.session.wake_at(now)
                if left_seconds is not None:
                    until = min(now + left_seconds, until or math.inf)
                await _wait(wake, until, now)
                continue
            try:
                await self._send(stream, message)
            except ConnectionError:
                return
            del message  # an idle stream must not keep the last message alive

    def _left_seconds(self, stream: _Stream) -> float | None:
        """Return how long the credential of a stream is good for, None if for ever."""
        ends_at = stream.ends_at_epoch_seconds
        return None if ends_at is None else ends_at - self._wall_clock()

    async def _send(self, stream: _Stream, message: Outgoing) -> None:
        data = self._framer.frame(stream.info.variant, message)
        await stream.transport.send(data)
        count_sent = len(message.resources) + len(message.removed)
        self._observer.pushed(stream.info, message.type_url, count_sent, len(data))


async def _wait(wake: asyncio.Event, until: float | None, now: float) -> None:
    if until is None:
        await wake.wait()
        return
    try:
        async with asyncio.timeout(until - now):
            await wake.wait()
    except TimeoutError:
        return


def _of_type(request: Request, only_type: str) -> Request:
    """Return the request with its type filled in, as clients of per-type services may omit it."""
    if not only_type:
        if not request.type_url:
            raise InvalidRequest("the request names no resource type")
        return request
    if request.type_url and request.type_url != only_type:
        raise InvalidRequest(f"this service serves {only_type} only, not {request.type_url[:128]}")
    return request if request.type_url else replace(request, type_url=only_type)
