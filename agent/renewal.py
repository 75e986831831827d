"""
The life of the agent's certificate: made, shown, and made anew at half its life.

Fails quietly and goes on: while the control plane is away the last certificate stays in use, and
attempts follow each other ever more slowly. Source: security.md D-A-4, G-9.
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
    ) -> None:
        """`lifetime` is what is asked for, zero for the authority's default."""
        self._client = client
        self._secrets = secrets
        self._key_kind = key_kind
        self._lifetime = lifetime
        self._clock = clock
        self._held: HeldIdentity | None = None
        self._is_told = False
        self.obtained = asyncio.Event()

    async def run(self) -> None:
        """Obtain and renew for ever."""
        while True:
            held = await self._obtain()
            await self._sleep_until(_renew_at(held))

    async def follow_trust(self) -> None:
        """Show the mesh's roots and revocations as they change, for ever."""
        await self.obtained.wait()
        failures = 0
        while True:
            try:
                if self._held is not None:
                    async for trust in self._client.follow_trust(self._held):
                        failures = 0
                        self._is_told = True
                        await self._take(trust)
            except (MeshError, grpc.aio.AioRpcError) as problem:
                log.warning("agent.roots_not_followed", problem=brief(problem))
            self._is_told = False
            await asyncio.sleep(_retry_seconds(failures))
            failures += 1

    async def _take(self, trust: Trust) -> None:
        if self._held is None or not trust.roots_pem or trust == self._held.trust:
            return
        self._held = replace(self._held, trust=trust)
        await self._secrets.show_trust(trust)
        log.info("agent.roots_changed")

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
        while (seconds := (moment - self._clock()).total_seconds()) > 0:
            with suppress(TimeoutError):
                await asyncio.sleep(min(seconds, _LONGEST_SLEEP_SECONDS))


def _renew_at(held: HeldIdentity) -> datetime:
    share = RENEW_AT + random.uniform(-RENEW_JITTER, RENEW_JITTER)  # noqa: S311 (spread)
    return held.obtained_at + (held.not_after - held.obtained_at) * share


def _retry_seconds(failures: int) -> float:
    seconds = min(FIRST_RETRY_SECONDS * (1 << min(failures, 20)), LONGEST_RETRY_SECONDS)
    return seconds * random.uniform(1 - _RETRY_JITTER, 1 + _RETRY_JITTER)  # noqa: S311 (spread)
