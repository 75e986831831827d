"""
Auto-registration at work: the book of who is registered, fed by streams, a clock and the config.

A workload that asks for it is registered before its first request is answered, so that what it is
served knows of it already, and dropped some time after its last stream has ended. The rules are in
`pilothouse.model.registration_book`; here are time, metrics under istiod's names, and refusals as
gRPC's. Entries live in this process; a file lets the next one begin with them (ADR 22).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pilothouse.api.meta import ObjectKey
from pilothouse.api.workload import WorkloadGroup
from pilothouse.graph.findings import Finding
from pilothouse.model.proxies import Proxy
from pilothouse.model.registration import (
    Claim,
    RefusalReason,
    RegistrationRefused,
    claim_of,
)
from pilothouse.model.registration_book import RegistrationBook, Remembered, Tally, Workload
from pilothouse.model.registration_findings import Refusal, registration_findings
from pilothouse.runtime.commit import Change
from pilothouse.runtime.registrations_file import RegistrationsFile
from pilothouse.xds.transport import EndReason, StreamEnded

MAX_REFUSALS: Final = 100
REFUSALS_KEPT_SECONDS: Final = 600.0
RECALLED_SECONDS: Final = 60.0
"""How long workloads of an earlier server have to come back: Envoy tries every 30 s at least."""
_BETWEEN_SAVES_SECONDS: Final = 1.0
_BETWEEN_COMMITS_SECONDS: Final = 0.1
_LONGEST_TEXT: Final = 253

_REASONS: Final[Mapping[RefusalReason, EndReason]] = {
    RefusalReason.NO_GROUP: EndReason.FAILED_PRECONDITION,
    RefusalReason.NO_ENTRY: EndReason.FAILED_PRECONDITION,
    RefusalReason.TAKEN: EndReason.FAILED_PRECONDITION,
    RefusalReason.NOT_KNOWN: EndReason.UNAUTHENTICATED,
    RefusalReason.OTHER_IDENTITY: EndReason.PERMISSION_DENIED,
    RefusalReason.BAD_NAME: EndReason.INVALID_ARGUMENT,
}
_TALLIED: Final = {
    "auto_registration_success": ("made", "Workloads registered."),
    "auto_registration_updates": ("updated", "Workloads that came to an entry there was."),
    "auto_registration_unregister": ("left", "Registered workloads whose last stream ended."),
    "auto_registration_deletes": ("dropped", "Registered workloads dropped after their grace."),
}

log = structlog.get_logger()


class Registrations:
    """See the module docstring; lives on one event loop."""

    def __init__(
        self,
        *,
        offer: Callable[[Iterable[Change]], None],
        put: Callable[[Iterable[Change]], Awaitable[None]],
        grace: timedelta,
        clock: Callable[[], float],
        registry: CollectorRegistry,
        knows_callers: bool,
        memory: RegistrationsFile,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Offer rows for the next commit, or put them and wait for it.

        `clock` is seconds that never go back; `grace` is how long an entry stays without a stream.
        `memory` is where the next server finds them.
        `on_change` is called when findings may have changed.
        """
        self._offer = offer
        self._put = put
        self._clock = clock
        self._knows_callers = knows_callers
        self._memory = memory
        self._saved: tuple[Remembered, ...] = ()
        self._is_to_save = asyncio.Event()
        self._on_change = on_change
        self._grace_seconds = grace.total_seconds()
        self._book = RegistrationBook(self._grace_seconds)
        self._refusals: dict[tuple[Refusal, RefusalReason], float] = {}
        self._wake = asyncio.Event()
        self._commit: asyncio.Task[None] | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self._last_commit = -math.inf
        self._errors = Counter(
            "auto_registration_errors", "Workloads that were not registered.", registry=registry
        )
        registry.register(_Tallied(self._book.tally))

    # -- config -----------------------------------------------------------------------------------

    def take(self, changes: Iterable[Change]) -> list[Change]:
        """Return what changes of config come to, with entries that follow them."""
        return self._book.take(changes)

    def recall(self) -> list[Change]:
        """Return the entries that an earlier server had; those who made them are on their way."""
        self._saved = self._memory.read()
        until = self._clock() + max(self._grace_seconds, RECALLED_SECONDS)
        return self._book.recall(self._saved, until)

    @property
    def groups(self) -> Mapping[ObjectKey, WorkloadGroup]:
        """The groups there are."""
        return self._book.groups

    # -- streams ----------------------------------------------------------------------------------

    async def prepare(self, proxy: Proxy) -> None:
        """
        Register a workload that asks for it; returns once the mesh knows.

        Raises: StreamEnded: It may not be registered so.
        """
        claim = claim_of(proxy)
        if claim is None or _only_reports(proxy):
            return
        try:
            changes = self._book.request(claim, self._clock())
        except RegistrationRefused as refused:
            self._note(claim, refused)
            raise StreamEnded(_REASONS[refused.reason], str(refused)) from refused
        self._forgive(claim)
        self._wake.set()
        if changes:
            log.info("registration.registered", entry=_shown(claim), group=claim.group)
            self._offer(changes)
            await self._published()

    def connected(self, proxy: Proxy) -> None:
        """Count a stream that was let in."""
        claim = claim_of(proxy)
        if claim is not None and not _only_reports(proxy):
            self._tell(self._book.connected(claim))

    def disconnected(self, proxy: Proxy) -> None:
        """Count a stream that has ended."""
        claim = claim_of(proxy)
        if claim is not None:
            if _only_reports(proxy):
                self._book.hushed(claim, self._clock())
            else:
                self._tell(self._book.disconnected(claim, self._clock()))
            self._wake.set()

    def reported(self, proxy: Proxy, problem: str | None) -> None:
        """Take a health report; None is good."""
        claim = claim_of(proxy)
        if claim is None:
            return
        report = self._book.heard if _only_reports(proxy) else self._book.report
        changes = report(claim, problem)
        if changes:
            log.info("registration.health", entry=_shown(claim), problem=problem or "none")
        self._tell(changes)

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Drop those whose grace is over, and remember the others, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._drop())
                tasks.create_task(self._save())
        finally:
            for commit in self._commits:
                commit.cancel()

    async def _save(self) -> None:
        try:
            while True:
                await self._is_to_save.wait()
                self._is_to_save.clear()
                await asyncio.to_thread(self._write, self._book.remembered())
                await asyncio.sleep(_BETWEEN_SAVES_SECONDS)
        finally:
            self._write(self._book.remembered())

    def _write(self, remembered: tuple[Remembered, ...]) -> None:
        if remembered != self._saved and self._memory.write(remembered):
            self._saved = remembered

    async def _drop(self) -> None:
        while True:
            self._wake.clear()
            self._tell(self._book.expire(self._clock()))
            due = self._book.next_expiry
            seconds = None if due is None else max(0.0, due - self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    # -- to be looked at --------------------------------------------------------------------------

    def findings(self) -> Iterator[Finding]:
        """Yield what there is to say of who is and is not registered."""
        horizon = self._clock() - REFUSALS_KEPT_SECONDS
        kept = [key[0] for key, at in self._refusals.items() if at > horizon]
        yield from registration_findings(self._book, kept, knows_callers=self._knows_callers)

    def status(self) -> list[dict[str, Any]]:
        """Return who holds which entry, as plain data."""
        return [self._status(each) for each in self._book.workloads()]

    def _status(self, workload: Workload) -> dict[str, Any]:
        key, health = workload.key, workload.health
        written = self._book.written(key)
        claim = next(workload.claims())
        shown: dict[str, Any] = {
            "entry": f"{key.namespace}/{key.name}",
            "from": "config"
            if written is not None
            else f"WorkloadGroup {key.namespace}/{workload.group}"
            if workload.row is not None
            else "nothing",
            "address": claim.address,
            "proxies": {each.proxy: count for each, count in workload.streams.items()},
        }
        if health is not None:
            shown["health"] = "healthy" if health.is_healthy else "unhealthy"
            if health.problem:
                shown["problem"] = health.problem
        leaves_at = self._book.leaves_at(workload)
        if leaves_at is not None:
            shown["leaves_in_seconds"] = round(max(0.0, leaves_at - self._clock()), 3)
        return shown

    # -- parts ------------------------------------------------------------------------------------

    async def _published(self) -> None:
        """
        Return once what was offered is committed and published.

        Who comes alone waits for nobody. Many who come at once go together, so that those who call
        them are not told of each by itself.
        """
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_together())
            self._commits.add(self._commit)
            self._commit.add_done_callback(self._commits.discard)
        await asyncio.shield(self._commit)

    async def _commit_together(self) -> None:
        await asyncio.sleep(self._last_commit + _BETWEEN_COMMITS_SECONDS - self._clock())
        self._commit = None  # whoever comes from now on is of the next
        self._last_commit = self._clock()
        await self._put(())

    def _tell(self, changes: list[Change]) -> None:
        self._is_to_save.set()
        self._on_change()
        if changes:
            self._offer(changes)

    def _note(self, claim: Claim, refused: RegistrationRefused) -> None:
        self._errors.inc()
        key = ObjectKey(_harmless(refused.key.namespace), _harmless(refused.key.name))
        refusal = Refusal(
            kind=refused.kind, key=key, proxy=_harmless(claim.proxy), problem=str(refused)
        )
        self._refusals.pop((refusal, refused.reason), None)
        self._refusals[refusal, refused.reason] = self._clock()
        while len(self._refusals) > MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._on_change()

    def _forgive(self, claim: Claim) -> None:
        proxy = _harmless(claim.proxy)
        for known in [key for key in self._refusals if key[0].proxy == proxy]:
            del self._refusals[known]


class _Tallied(Collector):
    """The book's own counts as metrics."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        for name, (field, text) in _TALLIED.items():
            yield CounterMetricFamily(name, text, value=getattr(self._tally, field))


def _harmless(text: str) -> str:
    """Return a stranger's text for people, on one line and of bounded length."""
    return text[:_LONGEST_TEXT].encode("unicode_escape").decode()


def _only_reports(proxy: Proxy) -> bool:
    return proxy.registration is not None and proxy.registration.only_reports


def _shown(claim: Claim) -> str:
    return f"{claim.namespace}/{claim.key.name}"
