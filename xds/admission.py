"""
Who is let in: known, at a rate, with a first request that fits, and not before we are ready.

A stream is known before anything of it is read, and whoever then says nothing is bounded in time
and number. Streams that come before the config has been read are held open, which spares proxies
the back-off of a refused reconnect.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.xds.auth import Authenticate, NotAuthenticated, NotAuthorized, Verified, identified
from pilothouse.xds.health import is_report
from pilothouse.xds.node import read_proxy
from pilothouse.xds.rate import RateLimit
from pilothouse.xds.requests import InvalidRequest, Request, Variant
from pilothouse.xds.transport import EndReason, StreamEnded, Transport
from pilothouse.xds.wire import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """
    Bounds on what a stream may wait for, and on streams that are not let in yet.

    `silent` is how many may owe their first request, of those that are known and of those that are
    not, each; of one identity three quarters of that, so that nobody keeps all others out.
    `connects_per_second` is the rate at which streams are let in, after a burst of one
    second's worth (None: no limit); one that would wait longer than `connect_within_seconds` is
    refused (traffic.md XP-04).
    """

    ready_within_seconds: float = 30.0
    first_request_within_seconds: float = 30.0
    silent: int = 4_096
    connects_per_second: float | None = None
    connect_within_seconds: float = 1.0


@dataclass(slots=True, eq=False)
class Admitted:
    """Who is let in, and with which request; who serves it takes that out, as it may be large."""

    proxy: Proxy
    verified: Verified | None
    request: Request | None


class Admission:
    """The door of one control plane, whatever port streams come by."""

    def __init__(self, limits: StreamLimits, clock: Callable[[], float]) -> None:
        """`clock` is seconds that never go back."""
        self._limits = limits
        self._clock = clock
        self._ready = asyncio.Event()
        self._silent = {True: 0, False: 0}
        self._silent_of: Counter[WorkloadIdentity] = Counter()
        rate = limits.connects_per_second
        self._rate = RateLimit(rate) if rate is not None else None
        self.is_closing = False

    @property
    def is_ready(self) -> bool:
        """Whether streams are answered."""
        return self._ready.is_set()

    def set_ready(self) -> None:
        """Begin to let in."""
        self._ready.set()

    def close(self) -> None:
        """Let nobody in any more."""
        self.is_closing = True
        self._ready.set()

    async def admit(
        self, transport: Transport, variant: Variant, authenticate: Authenticate
    ) -> Admitted | None:
        """
        Return who may be served, None if the client has gone.

        Raises: StreamEnded: It is refused.
        """
        try:
            verified = await authenticate(transport)
        except NotAuthenticated as error:
            raise StreamEnded(EndReason.UNAUTHENTICATED, str(error)) from error
        await self._wait_for_turn()
        found = await self._first_request(transport, variant, verified)
        if isinstance(found, StreamEnded):
            raise found
        if found is not None:
            await self._wait_until_ready()
        return found

    async def _wait_for_turn(self) -> None:
        if self._rate is None:
            return
        seconds = self._rate.take(self._clock(), self._limits.connect_within_seconds)
        if seconds is None:
            text = "too many streams are opened at once"
            raise StreamEnded(EndReason.RESOURCE_EXHAUSTED, text)
        await asyncio.sleep(seconds)

    async def _first_request(
        self, transport: Transport, variant: Variant, verified: Verified | None
    ) -> Admitted | StreamEnded | None:
        """
        Return who a stream is by its first request, None if the client has gone.

        Why it is refused is returned, not raised: a traceback would hold on to a message of many
        megabytes until the garbage collector comes by.
        """
        is_known = verified is not None
        who = verified.identity if verified is not None else None
        is_greedy = who is not None and self._silent_of[who] >= max(self._limits.silent * 3 // 4, 1)
        if self._silent[is_known] >= self._limits.silent or is_greedy:
            text = "too many streams have not sent their first request"
            return StreamEnded(EndReason.RESOURCE_EXHAUSTED, text)
        self._silent[is_known] += 1
        if who is not None:
            self._silent_of[who] += 1
        try:
            async with asyncio.timeout(self._limits.first_request_within_seconds):
                found = await _first_of(transport, variant)
        except TimeoutError:
            return StreamEnded(EndReason.DEADLINE_EXCEEDED, "no discovery request came")
        except InvalidRequest as error:
            return StreamEnded(EndReason.INVALID_ARGUMENT, str(error))
        finally:
            self._silent[is_known] -= 1
            if who is not None:
                self._silent_of[who] -= 1
                if not self._silent_of[who]:
                    del self._silent_of[who]
        if found is None:
            return None
        try:
            request, node = found
            return Admitted(identified(read_proxy(node), verified), verified, request)
        except InvalidRequest as error:
            return StreamEnded(EndReason.INVALID_ARGUMENT, str(error))
        except NotAuthorized as error:
            return StreamEnded(EndReason.PERMISSION_DENIED, str(error))

    async def _wait_until_ready(self) -> None:
        try:
            async with asyncio.timeout(self._limits.ready_within_seconds):
                await self._ready.wait()
        except TimeoutError:
            text = "the config has not been read yet"
            raise StreamEnded(EndReason.UNAVAILABLE, text) from None
        if self.is_closing:
            raise StreamEnded(EndReason.UNAVAILABLE, "the control plane is shutting down")


async def _first_of(transport: Transport, variant: Variant) -> tuple[Request, Node | None] | None:
    """
    Return the first request and its node, None if the client has gone. Raises: InvalidRequest.

    A health report that comes before it, and says not whose it is, is passed over, as istiod does.
    """
    while (data := await transport.receive()) is not None:
        request, node = parse(variant, data)
        if node is not None or not is_report(request):
            return request, node
    return None
