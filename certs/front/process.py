"""
The front itself: accepts, ends TLS, asks whether to let in, relays.

It knows nothing of identities: the main process reads the certificate that the handshake verified
and decides. It says, too, which connections give way to others, and when. The front ends when the
main process does, because then its socket pair does.
"""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from pilothouse.certs.front.control import (
    Close,
    Closed,
    Configure,
    Configured,
    FromFront,
    Hold,
    Leave,
    Limits,
    Opened,
    ToFront,
    Turned,
    Verdict,
    WantsCertificates,
    encode,
    read_frame,
)
from pilothouse.certs.front.half_open import HalfOpens, Turn, network
from pilothouse.certs.front.relay import Side, Stop, join
from pilothouse.certs.front.tls import BadMaterial, server_context, verified_root

_SHUTDOWN_SECONDS: Final = 5.0
"""How long a client that is told goodbye may take to read what was written."""
_LAST_WORDS_SECONDS: Final = 0.5
"""How long what the server wrote last may take to reach the clients when all ends."""
_RETRY_ACCEPT_SECONDS: Final = 0.1
_QUEUE_FULL_SECONDS: Final = 0.02
_TELL_EVERY_SECONDS: Final = 1.0
_KEEPALIVE: Final = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    # Written and not acknowledged for so long (ms): the client is gone.
    ("TCP_USER_TIMEOUT", 60_000),
)


class Front:
    """All of the front; `run` ends when the main process has gone."""

    def __init__(
        self,
        listener: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        backend: str,
    ) -> None:
        """Serve `listener` before the Unix socket `backend`, as told by the main process."""
        self._listener = listener
        self._reader = reader
        self._writer = writer
        self._backend = backend
        self._context: ssl.SSLContext | None = None
        self._limits = Limits()
        self._half_open = self._new_half_open()
        self._most = 0
        self._verdicts: dict[str, asyncio.Future[bool]] = {}
        self._open: dict[str, Side] = {}
        self._closed = asyncio.Event()
        self._stop = Stop()
        self._may_accept = asyncio.Event()
        self._may_accept.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turned: dict[str, int] = {}
        self._example = ("", "")

    async def run(self) -> bool:
        """
        Do as told until the other end of the socket pair closes.

        Return whether it said goodbye: if not, the main process was killed.
        """
        was_told = False
        decoder = msgspec.json.Decoder(ToFront)
        accepting: asyncio.Task[None] | None = None
        telling = asyncio.create_task(self._tell_turned())
        while (frame := await read_frame(self._reader)) is not None:
            match decoder.decode(frame):
                case Configure() as told:
                    self._tell(Configured(problem=self._configure(told)))
                    if accepting is None and self._context is not None:
                        accepting = asyncio.create_task(self._accept())
                case Leave():
                    was_told = True
                case Hold() as told:
                    self._hold(told.is_on)
                case Verdict() | Close() | WantsCertificates() as told:
                    self._hear_of(told)
        for task in (telling, accepting):
            if task is not None:
                task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._all_closed()
        return was_told

    def _hear_of(self, told: Verdict | Close | WantsCertificates) -> None:
        """Do what is told of one connection, which may have gone."""
        if isinstance(told, Verdict):
            waiting = self._verdicts.pop(told.name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(told.is_admitted)
            return
        side = self._open.get(told.name)
        if side is not None and isinstance(told, Close):
            side.close()
        elif side is not None and isinstance(told, WantsCertificates):
            side.gives_way = told.is_all

    def _hold(self, is_on: bool) -> None:  # noqa: FBT001
        self._stop.turn(is_on)
        if is_on:
            self._may_accept.clear()  # a handshake takes more time than anything else here
        else:
            self._may_accept.set()

    async def _all_closed(self) -> None:
        while self._open:
            self._closed.clear()
            await self._closed.wait()

    def _configure(self, told: Configure) -> str:
        try:
            self._context = server_context(told.material)
        except BadMaterial as error:
            return str(error)
        if told.limits != self._limits:
            self._limits = told.limits
            self._half_open = self._new_half_open()
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = self._limits.most_connections(descriptors)
        return ""

    def _new_half_open(self) -> HalfOpens:
        limits = self._limits
        return HalfOpens(
            total=limits.half_open,
            by_address=limits.half_open_by_address,
            grace_seconds=limits.grace_seconds,
        )

    def _tell(self, message: FromFront) -> None:
        self._writer.write(encode(message))

    # -- connections ------------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError:  # out of descriptors, or the client has gone already
                await asyncio.sleep(_RETRY_ACCEPT_SECONDS)
                continue
            await self._may_accept.wait()
            self._take(connection, address)

    def _take(self, connection: socket.socket, address: Any) -> None:  # noqa: ANN401 (the system's)
        host, shown = str(address[0]), _shown(address)
        if len(self._open) + len(self._half_open) >= self._most:
            self._turn(Turn.FULL, shown, "as many connections as are allowed")
            connection.close()
            return
        loop = asyncio.get_running_loop()
        half_open = self._half_open

        def drop() -> None:
            self._turn(Turn.DROPPED, shown, "too many unfinished handshakes")
            task.cancel()

        entry = half_open.enter(network(host), loop.time(), drop)
        if entry is None:
            connection.close()
            self._turn(Turn.REFUSED, shown, "too many unfinished handshakes")
            return
        done = partial(half_open.leave, entry)
        task = loop.create_task(self._let_in(connection, shown, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _let_in(
        self, connection: socket.socket, address: str, is_shaken: Callable[[], None]
    ) -> None:
        """Take a connection from its first byte to where the relay runs by itself."""
        name = os.urandom(16).hex()
        client = Side(lambda: self._lost(name), self._limits.buffer_bytes, self._stop)
        try:
            certificate, root = await self._handshake(connection, client)
        except (OSError, ssl.SSLError) as error:  # a timeout is an OSError
            is_slow = isinstance(error, TimeoutError) or "longer than" in str(error)
            self._turn(Turn.SLOW if is_slow else Turn.HANDSHAKE, address, _reason(error))
            return
        finally:
            is_shaken()
        self._open[name] = client
        verdict = self._verdicts[name] = asyncio.get_running_loop().create_future()
        self._tell(Opened(name=name, address=address, certificate=certificate, root=root))
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                if await verdict:
                    await self._connect(name, client)
                else:
                    self._turn(Turn.IDENTITY, address, "the client certificate names no workload")
                    client.abort()
        except (OSError, TimeoutError) as error:
            self._turn(Turn.BACKEND, address, _reason(error))
            client.abort()
        except asyncio.CancelledError:
            client.abort()
            raise
        finally:
            self._verdicts.pop(name, None)

    async def _handshake(self, connection: socket.socket, client: Side) -> tuple[bytes, str]:
        """Return the verified leaf, DER, and its root; b"" and "" if the client gave none."""
        _keep_alive(connection)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: client,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._limits.handshake_seconds,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) or b""
        return certificate, verified_root(tls) if certificate else ""

    async def _connect(self, name: str, client: Side) -> None:
        """Connect to the gRPC server under the connection's name, which it sees as the peer's."""
        loop = asyncio.get_running_loop()
        own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            own.setblocking(False)
            own.bind("\0" + name)
            await _connected(own, self._backend)
            server = Side(client.close, self._limits.buffer_bytes)
            await loop.create_unix_connection(lambda: server, sock=own)
        except BaseException:
            own.close()
            raise
        join(server, client)

    def _lost(self, name: str) -> None:
        if self._open.pop(name, None) is not None:
            self._closed.set()
            self._tell(Closed(name=name))

    # -- what came to nothing ---------------------------------------------------------------------

    def _turn(self, how: Turn, address: str, detail: str) -> None:
        self._turned[how] = self._turned.get(how, 0) + 1
        self._example = (address, detail)

    async def _tell_turned(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_SECONDS)
            if self._turned:
                address, detail = self._example
                self._tell(Turned(counts=self._turned, address=address, detail=detail))
                self._turned = {}


def _shown(address: Any) -> str:  # noqa: ANN401 (the system's)
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


async def _connected(own: socket.socket, path: str) -> None:
    """
    Connect to a Unix socket, and wait while its queue is full.

    Event loops take the system's "try again" for "under way", which of Unix sockets it is not.
    """
    while True:
        try:
            own.connect(path)
        except BlockingIOError:
            await asyncio.sleep(_QUEUE_FULL_SECONDS)
        else:
            return


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in _KEEPALIVE:
        if (number := getattr(socket, option, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, number, value)
