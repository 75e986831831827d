"""
The commit cycle: collect changes, apply them as one revision, publish.

Changes of the same object are coalesced, the last one counts. All evaluation happens inside
`publish`, and inputs cannot change meanwhile: what arrives then waits for the next cycle. Knows
neither files nor streams.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

import structlog

from pilothouse.graph.core import Graph
from pilothouse.graph.tables import Table
from pilothouse.runtime.debounce import Debouncer

Change = tuple[str, Hashable, Any | None]
"""Kind (name of a table), key, and the new row or None if the object is gone."""

log = structlog.get_logger()


class CommitObserver(Protocol):
    """Somebody who counts commits."""

    def offered(self, kinds: Mapping[str, int]) -> None:
        """Changes arrived, so many of each kind."""
        ...

    def committed(self, kinds: Mapping[str, int], waited_seconds: float) -> None:
        """A revision was made of so many changes of each kind; the first waited that long."""
        ...

    def published(self, seconds: float) -> None:
        """A revision was applied and published in that time."""
        ...

    def recomputed(self, nodes: Mapping[str, int]) -> None:
        """So many nodes of each query have run since this was last told."""
        ...


class CommitCycle:
    """The only writer of the graph's inputs; lives on one event loop."""

    def __init__(
        self,
        graph: Graph,
        tables: Mapping[str, Table[Any, Any]],
        publish: Callable[[], Awaitable[None]],
        *,
        debouncer: Debouncer,
        observer: CommitObserver,
        clock: Callable[[], float],
    ) -> None:
        """Commit into `graph` and call `publish` after each revision; `clock` gives seconds."""
        self._graph = graph
        self._tables = tables
        self._publish = publish
        self._debouncer = debouncer
        self._observer = observer
        self._clock = clock
        self._waiting: dict[tuple[str, Hashable], Any | None] = {}
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._counted: dict[str, int] = {}
        self._awaited: list[asyncio.Future[None]] = []

    @property
    def waiting_count(self) -> int:
        """How many objects wait for the next commit."""
        return len(self._waiting)

    @property
    def is_due(self) -> bool:
        """Whether what waits is committed at once."""
        due = self._debouncer.due
        return due is not None and due <= self._clock()

    def offer(self, changes: Iterable[Change]) -> None:
        """Take changes for the next commit. Returns at once."""
        kinds: dict[str, int] = {}
        for kind, key, row in changes:
            if kind not in self._tables:
                log.debug("commit.kind_not_held", kind=kind)
                continue
            self._waiting[kind, key] = row
            kinds[kind] = kinds.get(kind, 0) + 1
        if kinds:
            self._observer.offered(kinds)
            self._debouncer.changed(self._clock())
            self._wake.set()

    async def put(self, changes: Iterable[Change]) -> None:
        """
        Take changes for a commit that waits for no quiet, and return once it is published.

        For what somebody waits for; `run` must be running. What waits meanwhile goes with it.
        """
        self.offer(changes)
        done = asyncio.get_running_loop().create_future()
        self._awaited.append(done)
        self._wake.set()
        await done

    async def run(self) -> None:
        """Commit for ever, each time what is due."""
        while True:
            due = self._debouncer.due
            delay = None if due is None else due - self._clock()
            if self._awaited or (delay is not None and delay <= 0):
                await self.commit_now()
                continue
            self._wake.clear()
            try:
                # A new change may move the moment, so it wakes the wait too.
                await asyncio.wait_for(self._wake.wait(), delay)
            except TimeoutError:
                continue

    async def commit_now(self) -> int:
        """Commit and publish all that waits without waiting; return how many rows changed."""
        async with self._turn:
            waiting, self._waiting = self._waiting, {}
            awaited, self._awaited = self._awaited, []
            waited_seconds = self._debouncer.taken(self._clock())
            started = self._clock()
            self.count_nodes()
            self._counted = {}
            changed = self._graph.commit(
                (self._tables[kind], key, row) for (kind, key), row in waiting.items()
            )
            kinds: dict[str, int] = {}
            for kind, _ in waiting:
                kinds[kind] = kinds.get(kind, 0) + 1
            self._observer.committed(kinds, waited_seconds)
            await self._publish()
            self._observer.published(self._clock() - started)
            self.count_nodes()
            for done in awaited:
                if not done.done():
                    done.set_result(None)
            return changed

    def count_nodes(self) -> None:
        """Tell the observer which nodes have run since it was last told; sessions run some too."""
        counts = self._graph.stats.recomputed
        new = {
            query: count - self._counted.get(query, 0)
            for query, count in counts.items()
            if count != self._counted.get(query, 0)
        }
        self._counted = dict(counts)
        if new:
            self._observer.recomputed(new)
