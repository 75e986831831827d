"""
Takes a change between plain text and mutual TLS through its steps, so that no request is lost.

A change of PeerAuthentications goes to the graph with what they said before; the rest follows when
the proxies have answered (`pilothouse.model.mode_change`, ADR 21). Nobody waits for a proxy that
does not answer: after a few seconds the next step is taken. A server that starts anew goes on from
the step that the one before it had begun, and takes what was written while there was none for a
change as well.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import structlog

from pilothouse.api.meta import ObjectKey
from pilothouse.api.peer_authentication import PeerAuthentication
from pilothouse.model.inputs import (
    FORMER_PEER_AUTHENTICATIONS,
    MODE_CHANGE,
    PEER_AUTHENTICATIONS,
    THE_MESH,
)
from pilothouse.model.mode_change import FormerPolicy, ModeChange, Step
from pilothouse.runtime.commit import Change
from pilothouse.runtime.mode_change_file import (
    ChangeUnderWay,
    KnownModes,
    ModeChangeFile,
    Policies,
    by_key,
)
from pilothouse.xds.streams import Streams

LONGEST_STEP_SECONDS: Final = 5.0
RETURN_SECONDS: Final = 30.0
"""How long proxies that were cut off have to come back: Envoy tries again within so long."""
_QUIET_SECONDS: Final = 0.3
"""How long all must have answered: new chains first ask for certificates, on the same stream."""
_LOOK_SECONDS: Final = 0.02

log = structlog.get_logger()


class ModeChanges:
    """One change at a time; a policy that changes meanwhile waits for the end of it."""

    def __init__(
        self,
        streams: Streams,
        put: Callable[[Iterable[Change]], Awaitable[None]],
        *,
        directory: Path | None,
        clock: Callable[[], float],
        longest_step_seconds: float = LONGEST_STEP_SECONDS,
        return_seconds: float = RETURN_SECONDS,
    ) -> None:
        """
        Watch `streams` and `put` rows; `clock` is seconds that never go back.

        What the next server needs to know is kept in `directory` (None: nowhere).
        """
        self._streams = streams
        self._put = put
        self._clock = clock
        self._longest_step_seconds = longest_step_seconds
        self._return_seconds = return_seconds
        self._file = ModeChangeFile(directory)
        self._policies: dict[ObjectKey, PeerAuthentication] = {}
        self._former: dict[ObjectKey, PeerAuthentication | None] = {}
        self._held: dict[ObjectKey, PeerAuthentication | None] = {}
        self._step = Step.SERVERS
        self._awaited: int | None = 0
        """How many proxies have to come back before the next step; None: nobody knows."""
        self._complete_at = float("-inf")
        """When proxies that an earlier server had should be back."""
        self._begun = asyncio.Event()

    # -- what comes in ----------------------------------------------------------------------------

    def start(self, changes: Iterable[Change]) -> list[Change]:
        """Return what is to be committed first, given all of the config; call it once."""
        passed, policies = _sorted_out(changes)
        wanted = {key: row for key, row in policies.items() if row is not None}
        known = self._file.read()
        if known is None:
            self._policies = wanted
            self._file.write(KnownModes(settled=tuple(wanted.values())))
            return [*passed, *_rows(wanted)]
        self._complete_at = self._clock() + self._return_seconds
        self._policies = by_key(known.settled)
        step, self._awaited = Step.SERVERS, None
        changed = _difference(self._policies, wanted)
        if known.change is not None:
            interrupted = _difference(self._policies, by_key(known.change.target))
            if interrupted:
                changed, step = interrupted, known.change.step
                self._awaited = known.change.proxies
        begun = self._begin(changed, step)
        self._held = _difference(self._policies, wanted)
        if begun:
            log.info("mutual_tls.change_goes_on", step=str(step), policies=len(self._former))
        else:
            self._file.write(KnownModes(settled=tuple(self._policies.values())))
        return [*passed, *_rows(self._policies), *begun]

    def take(self, changes: Iterable[Change]) -> list[Change]:
        """Return what is to be committed now: policies with what they said before, or not yet."""
        passed, policies = _sorted_out(changes)
        if not policies:
            return passed
        if self._former:
            self._held.update(policies)
            return passed
        is_early = self._clock() < self._complete_at
        if is_early:
            self._awaited = None
        if len(self._streams) or is_early:
            return passed + self._begin(policies, Step.SERVERS)
        self._apply(policies)
        self._file.write(KnownModes(settled=tuple(self._policies.values())))
        return passed + _rows(policies)

    # -- steps ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take each change through its steps, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            if self._step is Step.SERVERS:
                # Is in the graph or on its way there; this waits until it is published.
                await self._reach(Step.SERVERS)
                self._keep(Step.CLIENTS)
            await self._reach(Step.CLIENTS)
            # From here on it does no harm to find that nothing is under way.
            settled = tuple(self._policies.values())
            self._file.write(KnownModes(settled=settled))
            done: list[Change] = [(MODE_CHANGE.name, THE_MESH, None)]
            done += [(FORMER_PEER_AUTHENTICATIONS.name, key, None) for key in self._former]
            await self._put(done)
            log.info("mutual_tls.changed", policies=len(self._former))
            self._former = {}
            held, self._held = self._held, {}
            if begun := self._begin(held, Step.SERVERS):
                await self._put(begun)

    async def _reach(self, step: Step) -> None:
        self._step = step
        await self._put([(MODE_CHANGE.name, THE_MESH, ModeChange(step))])
        await self._settled(step)

    def _begin(self, policies: "_Changed", step: Step) -> list[Change]:
        """Begin to change `policies`; return what is to be committed, nothing if all are so."""
        policies = {key: row for key, row in policies.items() if self._policies.get(key) != row}
        if not policies:
            return []
        settled = tuple(self._policies.values())
        self._former = {key: self._policies.get(key) for key in policies}
        self._apply(policies)
        self._step = step
        self._keep(step, settled)
        former: list[Change] = [
            (FORMER_PEER_AUTHENTICATIONS.name, key, FormerPolicy(row))
            for key, row in self._former.items()
        ]
        self._begun.set()
        return [*_rows(policies), *former, (MODE_CHANGE.name, THE_MESH, ModeChange(step))]

    def _apply(self, policies: "_Changed") -> None:
        for key, row in policies.items():
            if row is None:
                self._policies.pop(key, None)
            else:
                self._policies[key] = row

    def _keep(self, step: Step, settled: tuple[PeerAuthentication, ...] | None = None) -> None:
        if settled is None:
            before = {**self._policies, **self._former}
            settled = tuple(row for row in before.values() if row is not None)
        proxies = len(self._streams) if self._awaited == 0 else self._awaited
        target = tuple(self._policies.values())
        change = ChangeUnderWay(target=target, step=step, proxies=proxies)
        self._file.write(KnownModes(settled=settled, change=change))

    async def _settled(self, step: Step) -> None:
        """Return when all proxies have answered for a while, or have had time enough."""
        awaited, self._awaited = self._awaited, 0
        longest = self._longest_step_seconds if awaited == 0 else self._return_seconds
        began = quiet_since = self._clock()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._clock()
            are_back = awaited is not None and len(self._streams) >= awaited
            if awaited and are_back:
                self._complete_at = now
            if not are_back or not self._streams.are_settled:
                quiet_since = now
            if now - quiet_since >= _QUIET_SECONDS:
                return
            if now - began >= longest:
                if are_back:
                    log.warning("mutual_tls.proxies_do_not_answer", step=str(step))
                return


_Changed = dict[ObjectKey, PeerAuthentication | None]
"""Policies that are other than before; None: gone."""


def _sorted_out(changes: Iterable[Change]) -> tuple[list[Change], _Changed]:
    passed: list[Change] = []
    policies: dict[Any, Any] = {}
    for change in changes:
        kind, key, row = change
        if kind == PEER_AUTHENTICATIONS.name:
            policies[key] = row
        else:
            passed.append(change)
    return passed, policies


def _difference(before: Policies, after: Policies) -> _Changed:
    return {
        key: after.get(key)
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    }


def _rows(policies: "_Changed | Policies") -> list[Change]:
    return [(PEER_AUTHENTICATIONS.name, key, row) for key, row in policies.items()]
