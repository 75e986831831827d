"""
The main process' side of the front: starts it, keeps it going, decides whom it lets in.

The listening socket belongs to the main process: while a front that died is being replaced,
connections wait in its queue. The front gets keys over the socket pair, never by argument,
environment or file.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec

from pilothouse.certs.callers import ClientCertificate, CredentialRefused
from pilothouse.certs.front.control import (
    Close,
    Closed,
    Configure,
    Configured,
    FromFront,
    Hold,
    Leave,
    Limits,
    Material,
    Opened,
    ToFront,
    Turned,
    Verdict,
    WantsCertificates,
    encode,
    read_frame,
)
from pilothouse.certs.front.half_open import Turn
from pilothouse.certs.front.peers import Peer, Peers, Recognise
from pilothouse.certs.front.strangers import Strangers
from pilothouse.errors import SourceError

STRANGER_SECONDS: Final = 60.0
"""How long a connection may be open before its first recognised call."""
_LOOK_FOR_STRANGERS_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 2.0
_START_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0
_RETIRE_PAUSE_SECONDS: Final = 0.02
_RETIRE_WITHIN_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 30.0


class FrontFailed(SourceError):
    """The front cannot serve with what it was given, or does not start."""

    def __init__(self, problem: str) -> None:
        """Keep what is wrong."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The secure port cannot be served: {self.problem}."


class FrontObserver(Protocol):
    """Somebody who counts and logs."""

    def turned_away(self, counts: Mapping[str, int], address: str, detail: str) -> None:
        """Connections came to nothing, by reason, with one of them as an example."""
        ...

    def certificate_refused(self, address: str, detail: str) -> None:
        """A verified client certificate names no workload of this mesh."""
        ...

    def front_ended(self, exit_code: int | None) -> None:
        """The front died and is replaced; its connections are gone."""
        ...


class TlsFront:
    """The front of one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        backend: Path,
        *,
        peers: Peers,
        recognise: Recognise,
        observer: FrontObserver,
        clock: Callable[[], float],
        limits: Limits | None = None,
        stranger_seconds: float = STRANGER_SECONDS,
    ) -> None:
        """
        Serve `listener` before the Unix socket `backend`.

        `recognise` reads verified certificates; `clock` is seconds that never go back.
        """
        self._listener = listener
        self._backend = backend
        self._peers = peers
        self._is_held = False
        peers.on_wants = self._tell_wants
        self._recognise = recognise
        self._observer = observer
        self._clock = clock
        self._limits = limits or Limits()
        self._stranger_seconds = stranger_seconds
        self._strangers = Strangers(self._limits.most_strangers())
        self._material: Material | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None
        self._configured: asyncio.Future[str | None] | None = None
        self._updating = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The front's process, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self, material: Material) -> None:
        """
        Start the front; connections are taken once `run` runs.

        Raises: FrontFailed: It does not start, or cannot use the material.
        """
        self._material = material
        await self._spawn()

    async def run(self) -> None:
        """Answer the front, and replace it when it dies, until cancelled."""
        pause = _FIRST_PAUSE_SECONDS
        strangers = asyncio.create_task(self._close_strangers())
        try:
            while True:
                began = self._clock()
                await self._answer()
                exit_code = await self._reap()
                self._observer.front_ended(exit_code)
                if self._clock() - began > _STEADY_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                with contextlib.suppress(FrontFailed):
                    await self._spawn()
        finally:
            strangers.cancel()

    async def update(self, material: Material) -> None:
        """
        Serve new handshakes with other material; connections stay. `run` must be running.

        Raises: FrontFailed: It cannot be used; the front goes on with what it has.
        """
        async with self._updating:
            if material == self._material:
                return
            if self._writer is not None:
                self._configured = asyncio.get_running_loop().create_future()
                self._tell(Configure(material=material, limits=self._limits))
                try:
                    async with asyncio.timeout(_START_SECONDS):
                        problem = await self._configured
                except TimeoutError:
                    problem = "it does not answer"
                if problem:
                    raise FrontFailed(problem)
            self._material = material

    def close(self, serials: Collection[str]) -> int:
        """Close connections by certificates of these serial numbers; return how many."""
        names = list(self._peers.holding(serials))
        for name in names:
            self._tell(Close(name=name))
        return len(names)

    def retire(self, roots: Collection[str]) -> int:
        """
        Close connections by certificates of other roots than these; return how many.

        One after the other, as who is closed comes back at once and needs another handshake.
        """
        names = list(self._peers.relying_on_others(roots))
        pause_seconds = min(_RETIRE_PAUSE_SECONDS, _RETIRE_WITHIN_SECONDS / max(1, len(names)))
        loop = asyncio.get_running_loop()
        for number, name in enumerate(names):
            loop.call_later(number * pause_seconds, self._tell, Close(name=name))
        return len(names)

    def hold(self, is_on: bool) -> None:  # noqa: FBT001 (a callback's one fact)
        """Keep requests for certificates back in the front, or let them go on."""
        # Without such connections there is nothing to keep back, and nobody is bothered.
        if is_on != self._is_held and (self._is_held or self._peers.want_certificates):
            self._is_held = is_on
            self._tell(Hold(is_on=is_on))

    async def stop(self) -> None:
        """End the front; it passes on what gRPC wrote last."""
        await self._reap()

    # -- the process ------------------------------------------------------------------------------

    async def _spawn(self) -> None:
        material = self._material
        if material is None:
            raise FrontFailed("it has no certificate")
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "pilothouse.certs.front",
                str(self._listener.fileno()), str(theirs.fileno()), str(self._backend),
                pass_fds=(self._listener.fileno(), theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise FrontFailed(f"its process does not start ({error.strerror})") from error
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._tell(Configure(material=material, limits=self._limits))
        try:
            async with asyncio.timeout(_START_SECONDS):
                frame = await read_frame(self._reader)
        except TimeoutError:
            frame = None
        first = _DECODER.decode(frame) if frame is not None else Configured(problem="it ended")
        if not isinstance(first, Configured) or first.problem:
            await self._reap()
            problem = first.problem if isinstance(first, Configured) else "it does not answer"
            raise FrontFailed(problem)

    async def _reap(self) -> int | None:
        """Close the socket pair, upon which the front ends; return its exit code."""
        self._peers.clear()
        self._strangers.clear()
        self._is_held = False
        if self._configured is not None and not self._configured.done():
            self._configured.set_result(None)  # its successor will be given the new material
        self._tell(Leave())
        writer, process = self._writer, self._process
        self._writer = self._reader = self._process = None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if process is None:
            return None
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    # -- the conversation -------------------------------------------------------------------------

    def _tell(self, message: ToFront) -> None:
        if self._writer is not None:
            self._writer.write(encode(message))

    def _tell_wants(self, name: str, is_all: bool) -> None:  # noqa: FBT001
        self._tell(WantsCertificates(name=name, is_all=is_all))

    async def _answer(self) -> None:
        """Answer until the front ends, or says what it may not."""
        with contextlib.suppress(ValueError, msgspec.DecodeError):
            while (
                self._reader is not None and (frame := await read_frame(self._reader)) is not None
            ):
                self._hear(_DECODER.decode(frame))

    def _hear(self, message: FromFront) -> None:
        match message:
            case Opened() as told:
                self._tell(Verdict(name=told.name, is_admitted=self._admit(told)))
            case Closed(name=name):
                self._peers.discard(name)
                self._strangers.leave(name)
            case Turned() as told:
                self._observer.turned_away(told.counts, told.address, told.detail)
            case Configured(problem=problem):
                if self._configured is not None and not self._configured.done():
                    self._configured.set_result(problem)

    def _admit(self, told: Opened) -> bool:
        certificate: ClientCertificate | None = None
        if told.certificate:
            try:
                certificate = self._recognise(told.certificate)
            except CredentialRefused as refused:
                self._observer.certificate_refused(told.address, refused.detail)
                return False
            except Exception as fault:  # noqa: BLE001 (an odd certificate must not end the server)
                self._observer.certificate_refused(told.address, f"it cannot be read: {fault!r}")
                return False
        self._peers.add(
            Peer(
                name=told.name,
                address=told.address,
                certificate=certificate,
                opened_at=self._clock(),
                root=told.root,
                on_recognised=partial(self._strangers.leave, told.name),
            )
        )
        if certificate is None:
            drop = partial(self._drop_stranger, told.name, told.address)
            self._strangers.enter(told.name, told.address, self._clock(), drop)
        return True

    def _drop_stranger(self, name: str, address: str) -> None:
        why = "too many connections on which nobody has said who they are"
        self._observer.turned_away({Turn.DROPPED.value: 1}, address, why)
        self._tell(Close(name=name))

    async def _close_strangers(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_FOR_STRANGERS_SECONDS, self._stranger_seconds))
            for name in list(self._peers.strangers(self._clock() - self._stranger_seconds)):
                self._tell(Close(name=name))


_DECODER: Final = msgspec.json.Decoder[FromFront](FromFront)
