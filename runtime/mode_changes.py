"""
Takes a change between plain text and mutual TLS through its steps, so that no request is lost.

A change of PeerAuthentications goes to the graph with what they said before; the rest follows when
the proxies have answered (`pilothouse.model.mode_change`, ADR 21). Nobody waits for a proxy that
does not answer: after a few seconds the next step is taken.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import structlog

from pilothouse.graph.core import Graph
from pilothouse.model.inputs import (
    FORMER_PEER_AUTHENTICATIONS,
    MODE_CHANGE,
    PEER_AUTHENTICATIONS,
    THE_MESH,
)
from pilothouse.model.mode_change import FormerPolicy, ModeChange, Step
from pilothouse.runtime.commit import Change
from pilothouse.xds.streams import Streams

LONGEST_STEP_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 0.3
"""How long all must have answered: new chains first ask for certificates, on the same stream."""
_LOOK_SECONDS: Final = 0.02

log = structlog.get_logger()


class ModeChanges:
    """One change at a time; a policy that changes meanwhile waits for the end of it."""

    def __init__(
        self,
        graph: Graph,
        streams: Streams,
        put: Callable[[Iterable[Change]], Awaitable[None]],
        *,
        clock: Callable[[], float],
        longest_step_seconds: float = LONGEST_STEP_SECONDS,
    ) -> None:
        """Watch `streams` and `put` rows; `clock` is seconds that never go back."""
        self._graph = graph
        self._streams = streams
        self._put = put
        self._clock = clock
        self._longest_step_seconds = longest_step_seconds
        self._changing: dict[Any, None] = {}
        self._held: dict[Any, Change] = {}
        self._begun = asyncio.Event()

    def take(self, changes: Iterable[Change]) -> list[Change]:
        """Return what is to be committed now: policies with what they said before, or not yet."""
        passed: list[Change] = []
        policies: list[Change] = []
        for change in changes:
            (policies if change[0] == PEER_AUTHENTICATIONS.name else passed).append(change)
        if not policies or not len(self._streams):
            return passed + policies
        if self._changing:
            self._held.update((change[1], change) for change in policies)
            return passed
        return passed + self._begin(policies)

    async def run(self) -> None:
        """Take each change through its steps, until cancelled."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            # Is in the graph or on its way there; this waits until it is published.
            await self._put([(MODE_CHANGE.name, THE_MESH, ModeChange(Step.SERVERS))])
            await self._settled(Step.SERVERS)
            await self._put([(MODE_CHANGE.name, THE_MESH, ModeChange(Step.CLIENTS))])
            await self._settled(Step.CLIENTS)
            done: list[Change] = [(MODE_CHANGE.name, THE_MESH, None)]
            done += [(FORMER_PEER_AUTHENTICATIONS.name, key, None) for key in self._changing]
            await self._put(done)
            log.info("mutual_tls.changed", policies=len(self._changing))
            self._changing = {}
            held, self._held = list(self._held.values()), {}
            if held:
                await self._put(self._begin(held))

    def _begin(self, policies: list[Change]) -> list[Change]:
        known = self._graph.store(PEER_AUTHENTICATIONS).rows
        self._changing = dict.fromkeys(key for _, key, _ in policies)
        former: list[Change] = [
            (FORMER_PEER_AUTHENTICATIONS.name, key, FormerPolicy(known.get(key)))
            for key in self._changing
        ]
        self._begun.set()
        return [*policies, *former, (MODE_CHANGE.name, THE_MESH, ModeChange(Step.SERVERS))]

    async def _settled(self, step: Step) -> None:
        """Return when all proxies have answered for a while, or have had time enough."""
        began = quiet_since = self._clock()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._clock()
            if not self._streams.are_settled:
                quiet_since = now
            if now - quiet_since >= _QUIET_SECONDS:
                return
            if now - began >= self._longest_step_seconds:
                log.warning("mutual_tls.proxies_do_not_answer", step=str(step))
                return
