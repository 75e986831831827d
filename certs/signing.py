"""
Signing in a process of its own, behind an asynchronous seam.

Signing holds the interpreter lock for most of its time, which would be taken from the pushes of
config; so worker processes do it, and this side only passes messages. Few requests are under way
at a worker, the others wait here in a bounded line, and who comes to a full one is refused at
once; while config is pushed nothing more is handed out or passed on. A worker that dies is
replaced; only the request it was busy with fails.
"""

import asyncio
import contextlib
import itertools
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from pilothouse.certs.issued import IssuedChain, KeyAlgorithm, KeyPair
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.material import BadMaterial, CaMaterial
from pilothouse.certs.precedence import Precedence
from pilothouse.certs.refusals import SigningFailed, SigningOverloaded
from pilothouse.certs.signing_messages import (
    LENGTH,
    Answer,
    IssueServer,
    IssueWorkload,
    Load,
    Made,
    Refused,
    Request,
    Signed,
    SignRequest,
    frame,
    read_answer,
)
from pilothouse.model.identity import WorkloadIdentity

DEFAULT_MAX_WAITING: Final = 10_000
"""Waiting requests; at 2 KB each that is 20 MB, and some ten seconds of one worker."""

_UNDER_WAY: Final = 2
"""Requests at one worker: one that it does, one that waits; what it has, it takes from pushes."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0
_HEALTHY_AFTER_SECONDS: Final = 10.0
_END_WITHIN_SECONDS: Final = 2.0

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Job:
    """A request, and who waits for its answer."""

    request: Request
    answer: "asyncio.Future[Answer]"


@dataclass(slots=True, eq=False)
class _Worker:
    """A running process, and what it has to do; the first of `under_way` is being done."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    under_way: deque[_Job] = field(default_factory=deque)


class SigningPool:
    """An `Issuer` over worker processes; lives on one event loop, between `start` and `close`."""

    def __init__(
        self,
        material: CaMaterial,
        policy: IssuingPolicy,
        *,
        clock: Callable[[], datetime],
        workers: int = 1,
        max_waiting: int = DEFAULT_MAX_WAITING,
        on_issued: Callable[[WorkloadIdentity, IssuedChain, bool], None] | None = None,
        precedence: Precedence | None = None,
    ) -> None:
        """
        Sign with checked material at the time that `clock` gives, with a zone.

        `on_issued` is told of every workload's certificate, and whether its key was made here,
        before who asked for it, in the order of signing: once `load` has returned, none by an
        earlier signer is still to come. Nothing is handed out, and no answer passed on, while
        `precedence` is closed.
        """
        self._material = material
        self._policy = policy
        self._clock = clock
        self._count = workers
        self._max_waiting = max_waiting
        self._on_issued = on_issued
        self._precedence = precedence or Precedence()
        self._precedence.heed(lambda is_closed: None if is_closed else self._hand_out())
        self._numbers = itertools.count(1)
        self._waiting: deque[_Job] = deque()
        self._workers: list[_Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._is_closing = False

    @property
    def waiting_count(self) -> int:
        """How many requests are not answered yet."""
        return len(self._waiting) + sum(len(worker.under_way) for worker in self._workers)

    @property
    def process_ids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    async def start(self) -> None:
        """
        Start the workers; return once each has loaded the material.

        Raises: BadMaterial: It cannot be loaded. OSError: A process cannot be started.
        """
        for _ in range(self._count):
            worker = await self._start_worker()
            self._keepers.append(asyncio.create_task(self._keep(worker), name="signing"))

    async def close(self) -> None:
        """End the workers; who still waits gets `SigningFailed`."""
        self._is_closing = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for worker in [*self._workers]:
            await self._end(worker)
            self._fail(worker.under_way)
        self._fail(self._waiting)
        self._workers.clear()

    async def load(self, material: CaMaterial, policy: IssuingPolicy | None = None) -> None:
        """
        Sign with other material from now on; return once every worker does.

        Raises: BadMaterial: It cannot be loaded; workers may differ then, so load again.
        """
        self._material = material
        self._policy = policy or self._policy
        for worker in [*self._workers]:
            try:
                answer = await self._ask_worker(worker, self._load_request())
            except SigningFailed:
                continue  # it has died; its successor loads what is current
            if isinstance(answer, Refused):
                raise BadMaterial(answer.text)

    async def sign(
        self, csr_pem: bytes, identity: WorkloadIdentity, ttl: timedelta | None = None
    ) -> IssuedChain:
        """Certify the key of a signing request. Raises: Refusal."""
        answer = await self._ask(
            SignRequest(next(self._numbers), csr_pem, str(identity), ttl, self._clock())
        )
        if not isinstance(answer, Signed):
            raise _error(answer)
        return answer.chain

    async def issue(
        self,
        identity: WorkloadIdentity,
        ttl: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    ) -> KeyPair:
        """Make a key and certify it for a workload. Raises: Refusal."""
        answer = await self._ask(
            IssueWorkload(next(self._numbers), str(identity), ttl, algorithm, self._clock())
        )
        if not isinstance(answer, Made):
            raise _error(answer)
        return answer.pair

    async def issue_server(self, names: Sequence[str], ttl: timedelta | None = None) -> KeyPair:
        """Make a key and certify it for a server; goes before all that waits. Raises: Refusal."""
        answer = await self._ask(
            IssueServer(next(self._numbers), tuple(names), ttl, self._clock()), first=True
        )
        if not isinstance(answer, Made):
            raise _error(answer)
        return answer.pair

    # -- the line ---------------------------------------------------------------------------------

    async def _ask(self, request: Request, *, first: bool = False) -> Answer:
        if self._is_closing:
            raise SigningFailed("the authority is closing")
        if len(self._waiting) >= self._max_waiting and not first:
            raise SigningOverloaded(
                f"{self._max_waiting} requests wait for the authority already; try again later"
            )
        job = _Job(request, asyncio.get_running_loop().create_future())
        if first:
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)
        self._hand_out()
        return await job.answer

    async def _ask_worker(self, worker: _Worker, request: Request) -> Answer:
        job = _Job(request, asyncio.get_running_loop().create_future())
        self._give(worker, job)
        return await job.answer

    def _hand_out(self) -> None:
        """Give what waits to workers that have room."""
        if self._precedence.is_closed:
            return
        for worker in self._workers:
            while self._waiting and len(worker.under_way) < _UNDER_WAY:
                job = self._waiting.popleft()
                if not job.answer.done():  # else who asked has gone
                    self._give(worker, job)

    @staticmethod
    def _give(worker: _Worker, job: _Job) -> None:
        worker.under_way.append(job)
        worker.writer.write(frame(job.request))

    @staticmethod
    def _fail(jobs: deque[_Job]) -> None:
        while jobs:
            job = jobs.popleft()
            if not job.answer.done():
                job.answer.set_exception(SigningFailed("the authority is closing"))

    # -- workers ----------------------------------------------------------------------------------

    def _load_request(self) -> Load:
        # Lists of what is revoked are not signed with, and may be larger than a message.
        material = msgspec.structs.replace(self._material, crl_pem=b"")
        return Load(next(self._numbers), material, self._policy)

    async def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "pilothouse.certs.signing_process",
                    str(theirs.fileno()),
                    pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,  # its errors go where ours do
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        worker = _Worker(process, reader, writer)
        try:
            writer.write(frame(self._load_request()))
            answer = await _read(reader)
        except BaseException as failure:
            await self._end(worker)
            if isinstance(failure, _GONE):
                raise SigningFailed("the signing process ended as it started") from failure
            raise
        if isinstance(answer, Refused):
            await self._end(worker)
            raise BadMaterial(answer.text)
        self._workers.append(worker)
        self._hand_out()
        return worker

    async def _keep(self, worker: _Worker) -> None:
        """Read a worker's answers; when it dies, start another in its place."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            with contextlib.suppress(*_GONE):
                await self._read_answers(worker)
            self._mourn(worker)
            await self._end(worker)
            if time.monotonic() - started > _HEALTHY_AFTER_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            while True:
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                try:
                    worker = await self._start_worker()
                    break
                except (OSError, BadMaterial, SigningFailed) as failure:
                    problem = str(failure)
                log.error("signing.worker_does_not_start", problem=problem)

    async def _read_answers(self, worker: _Worker) -> None:
        while True:
            answer = await _read(worker.reader)
            await self._precedence.opened()  # what an answer sets off takes as long as a push
            job = worker.under_way.popleft()
            if answer.number != job.request.number:
                worker.under_way.appendleft(job)
                raise ConnectionError("an answer came out of order")
            self._tell(job.request, answer)
            if not job.answer.done():
                job.answer.set_result(answer)
            self._hand_out()

    def _tell(self, request: Request, answer: Answer) -> None:
        if self._on_issued is None:
            return
        if isinstance(request, SignRequest) and isinstance(answer, Signed):
            self._on_issued(WorkloadIdentity.parse(request.identity), answer.chain, False)
        elif isinstance(request, IssueWorkload) and isinstance(answer, Made):
            self._on_issued(WorkloadIdentity.parse(request.identity), answer.pair.chain, True)

    def _mourn(self, worker: _Worker) -> None:
        """Fail what a dead worker was doing, which may be why it died; the rest waits again."""
        log.error("signing.worker_died", pid=worker.process.pid, under_way=len(worker.under_way))
        self._workers.remove(worker)
        jobs = worker.under_way
        if jobs:
            culprit = jobs.popleft()
            if not culprit.answer.done():
                culprit.answer.set_exception(SigningFailed("the signing process died"))
        for job in reversed(jobs):
            if isinstance(job.request, Load):
                job.answer.set_exception(SigningFailed("the signing process died"))
            else:
                self._waiting.appendleft(job)
        self._hand_out()

    @staticmethod
    async def _end(worker: _Worker) -> None:
        """Close the socket, upon which the process ends; kill it if it does not."""
        worker.writer.close()
        with contextlib.suppress(OSError):
            await worker.writer.wait_closed()
        try:
            await asyncio.wait_for(worker.process.wait(), _END_WITHIN_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()


_GONE: Final = (OSError, EOFError, msgspec.DecodeError)


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readexactly(LENGTH.size)
    return read_answer(await reader.readexactly(LENGTH.unpack(head)[0]))


def _error(answer: Answer) -> Exception:
    if isinstance(answer, Refused):
        return answer.error()
    return SigningFailed("the signing process gave another answer than asked for")
