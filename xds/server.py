"""
Discovery over grpc.aio: ADS, the per-type services and CSDS on one port.

A thin shell: messages pass as bytes in both directions, all rules are in `pilothouse.xds.streams`
and below. Several servers may share one `Streams`, each with its own rule of who may come, and may
carry services of others beside (the certificate service). It speaks plaintext; TLS is ended in
front of it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio

from pilothouse.errors import MeshError
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import CDS, ECDS, EDS, LDS, RDS, SDS
from pilothouse.xds.auth import (
    Authenticate,
    MayInspect,
    NotAuthenticated,
    Verified,
    inspect_everything,
    know_nobody,
)
from pilothouse.xds.csds import ClientStatus
from pilothouse.xds.requests import InvalidRequest, Variant
from pilothouse.xds.streams import Streams
from pilothouse.xds.transport import EndReason, StreamEnded

_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_CSDS: Final = "envoy.service.status.v3.ClientStatusDiscoveryService"

METHODS: Final[tuple[tuple[str, str, Variant, str], ...]] = (
    (_ADS, "StreamAggregatedResources", Variant.SOTW, ""),
    (_ADS, "DeltaAggregatedResources", Variant.DELTA, ""),
    *(
        (f"envoy.service.{package}.v3.{service}DiscoveryService", f"{verb}{plural}", variant, url)
        for package, service, plural, url in (
            ("cluster", "Cluster", "Clusters", CDS),
            ("endpoint", "Endpoint", "Endpoints", EDS),
            ("listener", "Listener", "Listeners", LDS),
            ("route", "Route", "Routes", RDS),
            ("secret", "Secret", "Secrets", SDS),
            ("extension", "ExtensionConfig", "ExtensionConfigs", ECDS),
        )
        for verb, variant in (("Stream", Variant.SOTW), ("Delta", Variant.DELTA))
    ),
)
"""Service, method, variant, and the one type it serves ("" for ADS)."""

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""An Envoy that reconnects names every resource it has, so requests are large (default 4 MB)."""

MAX_STATUS_CALLS: Final = 64
"""Callers of the status service at once, those included that have not said what they want."""
MAX_STATUS_CALLS_EACH: Final = 16
"""And of one identity, so that an operator is answered whatever a workload does."""

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # Two servers on one port would split the proxies silently.
    ("grpc.so_reuseport", 0),
    # A proxy that vanished is noticed within 40 s; clients may ping every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_concurrent_streams", 64),
    # Calls that came and were not looked at yet: of more than this, gRPC cancels some at random,
    # streams of proxies among them. A mesh that starts anew asks for thousands of certificates.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class AddressInUse(MeshError):
    """The address cannot be listened on."""

    def __init__(self, address: str, problem: str) -> None:
        """Keep the address asked for and the system's words."""
        super().__init__(address, problem)
        self.address = address
        self.problem = problem

    def __str__(self) -> str:
        """Say what to do."""
        return f"cannot listen on {self.address}: {self.problem}"


class DiscoveryServer:
    """One port."""

    def __init__(
        self,
        streams: Streams,
        *,
        authenticate: Authenticate = know_nobody,
        may_inspect: MayInspect | None = inspect_everything,
        address_of: Callable[[str], str] = str,
        services: "Sequence[grpc.GenericRpcHandler[Any, Any]]" = (),
    ) -> None:
        """
        Serve `streams`, and `services` of others beside.

        `authenticate` says who a peer is; `may_inspect` what callers of the status service see,
        which is not offered if None; `address_of` makes gRPC's name of a peer one for people.
        """
        self._streams = streams
        self._status = ClientStatus(streams)
        self._authenticate = authenticate
        self._may_inspect = may_inspect
        self._address_of = address_of
        self._services = tuple(services)
        self._server: Any = None
        self._status_calls: Counter[WorkloadIdentity | None] = Counter()
        self.port = 0

    async def start(self, address: str) -> int:
        """
        Listen on ``HOST:PORT`` (port 0: any free one) or ``unix:PATH`` and return the port.

        Raises: AddressInUse: Somebody else does, or the host is not ours.
        """
        server = grpc.aio.server(options=OPTIONS)
        handlers: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
        for service, method, variant, only_type in METHODS:
            behavior = self._discovery(variant, only_type)
            handlers.setdefault(service, {})[method] = _stream_handler(behavior)
        if self._may_inspect is not None:
            handlers[_CSDS] = {
                "StreamClientStatus": _stream_handler(self._status_stream),
                # Unary on the wire; as a stream it is read only once the caller is known.
                "FetchClientStatus": grpc.stream_unary_rpc_method_handler(self._status_call),
            }
        server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service, methods)
                for service, methods in handlers.items()
            )
        )
        if self._services:
            server.add_generic_rpc_handlers(self._services)
        try:
            self.port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUse(address, "it is in use, or not an address of this host") from error
        await server.start()
        self._server = server
        return self.port

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """End every stream of `streams` with UNAVAILABLE, then the server."""
        self._streams.close()
        if self._server is not None:
            await self._server.stop(grace_seconds)

    def _discovery(
        self, variant: Variant, only_type: str
    ) -> Callable[[object, Context], Awaitable[None]]:
        async def serve(_requests: object, context: Context) -> None:
            transport = GrpcTransport(context, self._address_of)
            try:
                await self._streams.serve(transport, variant, self._authenticate, only_type)
            except StreamEnded as ended:
                await context.abort(_STATUS[ended.reason], ended.text)

        return serve

    # -- the status service -----------------------------------------------------------------------

    async def _status_stream(self, _requests: object, context: Context) -> None:
        transport = GrpcTransport(context, self._address_of)
        while (answer := await self._status_answer(transport)) is not None:
            if isinstance(answer, tuple):
                await context.abort(*answer)
            else:
                await transport.send(answer)

    async def _status_call(self, _requests: object, context: Context) -> bytes:
        answer = await self._status_answer(GrpcTransport(context, self._address_of))
        if isinstance(answer, tuple):
            await context.abort(*answer)
        return answer if isinstance(answer, bytes) else b""

    async def _status_answer(
        self, transport: "GrpcTransport"
    ) -> bytes | tuple[grpc.StatusCode, str] | None:
        """
        Return the answer to the next request, or why there is none; None at the end.

        An abort keeps all frames that it passes through until the garbage collector comes by, so
        it must not pass through this one, which holds a message of many megabytes.
        """
        try:
            # Before anything is read, and again when the caller has said what it wants: a
            # stream may wait for days between two requests, and its credential may not last.
            verified = await self._authenticate(transport)
            who = verified.identity if verified is not None else None
            most = MAX_STATUS_CALLS if who is None else MAX_STATUS_CALLS_EACH
            calls = self._status_calls
            if calls.total() >= MAX_STATUS_CALLS or calls[who] >= most:
                return grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask for the status at once"
            calls[who] += 1
            try:
                data = await transport.receive()
                if data is None:
                    return None
                caller = await self._authenticate(transport)
                return await self._status.answer(data, partial(self._may_see, caller))
            finally:
                calls[who] -= 1
                if not calls[who]:
                    del calls[who]
        except NotAuthenticated as error:
            return grpc.StatusCode.UNAUTHENTICATED, str(error)
        except InvalidRequest as error:
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)

    def _may_see(self, caller: Verified | None, proxy: Proxy) -> bool:
        return self._may_inspect is not None and self._may_inspect(caller, proxy)


_STATUS: Final[Mapping[EndReason, grpc.StatusCode]] = {
    reason: grpc.StatusCode[reason.value] for reason in EndReason
}


_CLOSED: Final = (
    grpc.RpcError,
    grpc.aio.UsageError,
    grpc.aio.InternalError,  # the client went while the first message was being written
    asyncio.InvalidStateError,
)


class GrpcTransport:
    """A stream carried by grpc.aio; `send` returns when the bytes have passed flow control."""

    __slots__ = ("_address_of", "_context")

    def __init__(self, context: Context, address_of: Callable[[str], str] = str) -> None:
        """Wrap the context of a stream whose messages are plain bytes."""
        self._context = context
        self._address_of = address_of

    @property
    def peer(self) -> str:
        """The client's connection, as ``ipv4:HOST:PORT`` or ``unix-abstract:NAME``."""
        return str(self._context.peer())

    @property
    def address(self) -> str:
        """Where the client is."""
        return self._address_of(self.peer)

    @property
    def metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """The headers of the call."""
        return tuple(self._context.invocation_metadata() or ())

    async def receive(self) -> bytes | None:
        """Return the next message, None at the end."""
        data: object = await self._context.read()  # a marker of its own at the end
        return data if isinstance(data, bytes) else None

    async def send(self, data: bytes) -> None:
        """
        Write a message.

        Raises: ConnectionError: The client is gone.
        """
        try:
            await self._context.write(data)
        except _CLOSED as error:
            raise ConnectionError("the stream is closed") from error


def _stream_handler(behavior: Any) -> "grpc.RpcMethodHandler[bytes, bytes]":  # noqa: ANN401
    return grpc.stream_stream_rpc_method_handler(behavior)
