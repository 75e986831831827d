"""
The life of discovery streams once they are let in (`pilothouse.xds.admission`): read, write, end.

One writer per stream asks the session for the next message only when the last has drained, so a
client that does not read holds one message and no queue. A stream ends with the credential that
it was opened with.
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
from pilothouse.xds.admission import Admission, Admitted, StreamLimits
from pilothouse.xds.auth import Authenticate
from pilothouse.xds.health import is_report, reported_problem
from pilothouse.xds.observer import Observer, SilentObserver
from pilothouse.xds.publisher import Member, Publisher
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.requests import InvalidRequest, Request, Variant
from pilothouse.xds.session import Outgoing
from pilothouse.xds.status import StreamInfo, StreamStatus, resources_of, type_status
from pilothouse.xds.transport import EndReason, StreamEnded, Transport
from pilothouse.xds.wire import Framer, parse


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
    roused_in: int = 0


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
        on_health: Callable[[Proxy, str | None], None] | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        """
        Serve what `publisher` publishes. `clock` must be the publisher's.

        `prepare` is awaited before a proxy is answered: for what is made for it alone. It may raise
        StreamEnded. `on_health` is told what agents report: what is wrong, None if nothing is.
        `on_written` is called when no stream that the last wave has roused `is_writing` any more.
        """
        self._publisher = publisher
        self._observer = observer or SilentObserver()
        self._clock = clock
        self._wall_clock = wall_clock
        self._prepare = prepare
        self._on_health = on_health
        self._on_written = on_written
        self._wave = 1
        self._writing = 0
        self._framer = Framer()
        self._numbers = count(1)
        self._streams: dict[int, _Stream] = {}
        self._is_void: Callable[[str], bool] = _is_never_void
        self._void_text = ""
        self._admission = Admission(limits or StreamLimits(), clock)

    # -- state ------------------------------------------------------------------------------------

    def set_ready(self) -> None:
        """Begin to answer: the config has been read once."""
        self._admission.set_ready()

    @property
    def is_ready(self) -> bool:
        """Whether streams are answered."""
        return self._admission.is_ready

    def close(self) -> None:
        """End every stream, and new ones at once."""
        self._admission.close()
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

    def begin_wave(self) -> None:
        """What is changed from now on is another wave; who has not written the last is slow."""
        self._wave += 1
        self._writing = 0

    @property
    def is_writing(self) -> bool:
        """Whether a stream that was not slow before has still to write what the wave changed."""
        return self._writing > 0

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
        """
        Return what a proxy has, by type; None if it is not connected.

        `proxy_id` is a node id or ``name.namespace``. A node of the same id and another identity
        is another proxy: ids are their own word.
        """
        proxies = (stream.info.proxy for stream in self._streams.values())
        names = ((each, f"{each.name}.{each.namespace}") for each in proxies)
        found = next((each for each, name in names if proxy_id in {each.id, name}), None)
        if found is None:
            return None
        return resources_of(
            stream.member.session
            for stream in self._streams.values()
            if (stream.info.proxy.id, stream.info.proxy.identity) == (found.id, found.identity)
        )

    def awaited(self, proxy_id: str, type_url: str) -> tuple[str, ...]:
        """Return the names of a type that a proxy asked for and does not have."""
        names: dict[str, None] = {}
        for stream in self._streams.values():
            watch = stream.member.session.watches.get(type_url)
            if watch is None or stream.info.proxy.id != proxy_id:
                continue
            for name in sorted(watch.subscription.names):
                if stream.member.named(type_url, name) is None:
                    names[name] = None
        return tuple(names)

    def end(self, is_void: Callable[[str], bool], text: str) -> int:
        """
        End the streams whose credential no longer counts; return how many.

        The rule stays: a stream that is on its way in was recognised before, and is held against
        it when it is let in.
        """
        self._is_void, self._void_text = is_void, text
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
        try:
            stream = await self._let_in(transport, variant, authenticate, only_type)
        except StreamEnded as ended:
            self._observer.refused(transport.address, ended.text)
            raise
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
            self._rest(stream)
            self._observer.disconnected(stream.info, reason)
        if stream.fault is not None:
            raise stream.fault

    async def _let_in(
        self, transport: Transport, variant: Variant, authenticate: Authenticate, only_type: str
    ) -> _Stream | None:
        """Return a stream that may be served, None if the client has gone."""
        admitted = await self._admission.admit(transport, variant, authenticate)
        if admitted is None:
            return None
        # It was recognised before its first request came, and all of that may have taken a minute.
        self._check_credential(admitted)
        if self._prepare is not None:
            await self._prepare(admitted.proxy)
            self._check_credential(admitted)
        return self._open(transport, variant, admitted, only_type)

    def _check_credential(self, admitted: Admitted) -> None:
        verified = admitted.verified
        if verified is not None and self._is_void(verified.credential):
            raise StreamEnded(EndReason.UNAUTHENTICATED, self._void_text)

    def _open(
        self, transport: Transport, variant: Variant, admitted: Admitted, only_type: str
    ) -> _Stream:
        wake = asyncio.Event()

        def rouse() -> None:
            if not stream.roused_in:
                stream.roused_in = self._wave
                self._writing += 1
            wake.set()

        try:
            member = self._publisher.join(admitted.proxy, variant, rouse)
        except MeshError as error:
            raise StreamEnded(EndReason.INTERNAL, str(error)) from error
        verified = admitted.verified
        info = StreamInfo(
            number=next(self._numbers),
            proxy=admitted.proxy,
            peer=transport.address,
            variant=variant,
            connected_at_epoch_seconds=self._wall_clock(),
            credential=verified.credential if verified is not None else "",
        )
        ends_at = verified.ends_at_epoch_seconds if verified is not None else None
        stream = _Stream(info, member, transport, wake, only_type, ends_at, admitted.request)
        return stream

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
                request = _of_type(request, stream.only_type)
                await stream.member.look_ahead(request)
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
        if is_report(request):
            if self._on_health is not None:
                self._on_health(stream.info.proxy, reported_problem(request))
            return
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
            if self._admission.is_closing:
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
                self._rest(stream)
                await _wait(wake, until, now)
                continue
            try:
                await self._send(stream, message)
            except ConnectionError:
                return
            del message  # an idle stream must not keep the last message alive

    def _rest(self, stream: _Stream) -> None:
        """Note that a stream has written all there was, or never will."""
        wave, stream.roused_in = stream.roused_in, 0
        if wave == self._wave:
            self._writing -= 1
            if not self._writing and self._on_written is not None:
                self._on_written()

    def _left_seconds(self, stream: _Stream) -> float | None:
        """Return how long the credential of a stream is good for, None if for ever."""
        ends_at = stream.ends_at_epoch_seconds
        return None if ends_at is None else ends_at - self._wall_clock()

    async def _send(self, stream: _Stream, message: Outgoing) -> None:
        data = self._framer.frame(stream.info.variant, message)
        await stream.transport.send(data)
        count_sent = len(message.resources) + len(message.removed)
        self._observer.pushed(stream.info, message.type_url, count_sent, len(data))


def _is_never_void(_credential: str) -> bool:
    return False


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
