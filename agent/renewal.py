"""
The life of the agent's certificate: made, shown, and made anew at half its life.

Also when another root signs than the one it is of, so that a rotation of the root need not wait for
half a life; some time after the agent heard of it, as all agents of the mesh hear of it at once.
What proxies have accepted is told to the control plane by a stream that is opened anew with the new
certificate. Fails quietly and goes on: while the control plane is away the last certificate stays
in use, and attempts follow each other ever more slowly. Source: security.md D-A-4, G-9.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import grpc.aio
import structlog

from pilothouse.agent.control_plane import ControlPlaneClient, brief
from pilothouse.agent.identity import HeldIdentity, Trust
from pilothouse.agent.keys import KeyKind, SigningRequest
from pilothouse.agent.secrets import AgentSecrets
from pilothouse.errors import MeshError

RENEW_AT: Final = 0.5
RENEW_JITTER: Final = 0.01
FIRST_RETRY_SECONDS: Final = 0.1
LONGEST_RETRY_SECONDS: Final = 60.0
_RETRY_JITTER: Final = 0.2
_LONGEST_SLEEP_SECONDS: Final = 60.0
DEFAULT_SPREAD: Final = timedelta(seconds=30)
"""5,000 agents are 170 requests a second then, half of what an authority on two cores signs."""
TAKEN_WITHIN_SECONDS: Final = 10.0
"""How long proxies may take to accept what they are shown; one that warms a listener takes some."""


class NotTaken(MeshError):
    """A proxy has not accepted what it was shown."""

    def __str__(self) -> str:
        """One sentence for people."""
        return "A proxy has not accepted its certificate or the roots yet."


log = structlog.get_logger()


class Renewal:
    """See the module docstring; `obtained` is set once there is a first certificate."""

    def __init__(
        self,
        client: ControlPlaneClient,
        secrets: AgentSecrets,
        *,
        key_kind: KeyKind,
        lifetime: timedelta,
        clock: Callable[[], datetime],
        spread: timedelta = DEFAULT_SPREAD,
    ) -> None:
        """
        `lifetime` is what is asked for, zero for the authority's default.

        Within `spread`, at random, a certificate of a root that no longer signs is replaced.
        """
        self._client = client
        self._secrets = secrets
        self._key_kind = key_kind
        self._lifetime = lifetime
        self._clock = clock
        self._spread = spread
        self._early_at: datetime | None = None
        self._asked_under = b""
        self._is_early = asyncio.Event()
        self._is_renewed = asyncio.Event()
        self._failures_following = 0
        self._held: HeldIdentity | None = None
        self._is_told = False
        self.obtained = asyncio.Event()

    @property
    def held(self) -> HeldIdentity | None:
        """What the agent holds at present."""
        return self._held

    async def run(self) -> None:
        """Obtain and renew for ever."""
        while True:
            if self._held is not None:
                self._asked_under = self._held.trust.roots_pem
            held = await self._obtain()
            self._is_renewed.set()
            self._early_at = None
            if self._is_told:
                self._hasten(held)  # another root may have begun to sign meanwhile
            await self._sleep_until(_renew_at(held))

    async def follow_trust(self) -> None:
        """
        Show the mesh's roots and revocations as they change, for ever.

        With each new certificate by a new stream, once proxies have accepted it: then the control
        plane knows that the one before is used no more.
        """
        await self.obtained.wait()
        while True:
            self._is_renewed.clear()
            following = asyncio.create_task(self._follow())
            superseded = asyncio.create_task(self._superseded())
            try:
                await asyncio.wait({following, superseded}, return_when=asyncio.FIRST_COMPLETED)
                is_superseded = superseded.done()
            finally:
                for task in (following, superseded):
                    task.cancel()
                await asyncio.gather(following, superseded, return_exceptions=True)
            self._is_told = False
            if not is_superseded:
                await asyncio.sleep(_retry_seconds(self._failures_following))
                self._failures_following += 1

    async def _follow(self) -> None:
        if self._held is None:
            return
        try:
            async for trust in self._client.follow_trust(self._held):
                self._failures_following = 0
                self._is_told = True
                await self._take(trust)
        except (MeshError, grpc.aio.AioRpcError) as problem:
            log.warning("agent.roots_not_followed", problem=brief(problem))

    async def _superseded(self) -> None:
        """Return once proxies have accepted another certificate than the one to follow with."""
        await self._is_renewed.wait()
        await self._secrets.taken()

    async def _take(self, trust: Trust) -> None:
        """Show roots, and return once proxies have accepted them. Raises: NotTaken."""
        if self._held is None or not trust.roots_pem:
            return
        if trust != self._held.trust:
            self._held = replace(self._held, trust=trust)
            await self._secrets.show_trust(trust)
            log.info("agent.roots_changed")
        self._hasten(self._held)
        try:
            async with asyncio.timeout(TAKEN_WITHIN_SECONDS):
                await self._secrets.taken()
        except TimeoutError:
            raise NotTaken from None

    def _hasten(self, held: HeldIdentity) -> None:
        """Renew soon if another root signs by now, and the certificate was asked for before."""
        trust = held.trust
        if trust.signer in ("", held.root) or not held.root:
            return
        if trust.roots_pem == self._asked_under or self._early_at is not None:
            return
        seconds = self._spread.total_seconds() * random.random()  # noqa: S311 (spread)
        self._early_at = self._clock() + timedelta(seconds=seconds)
        self._is_early.set()
        log.info("agent.another_root_signs", renews_in_seconds=round(seconds, 1))

    async def _obtain(self) -> HeldIdentity:
        failures = 0
        while True:
            try:
                return await self._attempt(with_certificate=failures % 2 == 0)
            except (MeshError, grpc.aio.AioRpcError) as problem:
                seconds = _retry_seconds(failures)
                log.warning(
                    "agent.no_certificate", problem=brief(problem), retry_seconds=round(seconds, 2)
                )
            failures += 1
            await asyncio.sleep(seconds)

    async def _attempt(self, *, with_certificate: bool) -> HeldIdentity:
        # An ended certificate fails the handshake, a revoked one too: then only the token helps.
        proof = self._held if with_certificate else None
        if proof is not None and proof.not_after <= self._clock():
            proof = None
        request = await asyncio.to_thread(SigningRequest, self._key_kind)
        elements = await self._client.create_certificate(request.csr_pem, self._lifetime, proof)
        held = HeldIdentity.read(elements, request.key_pem, self._clock())
        if self._held is not None:
            # A stream tells no later than the answer, and it alone tells what is revoked.
            before, new = self._held.trust, held.trust
            trust = before if self._is_told else Trust(new.roots_pem, before.crl_pem)
            held = replace(held, trust=trust)
        self._held = held
        await self._secrets.show(held)
        self.obtained.set()
        log.info(
            "agent.certificate", identity=str(held.identity), not_after=held.not_after.isoformat()
        )
        return held

    async def _sleep_until(self, moment: datetime) -> None:
        # Not in one piece: the clock of the day may be set, and machines sleep.
        while True:
            self._is_early.clear()
            seconds = (min(moment, self._early_at or moment) - self._clock()).total_seconds()
            if seconds <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, _LONGEST_SLEEP_SECONDS)):
                    await self._is_early.wait()


def _renew_at(held: HeldIdentity) -> datetime:
    share = RENEW_AT + random.uniform(-RENEW_JITTER, RENEW_JITTER)  # noqa: S311 (spread)
    return held.obtained_at + (held.not_after - held.obtained_at) * share


def _retry_seconds(failures: int) -> float:
    seconds = min(FIRST_RETRY_SECONDS * (1 << min(failures, 20)), LONGEST_RETRY_SECONDS)
    return seconds * random.uniform(1 - _RETRY_JITTER, 1 + _RETRY_JITTER)  # noqa: S311 (spread)
