"""
Certificates of workloads that have no agent: made here, kept as rows, renewed in time.

A proxy that is to have its certificate over its discovery stream (security.md D-A-7) gets one for
the identity its credential proved, before its first request is answered, so that it never waits
for keys that are on their way. Proxies of one identity share a certificate. A row is renewed about
half way through its life and dropped some time after the last of its proxies has gone. Keys live
in memory and nowhere else: a server that starts anew issues anew.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from pilothouse.certs.issued import KeyAlgorithm, KeyPair
from pilothouse.certs.issuer import Issuer
from pilothouse.certs.refusals import Refusal
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import WORKLOAD_CERTIFICATES
from pilothouse.model.issued_certificates import WorkloadCertificate
from pilothouse.model.proxies import Proxy
from pilothouse.model.secret_access import reader_of
from pilothouse.runtime.commit import Change

RENEW_AT: Final = 0.5
RENEW_JITTER: Final = 0.05
"""Shares of a lifetime: proxies that came together do not all come back together."""
LINGER: Final = timedelta(minutes=10)
PREPARE_WITHIN_SECONDS: Final = 10.0
FIRST_RETRY: Final = timedelta(milliseconds=500)
LONGEST_RETRY: Final = timedelta(minutes=1)
MAX_AT_ONCE: Final = 16
_LONGEST_SLEEP_SECONDS: Final = 60.0
_BETWEEN_LOOKS_SECONDS: Final = 0.1
"""All that is held is looked through each time, and thousands may be issued in a row."""

Put = Callable[[Iterable[Change]], Awaitable[None]]
"""Offer changes; returns once they are committed and published."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Held:
    """What is known of one identity; `renew_at` is when to issue (again)."""

    identity: WorkloadIdentity
    renew_at: datetime
    proxies: int = 0
    idle_since: datetime | None = None
    pair: KeyPair | None = None
    failures: int = 0
    attempt: asyncio.Task[None] | None = None


class WorkloadCertificates:
    """See the module docstring; lives on one event loop."""

    def __init__(
        self,
        issuer: Issuer,
        put: Put,
        *,
        clock: Callable[[], datetime],
        registry: CollectorRegistry,
        lifetime: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
        linger: timedelta = LINGER,
    ) -> None:
        """`clock` gives the time with a zone; `lifetime` None is the authority's default."""
        self._issuer = issuer
        self._put = put
        self._clock = clock
        self._lifetime = lifetime
        self._algorithm = algorithm
        self._linger = linger
        self._held: dict[WorkloadIdentity, _Held] = {}
        self._wake = asyncio.Event()
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        Gauge(
            "pilothouse_workload_certificates",
            "Certificates held for proxies without an agent.",
            registry=registry,
        ).set_function(lambda: sum(each.pair is not None for each in self._held.values()))
        self._failures = Counter(
            "pilothouse_workload_certificate_failures",
            "Certificates for proxies without an agent that could not be issued.",
            registry=registry,
        )

    # -- what streams tell ------------------------------------------------------------------------

    async def prepare(self, proxy: Proxy) -> None:
        """
        Return once there is a certificate for a proxy that is to have one, or it takes too long.

        Never fails: what went wrong is logged and tried again, and the proxy waits for its secret.
        """
        identity = _concerned(proxy)
        if identity is None:
            return
        held = self._hold(identity)
        if held.pair is not None and held.renew_at > self._clock():
            return
        attempt = self._begin(held)
        await asyncio.wait({attempt}, timeout=PREPARE_WITHIN_SECONDS)

    def connected(self, proxy: Proxy) -> None:
        """Count a stream that was let in."""
        identity = _concerned(proxy)
        if identity is not None:
            held = self._hold(identity)
            held.proxies += 1
            held.idle_since = None

    def disconnected(self, proxy: Proxy) -> None:
        """Count a stream that has ended."""
        identity = _concerned(proxy)
        held = self._held.get(identity) if identity is not None else None
        if held is not None:
            held.proxies -= 1
            if not held.proxies:
                held.idle_since = self._clock()
                self._wake.set()

    # -- what the authority tells -----------------------------------------------------------------

    async def reissue(self) -> None:
        """Issue every certificate anew, as another root signs now; returns when all were tried."""
        before = [held.attempt for held in self._held.values() if held.attempt is not None]
        if before:
            await asyncio.wait(before)  # these may still be of the other root
        now = self._clock()
        for held in self._held.values():
            held.renew_at = now
        attempts = [self._begin(held) for held in list(self._held.values())]
        if attempts:
            await asyncio.wait(attempts)

    def roots_in_use(self) -> frozenset[str]:
        """Return the fingerprints of the roots that the certificates held here are of."""
        return frozenset(
            held.pair.chain.root for held in self._held.values() if held.pair is not None
        )

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew and drop for ever."""
        try:
            while True:
                self._wake.clear()
                await self._drop_idle()
                now = self._clock()
                for held in self._held.values():
                    if held.renew_at <= now:
                        self._begin(held)
                await self._sleep(self._next_at())
                await asyncio.sleep(_BETWEEN_LOOKS_SECONDS)
        finally:
            for held in self._held.values():
                if held.attempt is not None:
                    held.attempt.cancel()

    async def _sleep(self, until: datetime | None) -> None:
        # Never for long: the clock of the day may be set, and machines sleep.
        seconds = _LONGEST_SLEEP_SECONDS
        if until is not None:
            seconds = min(seconds, max(0.0, (until - self._clock()).total_seconds()))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _next_at(self) -> datetime | None:
        # An attempt that is under way wakes us when it ends.
        times = [held.renew_at for held in self._held.values() if held.attempt is None]
        times += [
            held.idle_since + self._linger
            for held in self._held.values()
            if held.idle_since is not None
        ]
        return min(times, default=None)

    async def _drop_idle(self) -> None:
        horizon = self._clock() - self._linger
        idle = [
            held
            for held in self._held.values()
            if held.idle_since is not None and held.idle_since <= horizon and held.attempt is None
        ]
        for held in idle:
            del self._held[held.identity]
        if idle:
            table = WORKLOAD_CERTIFICATES.name
            await self._put([(table, str(held.identity), None) for held in idle])

    def _hold(self, identity: WorkloadIdentity) -> _Held:
        held = self._held.get(identity)
        if held is None:
            now = self._clock()
            held = self._held[identity] = _Held(identity, renew_at=now, idle_since=now)
        return held

    def _begin(self, held: _Held) -> asyncio.Task[None]:
        if held.attempt is None:
            held.attempt = asyncio.create_task(self._issue(held))
        return held.attempt

    async def _issue(self, held: _Held) -> None:
        try:
            async with self._at_once:
                pair = await self._issuer.issue(held.identity, self._lifetime, self._algorithm)
        except Refusal as problem:
            self._failed(held, problem)
        else:
            now = self._clock()
            share = RENEW_AT + random.uniform(-RENEW_JITTER, RENEW_JITTER)  # noqa: S311 (spread)
            held.pair, held.failures = pair, 0
            held.renew_at = now + (pair.not_after - now) * share
            row = WorkloadCertificate(chain_pem=pair.certificate_pem, key_pem=pair.key_pem)
            await self._put([(WORKLOAD_CERTIFICATES.name, str(held.identity), row)])
            log.info(
                "certificates.issued",
                identity=str(held.identity),
                serial=pair.chain.serial,
                not_after=pair.not_after.isoformat(),
            )
        finally:
            held.attempt = None
            self._wake.set()

    def _failed(self, held: _Held, problem: Refusal) -> None:
        self._failures.inc()
        delay = min(FIRST_RETRY * 2 ** min(held.failures, 10), LONGEST_RETRY)
        held.failures += 1
        held.renew_at = self._clock() + delay
        log.error(
            "certificates.not_issued",
            identity=str(held.identity),
            problem=str(problem),
            retry_seconds=delay.total_seconds(),
        )


def _concerned(proxy: Proxy) -> WorkloadIdentity | None:
    reader = reader_of(proxy)
    return reader.identity if reader.wants_certificates else None
