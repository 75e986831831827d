"""The commit cycle turns changes into revisions."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.graph.tables import Table
from pilothouse.runtime.commit import CommitCycle
from pilothouse.runtime.debounce import Debouncer

PLANETS: Table[str, str] = Table("Planet")


@query
def shout(ctx: Ctx, key: str) -> str:
    """A row in capitals."""
    return (ctx.row(PLANETS, key) or "").upper()


class Recorder:
    """Counts what the cycle says."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.commits: list[dict[str, int]] = []
        self.nodes: list[int] = []
        self.offers = 0

    def offered(self, kinds: Mapping[str, int]) -> None:
        """Count offered changes."""
        self.offers += sum(kinds.values())

    def committed(self, kinds: Mapping[str, int], waited_seconds: float) -> None:
        """Keep the counts per kind."""
        assert waited_seconds >= 0
        self.commits.append(dict(kinds))

    def published(self, seconds: float) -> None:
        """Note that it was told."""
        assert seconds >= 0

    def recomputed(self, nodes: Mapping[str, int]) -> None:
        """Keep the counts per query."""
        self.nodes.append(sum(nodes.values()))


class Bench:
    """A cycle over a real graph whose publisher reads one root."""

    def __init__(self, quiet: timedelta) -> None:
        """Wire it; the publisher may be held up by clearing `gate`."""
        self.graph = Graph()
        self.graph.pin(shout, "earth")
        self.recorder = Recorder()
        self.published: list[str] = []
        self.progress = asyncio.Condition()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.cycle = CommitCycle(
            self.graph,
            {"Planet": PLANETS},
            self.publish,
            debouncer=Debouncer(quiet, timedelta(seconds=5)),
            observer=self.recorder,
            clock=asyncio.get_running_loop().time,
        )

    async def publish(self) -> None:
        """Read the root, as a publisher would."""
        self.entered.set()
        await self.gate.wait()
        self.published.append(self.graph.value(shout, "earth"))
        async with self.progress:
            self.progress.notify_all()

    async def until_published(self, value: str) -> None:
        """Wait until that value was the last one published."""
        async with asyncio.timeout(5), self.progress:
            await self.progress.wait_for(lambda: self.published[-1:] == [value])


async def test_same_object_is_coalesced() -> None:
    """PU-01: of several changes of one object the last counts, in one revision."""
    bench = Bench(timedelta(0))
    bench.cycle.offer([("Planet", "earth", "a"), ("Planet", "mars", "m"), ("Planet", "earth", "b")])
    assert bench.cycle.waiting_count == 2
    assert await bench.cycle.commit_now() == 2
    assert bench.published == ["B"]
    assert bench.recorder.commits == [{"Planet": 2}]
    assert sum(bench.recorder.nodes) == 2  # once when pinned, once for the change
    bench.graph.value(shout, "venus")  # as a new session would
    bench.cycle.count_nodes()
    bench.cycle.count_nodes()
    assert sum(bench.recorder.nodes) == 3


async def test_unknown_kind_is_left_out() -> None:
    """A kind without a table cannot be committed and does no harm."""
    bench = Bench(timedelta(0))
    bench.cycle.offer([("Comet", "halley", "x")])
    assert bench.cycle.waiting_count == 0
    assert bench.recorder.offers == 0


async def test_changes_during_publishing_wait_for_the_next_commit() -> None:
    """PU-02: inputs cannot change while a revision is being published."""
    bench = Bench(timedelta(0))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bench.cycle.run())
        bench.gate.clear()
        bench.cycle.offer([("Planet", "earth", "a")])
        await bench.entered.wait()
        bench.cycle.offer([("Planet", "earth", "b")])
        bench.cycle.offer([("Planet", "earth", "c")])
        bench.gate.set()
        await bench.until_published("C")
        running.cancel()
    assert bench.published == ["A", "C"]


async def test_close_changes_share_a_commit_after_the_leading_one() -> None:
    """The first change goes at once, those on its heels together."""
    bench = Bench(timedelta(milliseconds=80))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bench.cycle.run())
        bench.cycle.offer([("Planet", "earth", "a")])
        await bench.until_published("A")
        for letter in "bcd":
            bench.cycle.offer([("Planet", "earth", letter)])
            await asyncio.sleep(0)
        await bench.until_published("D")
        running.cancel()
    assert bench.published == ["A", "D"]


async def test_what_somebody_waits_for_is_not_held_back() -> None:
    """It is committed at once, in the middle of a flood, and published when `put` returns."""
    bench = Bench(timedelta(seconds=60))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bench.cycle.run())
        bench.cycle.offer([("Planet", "earth", "a")])
        await bench.until_published("A")
        bench.cycle.offer([("Planet", "earth", "b")])
        bench.gate.clear()
        puts = [tasks.create_task(bench.cycle.put([("Planet", name, "x")])) for name in ("m", "v")]
        await asyncio.sleep(0)
        assert not any(each.done() for each in puts)
        bench.gate.set()
        async with asyncio.timeout(5):
            await asyncio.wait(puts)
        running.cancel()
    assert bench.published == ["A", "B"]
    assert bench.recorder.commits[-1] == {"Planet": 3}
