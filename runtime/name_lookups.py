"""
Keeps the addresses of host names up to date that the graph asks for (traffic.md MN-03, ADR 23).

One task for each name: it looks, puts what it found as a row, and looks again when that has been
relied on for long enough. A name that leads nowhere keeps the addresses it had, and its row says
why, from which a finding is made. Nothing is put that is not new.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import structlog

from pilothouse.model.inputs import RESOLVED_NAMES
from pilothouse.model.resolved_names import ResolvedName
from pilothouse.runtime.commit import Change
from pilothouse.runtime.dns_client import Found, NotFound

SHORTEST_SECONDS: Final = 30.0
"""Addresses are relied on for so long at least, whatever their time to live (as upstream)."""
LONGEST_SECONDS: Final = 3_600.0
FIRST_RETRY_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 5.0

log = structlog.get_logger()


class NameLookups:
    """Lives on one event loop; `run` it, and `wake` it when the names may have changed."""

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        look_up: Callable[[str], Awaitable[Found]],
        put: Callable[[Iterable[Change]], Awaitable[None]],
        *,
        shortest_seconds: float = SHORTEST_SECONDS,
    ) -> None:
        """Follow `names` with `look_up`, which may raise NotFound; `put` rows into the graph."""
        self._names = names
        self._look_up = look_up
        self._put = put
        self._shortest_seconds = shortest_seconds
        self._rows: dict[str, ResolvedName] = {}
        self._published: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._looked = asyncio.Condition()
        self._woken.set()

    def wake(self) -> None:
        """Look at once which names there are."""
        self._woken.set()

    async def run(self) -> None:
        """Follow the names for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._woken.wait()
                self._woken.clear()
                wanted = set(self._names())
                gone = self._tasks.keys() - wanted
                for name in gone:
                    self._tasks.pop(name).cancel()
                for name in sorted(wanted - self._tasks.keys()):
                    self._tasks[name] = tasks.create_task(self._follow(name), name=f"name {name}")
                self._published -= gone
                forgotten = [name for name in gone if self._rows.pop(name, None)]
                if forgotten:
                    await self._put([(RESOLVED_NAMES.name, name, None) for name in forgotten])

    async def settled(self, seconds: float = SETTLE_SECONDS) -> None:
        """Return when every name has been looked up once, or so much time has passed."""
        try:
            async with asyncio.timeout(seconds), self._looked:
                await self._looked.wait_for(lambda: self._published >= set(self._names()))
        except TimeoutError:
            missing = sorted(set(self._names()) - self._published)
            log.warning("names.not_resolved_yet", names=missing)

    async def _follow(self, name: str) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            known = self._rows.get(name, ResolvedName())
            try:
                found = await self._look_up(name)
            except NotFound as problem:
                row = ResolvedName(known.addresses, str(problem))
                wait_seconds = min(retry_seconds, self._shortest_seconds)
                retry_seconds *= 2
            else:
                row = ResolvedName(_with_other_family(found, known))
                wait_seconds = max(self._shortest_seconds, min(found.ttl_seconds, LONGEST_SECONDS))
                retry_seconds = FIRST_RETRY_SECONDS
            if row != self._rows.get(name):
                self._rows[name] = row
                _tell(name, row)
                await self._put([(RESOLVED_NAMES.name, name, row)])
                self._published.add(name)
                async with self._looked:
                    self._looked.notify_all()
            await asyncio.sleep(wait_seconds)


def _with_other_family(found: Found, known: ResolvedName) -> tuple[str, ...]:
    """Return what was found, with what was known of a family that could not be asked for."""
    if not found.is_partial:
        return found.addresses
    families = {":" in each for each in found.addresses}
    kept = {each for each in known.addresses if (":" in each) not in families}
    return tuple(sorted({*found.addresses, *kept}))


def _tell(name: str, row: ResolvedName) -> None:
    if row.problem:
        log.warning("name.unresolved", name=name, reason=row.problem, kept=list(row.addresses))
    else:
        log.info("name.resolved", name=name, addresses=list(row.addresses))
