"""Names are followed while the graph asks for them, and nothing is put that is not new (MN-03)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from serving import until

from pilothouse.model.inputs import RESOLVED_NAMES
from pilothouse.model.resolved_names import ResolvedName
from pilothouse.runtime.commit import Change
from pilothouse.runtime.dns_client import Found, NotFound
from pilothouse.runtime.name_lookups import SHORTEST_SECONDS, NameLookups

NAME = "gw.example.com"


class World:
    """Names that are asked for, what they lead to, and what was put."""

    def __init__(self, shortest_seconds: float = 0.001) -> None:
        self.names = [NAME]
        self.found: dict[str, Found | str] = {NAME: Found(("203.0.113.1",), 0.0)}
        self.looks = 0
        self.puts: list[Change] = []
        self.lookups = NameLookups(
            lambda: self.names, self._look_up, self._put, shortest_seconds=shortest_seconds
        )

    async def _look_up(self, name: str) -> Found:
        self.looks += 1
        await asyncio.sleep(0)
        found = self.found[name]
        if isinstance(found, str):
            raise NotFound(found)
        return found

    async def _put(self, changes: Iterable[Change]) -> None:
        await asyncio.sleep(0)
        self.puts.extend(changes)

    async def more_looks(self, count: int = 3) -> None:
        """Wait for more looks at names."""
        wanted = self.looks + count
        await until(lambda: self.looks >= wanted)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """Follow the names of a world."""
    task = asyncio.create_task(world.lookups.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def put(name: str, row: ResolvedName | None) -> Change:
    return (RESOLVED_NAMES.name, name, row)


async def test_a_name_is_looked_up_again_and_put_once() -> None:
    """What is the same costs no commit; what changed is one."""
    async with running(World()) as world:
        await world.more_looks(5)
        assert world.puts == [put(NAME, ResolvedName(("203.0.113.1",)))]
        world.found[NAME] = Found(("203.0.113.9",), 0.0)
        await until(lambda: len(world.puts) == 2)
        await world.more_looks()
    assert world.puts[1:] == [put(NAME, ResolvedName(("203.0.113.9",)))]


async def test_a_name_that_leads_nowhere_keeps_its_addresses() -> None:
    async with running(World()) as world:
        await until(lambda: len(world.puts) == 1)
        world.found[NAME] = "there is no such name"
        await until(lambda: len(world.puts) == 2)
        await world.more_looks()
        world.found[NAME] = Found(("203.0.113.1",), 0.0)
        await until(lambda: len(world.puts) == 3)
    kept = ResolvedName(("203.0.113.1",), "there is no such name")
    assert world.puts[1:] == [put(NAME, kept), put(NAME, ResolvedName(("203.0.113.1",)))]


async def test_a_family_that_could_not_be_asked_for_is_kept() -> None:
    async with running(World()) as world:
        world.found[NAME] = Found(("203.0.113.1", "2001:db8::1"), 0.0)
        await until(lambda: len(world.puts) == 1)
        world.found[NAME] = Found(("203.0.113.2",), 0.0, is_partial=True)
        await until(lambda: len(world.puts) == 2)
    assert world.puts[1] == put(NAME, ResolvedName(("2001:db8::1", "203.0.113.2")))


async def test_names_come_and_go() -> None:
    """A name that nobody asks for is looked up no more, and its row is taken away."""
    async with running(World()) as world:
        await until(lambda: len(world.puts) == 1)
        world.found["new.example"] = Found(("192.0.2.1",), 0.0)
        world.names = ["new.example"]
        world.lookups.wake()
        await until(lambda: len(world.puts) == 3)
        assert put(NAME, None) in world.puts
        world.found[NAME] = Found(("203.0.113.99",), 0.0)
        await world.more_looks(5)
    assert put(NAME, ResolvedName(("203.0.113.99",))) not in world.puts
    assert put("new.example", ResolvedName(("192.0.2.1",))) in world.puts


async def test_a_short_time_to_live_does_not_hurry() -> None:
    """As upstream: half a minute at least, so that names do not cause pushes all the time."""
    async with running(World(SHORTEST_SECONDS)) as world:
        await until(lambda: len(world.puts) == 1)
        before = world.looks
        await asyncio.sleep(0.05)
        assert world.looks == before == 1


async def test_a_start_waits_for_the_first_look_but_not_for_ever() -> None:
    """Whatever it finds: what cannot be told in time is told of, and comes later."""
    world = World()
    world.found[NAME] = "there is no such name"
    async with running(world):
        await world.lookups.settled(10.0)
        assert len(world.puts) == 1
    late = World()
    await late.lookups.settled(0.01)
    assert late.puts == []
    late.names = []
    await late.lookups.settled(10.0)
