"""
A rotation of the root while the server runs: requests are taken, proxies are looked at, steps made.

What is decided is `pilothouse.certs.rotation`'s; here is when: a step is taken once everything has
been seen in its place for `settle` without a break, also after a start, when proxies that were cut
off by it have to be given time to come back. The state is on disk before anything acts on it.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from pilothouse.certs.holders import HoldersAt
from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.root_store import RootStore
from pilothouse.certs.rotation import Looked, Phase, RotationRefused
from pilothouse.certs.rotation_files import (
    RotationStatus,
    read_request,
    remove_request,
    take,
    write_status,
)
from pilothouse.errors import MeshError
from pilothouse.runtime.held_certificates import HeldCertificates, name_of

ROTATE_AT: Final = 0.8
"""The share of a root's life after which the next one is made (C-R-3)."""
LOOK_SECONDS: Final = 0.25
REQUEST_SECONDS: Final = 0.5
LOOK_WHEN_STABLE_SECONDS: Final = 5.0
MAX_NAMES: Final = 20
"""Holders told by name, of those that a step waits for."""

log = structlog.get_logger()


class RotationRun:
    """See the module docstring; lives on one event loop."""

    def __init__(
        self,
        store: RootStore,
        held: HeldCertificates,
        *,
        apply: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        settle: timedelta,
        trust_domain: Callable[[], str],
        algorithm: KeyAlgorithm,
    ) -> None:
        """
        `apply` makes everything use what `store` says now; it may fail and is tried again.

        `trust_domain` is the mesh's, which new roots are called after.
        """
        self._store = store
        self._held = held
        self._apply = apply
        self._clock = clock
        self._monotonic = monotonic
        self._settle = settle
        self._trust_domain = trust_domain
        self._algorithm = algorithm
        self._in_place_since: float | None = None
        self._is_applied = True
        self._looked_at = float("-inf")
        self._refused = ""
        self._told: RotationStatus | None = None

    async def run(self) -> None:
        """Watch over the root for ever."""
        while True:
            await self.step()
            is_stable = self._store.rotation.phase is Phase.STABLE
            await asyncio.sleep(REQUEST_SECONDS if is_stable else LOOK_SECONDS)

    async def step(self) -> None:
        """Take a request, look, and go on if it is time."""
        try:
            self._take_request()
            if not self._is_applied:
                await self._apply()
                self._is_applied = True
            self._look()
        except (OSError, MeshError) as failure:
            # Nothing is lost: the state on disk is whole, and the next look tries again.
            log.error("rotation.failed", problem=str(failure))  # noqa: TRY400

    def _take_request(self) -> None:
        directory = self._store.directory
        try:
            request = read_request(directory)
        except msgspec.DecodeError as failure:
            remove_request(directory)
            self._refuse(f"the request cannot be read: {failure}")
            return
        if request is None:
            return
        try:
            take(self._store, request, self._trust_domain(), self._algorithm, self._clock())
        except RotationRefused as refused:
            self._refuse(str(refused))
        else:
            self._refused = ""
            self._moved(request.action.value)
        remove_request(directory)

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self._looked_at = float("-inf")  # whoever asked waits for the answer
        log.warning("rotation.request_refused", reason=reason)

    def _has_to_begin(self) -> bool:
        """Begin to rotate if the root comes to its end; return whether it did."""
        begins, ends, now = self._store.begins(), self._store.ends(), self._clock()
        if now < begins + (ends - begins) * ROTATE_AT:
            return False
        self._store.request(self._trust_domain(), now, self._algorithm)
        self._moved("the root comes to its end")
        return True

    def _look(self) -> None:
        rotation, now = self._store.rotation, self._monotonic()
        is_stable = rotation.phase is Phase.STABLE
        if is_stable and now - self._looked_at < LOOK_WHEN_STABLE_SECONDS and self._told:
            return
        self._looked_at = now
        if is_stable and self._has_to_begin():
            return
        holdings = self._held.look()
        in_place = not is_stable and rotation.advance(Looked(holdings), self._clock()) != rotation
        if not in_place:
            self._in_place_since = None
        else:
            since = self._in_place_since = (
                now if self._in_place_since is None else self._in_place_since
            )
            if now - since >= self._settle.total_seconds():
                self._store.advance(Looked(holdings), self._clock())
                self._moved("all proxies have what they need")
        self._tell(holdings)

    def _moved(self, why: str) -> None:
        self._is_applied = False
        self._in_place_since = None
        self._looked_at = float("-inf")
        rotation = self._store.rotation
        log.info(
            "rotation.phase",
            phase=rotation.phase.value,
            why=why,
            signs=rotation.signer[:16],
            trusted=sorted(root[:16] for root in rotation.trusted_roots),
        )

    def _tell(self, holdings: HoldersAt) -> None:
        phase = self._store.rotation.phase
        behind = holdings.behind(self._store.rotation)
        connected = self._held.connected_keys
        absent = [until for key, until in behind.items() if key not in connected]
        status = RotationStatus(
            phase=phase,
            at=self._clock(),
            waiting=len(behind) - len(absent),
            absent=len(absent),
            absent_until=max(absent, default=None),
            holders=len(holdings.holders),
            refused=self._refused,
            behind=_names(behind, connected),
        )
        if self._told is None or msgspec.structs.replace(status, at=self._told.at) != self._told:
            write_status(self._store.directory, status)
            self._told = status


def _names(behind: Iterable[str], connected: Collection[str]) -> tuple[str, ...]:
    first = heapq.nsmallest(MAX_NAMES, behind, key=lambda key: (key in connected, key))
    return tuple(name_of(key) for key in first)
