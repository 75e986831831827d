"""A change of modes goes on where a killed server left it, and nobody is refused (ADR 21)."""

import asyncio
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.api.decode import decode
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.authentication import MtlsMode, authentication_of, takes_mutual_tls
from pilothouse.model.inputs import MODE_CHANGE, PEER_AUTHENTICATIONS, TABLES, THE_MESH
from pilothouse.model.mode_change import Step
from pilothouse.runtime import mode_changes
from pilothouse.runtime.commit import Change
from pilothouse.runtime.mode_change_file import STATE_FILE, ModeChangeFile
from pilothouse.runtime.mode_changes import ModeChanges

LABELS = {"app": "web", "security.istio.io/tlsMode": "istio"}
ACCEPTS = {
    MtlsMode.DISABLE: {False},
    MtlsMode.PERMISSIVE: {False, True},
    MtlsMode.STRICT: {True},
}
"""Whether mutual TLS is used, by what a server takes."""
NAMES = ("a", "b")
Modes = dict[str, str]
"""Mode of the whole namespace by name of the policy that says so; the first counts."""


@query
def server(ctx: Ctx, _key: None) -> MtlsMode:
    """Return what a workload takes."""
    return authentication_of(ctx, "shop", tuple(LABELS.items())).at(80)


@query
def client(ctx: Ctx, _key: None) -> bool:
    """Tell whether its clients use mutual TLS."""
    return takes_mutual_tls(ctx, "shop", LABELS, 80)


def rows(modes: Modes, before: Modes) -> list[Change]:
    """Return what a reader of files says of a change."""
    changes: list[Change] = []
    for name in {**before, **modes}:
        spec = {"mtls": {"mode": modes.get(name, "UNSET")}}
        meta = {"name": name, "namespace": "shop"}
        kind = "PeerAuthentication"
        made = decode(
            {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}
        ).object
        assert made is not None
        if modes.get(name) != before.get(name):
            row = made if name in modes else None
            changes.append((PEER_AUTHENTICATIONS.name, made.meta.key, row))
    return changes


class Killed(BaseException):
    """The server is no more."""


class Proxies:
    """Stands for all streams: who is connected has answered."""

    def __init__(self) -> None:
        self.count = 4
        self.are_settled = True

    def __len__(self) -> int:
        return self.count


class World:
    """Servers one after another over one directory, and at which states its proxies may be."""

    def __init__(self, directory: Path, modes: Modes) -> None:
        self.directory = directory
        self.modes = modes
        self.seconds = 0.0
        self.proxies = Proxies()
        self.states: list[tuple[MtlsMode, bool]] = []
        self.seen: list[tuple[MtlsMode, bool]] = []
        self.puts_left = 1_000
        self.dies_after = False
        self.graph: Graph
        self.changes: ModeChanges
        self.task: asyncio.Task[None] | None = None

    def _tick(self) -> float:
        self.seconds += 0.2
        return self.seconds

    def start(self) -> None:
        self.graph = Graph()
        self.changes = ModeChanges(
            self.proxies,  # type: ignore[arg-type]
            self._put,
            directory=self.directory,
            clock=self._tick,
        )
        self._commit(self.changes.start(rows(self.modes, {})))
        self.task = asyncio.create_task(self.changes.run())

    def edit(self, modes: Modes) -> None:
        before, self.modes = self.modes, modes
        if self.task is not None:
            self._commit(self.changes.take(rows(modes, before)))

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError, Killed):
                await self.task
            self.task = None

    async def at_rest(self) -> None:
        """Wait until nothing is under way, or the server is dead."""
        async with asyncio.timeout(3):
            while self.task is not None and not self.task.done() and self.is_busy:  # noqa: ASYNC110
                await asyncio.sleep(0)

    @property
    def is_busy(self) -> bool:
        known = ModeChangeFile(self.directory).read()
        is_wanted = self.graph.value(server, None) is of(self.modes)
        return known is None or known.change is not None or not is_wanted

    async def _put(self, changes: Iterable[Change]) -> None:
        changes = list(changes)
        self.puts_left -= 1
        step = next(row for kind, _, row in changes if kind == MODE_CHANGE.name)
        begins = any(kind == PEER_AUTHENTICATIONS.name for kind, _, _ in changes)
        if not begins and step != self.graph.store(MODE_CHANGE).rows.get(THE_MESH):
            self.states = self.states[-1:]  # the step before has waited for the proxies
        if self.puts_left == 0 and not self.dies_after:
            raise Killed
        self._commit(changes)
        if self.puts_left == 0:
            raise Killed

    def _commit(self, changes: Iterable[Change]) -> None:
        self.graph.commit((TABLES[kind], key, row) for kind, key, row in changes)
        state = (self.graph.value(server, None), self.graph.value(client, None))
        if self.states and state == self.states[-1]:
            return
        if not self.proxies.count:
            self.states.clear()
        self.states.append(state)
        self.seen.append(state)
        for taken, _ in self.states:
            for _, sent in self.states:
                assert sent in ACCEPTS[taken], self.seen


def of(modes: Modes) -> MtlsMode:
    """Return what a server ends with."""
    said = [modes[name] for name in sorted(modes)]
    return MtlsMode(said[0]) if said else MtlsMode.PERMISSIVE


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_changes, "_LOOK_SECONDS", 0)


some_modes = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from(("DISABLE", "PERMISSIVE", "STRICT")), max_size=2
)


@settings(max_examples=80, deadline=None)
@given(
    first=some_modes,
    lives=st.lists(
        st.tuples(some_modes, st.integers(1, 4), st.booleans(), some_modes, st.booleans()),
        min_size=1,
        max_size=3,
    ),
)
async def test_whoever_is_killed_when(first: Modes, lives: list[Any]) -> None:
    """At every moment each client is understood by each server, and at last all have the mode."""
    mode_changes._LOOK_SECONDS = 0  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), first)
        world.start()
        for modes, puts, dies_after, held, is_edited_between in lives:
            world.puts_left, world.dies_after = puts, dies_after
            world.edit(modes)
            await asyncio.sleep(0)
            if not is_edited_between:
                world.edit(held)
            await world.at_rest()
            await world.end()
            if is_edited_between:
                world.edit(held)
            world.start()
        world.puts_left = 1_000
        await world.at_rest()
        assert world.states[-1][0] is of(world.modes)
        await world.end()


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path, {"a": "DISABLE"})


async def stop_at(world: World, puts: int) -> None:
    """Begin to change to STRICT and be killed at the n-th word."""
    world.start()
    world.puts_left = puts
    world.edit({"a": "STRICT"})
    assert world.task is not None
    await asyncio.wait({world.task})
    await world.end()
    world.puts_left = 1_000


@pytest.mark.parametrize(
    ("puts", "step"), [(1, Step.SERVERS), (2, Step.CLIENTS), (3, None)], ids=str
)
async def test_the_next_server_begins_at_the_step(
    world: World, puts: int, step: Step | None
) -> None:
    """Neither back to the start nor over what was not done."""
    await stop_at(world, puts)
    world.start()
    expected = {
        Step.SERVERS: (MtlsMode.PERMISSIVE, False),
        Step.CLIENTS: (MtlsMode.PERMISSIVE, True),
        None: (MtlsMode.STRICT, True),
    }
    assert world.states[-1] == expected[step]
    await world.at_rest()
    assert world.states[-1] == (MtlsMode.STRICT, True)
    await world.end()


async def test_a_step_waits_for_proxies_to_come_back(world: World) -> None:
    """As many as there were; but not for ever."""
    await stop_at(world, 1)
    world.proxies.count = 3
    world.start()
    began = world.seconds
    while world.seconds < began + mode_changes.RETURN_SECONDS - 1:
        await asyncio.sleep(0)
        assert world.states[-1] == (MtlsMode.PERMISSIVE, False)
    await world.at_rest()
    assert world.states[-1] == (MtlsMode.STRICT, True)
    await world.end()


async def test_all_are_back_at_once(world: World) -> None:
    """Nobody waits longer than there is somebody to wait for."""
    await stop_at(world, 1)
    world.start()
    began = world.seconds
    await world.at_rest()
    assert world.seconds < began + mode_changes.LONGEST_STEP_SECONDS
    await world.end()


async def test_a_first_server_changes_at_once(world: World) -> None:
    """Without proxies there is nobody to take along, and nothing to remember but the modes."""
    world.proxies.count = 0
    world.start()
    world.edit({"a": "STRICT"})
    assert world.states[-1] == (MtlsMode.STRICT, True)
    await world.end()
    world.start()
    assert world.states[-1] == (MtlsMode.STRICT, True)
    await world.end()


@pytest.mark.parametrize("content", ["", "{", '{"settled": [{}]}', '{"settled": 5}'])
async def test_a_damaged_file_is_no_obstacle(world: World, content: str) -> None:
    """Then the config is all there is to go by."""
    (world.directory / STATE_FILE).write_text(content)
    world.start()
    assert world.states[-1] == (MtlsMode.DISABLE, False)
    await world.end()


async def test_a_file_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is made all the same; a kill then finds nothing to go on from."""
    world = World(tmp_path / "absent", {"a": "DISABLE"})
    monkeypatch.setattr(World, "is_busy", property(lambda w: w.states[-1][0] is not of(w.modes)))
    world.start()
    world.edit({"a": "STRICT"})
    await world.at_rest()
    assert world.seen[-1] == (MtlsMode.STRICT, True)
    assert len(world.seen) == 4
    await world.end()
