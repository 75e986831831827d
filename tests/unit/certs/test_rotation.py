"""Rotation of the root: no proxy ever meets a certificate that it cannot verify."""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from certificates import NOW
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilothouse.certs.holders import Holders, Holding
from pilothouse.certs.holders_journal import JOURNAL_FILE, HoldersJournal
from pilothouse.certs.root_store import RootStore
from pilothouse.certs.rotation import (
    Cancelled,
    Hastened,
    Looked,
    Phase,
    Requested,
    RootRotation,
    RotationRefused,
)

LEAF_LIFE = timedelta(hours=24)
OLD, NEW = "old", "new"


def ledger(**known: tuple[set[str] | None, set[str] | None]) -> Looked:
    """Return a look at holders: name -> (trusts, uses)."""
    return Looked(
        Holders(
            {
                key: Holding(
                    trusts=None if trusts is None else frozenset(trusts),
                    uses=None if uses is None else frozenset(uses),
                    until=NOW + LEAF_LIFE,
                )
                for key, (trusts, uses) in known.items()
            }
        ).at(NOW)
    )


def test_each_step_waits_for_its_proxies() -> None:
    """Trust both, sign with new, drop old: never before everybody has what the step needs."""
    state = RootRotation(current=OLD, since=NOW)
    assert state.advance(ledger(), NOW) is state
    state = state.advance(Requested(NEW), NOW)
    assert (state.signer, state.trusted_roots) == (OLD, {OLD, NEW})
    assert state.advance(ledger(a=({OLD}, {OLD})), NOW) is state
    assert state.advance(ledger(a=({OLD, NEW}, {OLD}), b=(None, {OLD})), NOW) is state
    state = state.advance(ledger(a=({OLD, NEW}, {OLD})), NOW)
    assert (state.phase, state.signer) == (Phase.SIGNING_WITH_NEW, NEW)
    assert state.trusted_roots == {OLD, NEW}
    assert state.advance(ledger(a=({OLD, NEW}, {OLD, NEW})), NOW) is state
    assert state.advance(ledger(a=({OLD, NEW}, None)), NOW) is state
    state = state.advance(ledger(a=({OLD, NEW}, {NEW})), NOW)
    assert (state.phase, state.signer, state.trusted_roots) == (Phase.DROPPING_OLD, NEW, {NEW})
    assert state.advance(ledger(a=({OLD, NEW}, {NEW})), NOW) is state
    state = state.advance(ledger(a=({NEW}, {NEW})), NOW)
    assert state == RootRotation(current=NEW, since=NOW)


def test_silent_holders_count_until_they_end() -> None:
    """Who is cut off from us may still talk to others."""
    state = RootRotation(current=OLD, since=NOW).advance(Requested(NEW), NOW)
    holders = Holders({"away": Holding(trusts=frozenset({OLD}), until=NOW + LEAF_LIFE)})
    assert state.advance(Looked(holders.at(NOW)), NOW) is state
    assert holders.at(NOW).behind(state) == {"away": NOW + LEAF_LIFE}
    later = NOW + LEAF_LIFE
    assert state.advance(Looked(holders.at(later)), later) is not state
    assert holders.at(later).behind(state) == {}
    assert holders.drop_ended(later) == ["away"]
    assert len(holders) == 0


@pytest.mark.parametrize("steps", range(4))
def test_requests_at_the_wrong_time(steps: int) -> None:
    state = RootRotation(current=OLD, since=NOW)
    if steps:
        state = state.advance(Requested(NEW), NOW)
        with pytest.raises(RotationRefused, match="another rotation"):
            state.advance(Requested("third"), NOW)
    for _ in range(1, steps):
        state = state.advance(Hastened(), NOW)
    if steps == 1:
        assert state.advance(Cancelled(), NOW) == RootRotation(current=OLD, since=NOW)
    else:
        with pytest.raises(RotationRefused, match="only before the new root signs"):
            state.advance(Cancelled(), NOW)
    if steps == 0:
        with pytest.raises(RotationRefused, match="no rotation"):
            state.advance(Hastened(), NOW)
        with pytest.raises(RotationRefused, match="must be another one"):
            state.advance(Requested(OLD), NOW)


def test_journal_survives_a_cut_line_and_stays_short(tmp_path: Path) -> None:
    """A kill loses nothing; a crash of the machine at most the last line."""
    tmp_path.chmod(0o700)
    journal = HoldersJournal(tmp_path)
    for index in range(10):
        journal.note(f"leaf:{index}", Holding(uses=frozenset({OLD}), until=NOW + LEAF_LIFE))
    journal.forget("leaf:0")
    file = tmp_path / JOURNAL_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    again = HoldersJournal(tmp_path)  # the first was killed
    assert dict(again.holders) == dict(journal.holders)
    assert len(again.holders) == 9
    with file.open("ab") as text:
        text.write(b'["leaf:99",["ol')
    assert dict(HoldersJournal(tmp_path).holders) == dict(journal.holders)
    again = HoldersJournal(tmp_path)
    for round_trip in range(5_000):
        until = NOW + timedelta(seconds=round_trip)
        again.note("node:flapping", Holding(until=until))
    assert len(file.read_bytes().splitlines()) < 2_000
    assert HoldersJournal(tmp_path).holders.get("node:flapping") == Holding(until=until)


@dataclass
class Proxy:
    """What a proxy really has; `noted` is what the server knows it has."""

    trusts: frozenset[str]
    uses: str
    until: timedelta
    is_connected: bool = True


class Rotations(RuleBasedStateMachine):
    """
    A mesh of proxies that come, go, lag behind and return, and a server that is killed at will.

    Time is hours since the start. `received` is what a proxy has; the server learns it by looking.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.hours = timedelta()
        self.proxies: dict[str, Proxy] = {}
        self.leaves = 0
        self.start()

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @property
    def now(self) -> datetime:
        return NOW + self.hours

    def start(self) -> None:
        self.store = RootStore.open(self.home / "ca", "cluster.local", self.now)
        self.journal = HoldersJournal(self.home / "ca")

    @property
    def bundle(self) -> frozenset[str]:
        return self.store.rotation.trusted_roots

    @initialize()
    def some_proxies(self) -> None:
        for _ in range(2):
            self.comes()

    # -- proxies ----------------------------------------------------------------------------------

    @rule()
    @precondition(lambda self: len(self.proxies) < 4)  # few, so that rotations get far
    def comes(self) -> None:
        self.leaves += 1
        name = f"node:{self.leaves}"
        self.journal.note(name, Holding(until=self.now + LEAF_LIFE))
        signer = self.store.rotation.signer
        self.proxies[name] = Proxy(self.bundle, signer, self.hours + LEAF_LIFE)

    @rule()
    @precondition(lambda self: not any(name.startswith("leaf:") for name in self.proxies))
    def agent_asks(self) -> None:
        """An agent has a leaf and the bundle of that time until the leaf ends."""
        self.leaves += 1
        signer = self.store.rotation.signer
        self.journal.note(
            f"leaf:{self.leaves}",
            Holding(trusts=self.bundle, uses=frozenset({signer}), until=self.now + LEAF_LIFE),
        )
        self.proxies[f"leaf:{self.leaves}"] = Proxy(
            self.bundle, signer, self.hours + LEAF_LIFE, is_connected=False
        )

    def gets_leaf(self, name: str) -> None:
        """A certificate is noted before it is handed out."""
        signer = self.store.rotation.signer
        self.journal.may_use(name, signer, self.now + LEAF_LIFE)
        self.proxies[name].uses = signer
        self.proxies[name].until = self.hours + LEAF_LIFE

    @rule(data=st.data())
    @precondition(lambda self: any(each.is_connected for each in self.proxies.values()))
    def gets(self, data: st.DataObject) -> None:
        """Some of what the server has pushed arrives, in any order."""
        names = sorted(name for name, each in self.proxies.items() if each.is_connected)
        name = data.draw(st.sampled_from(names))
        proxy = self.proxies[name]
        if data.draw(st.booleans()):
            proxy.trusts = self.bundle
        else:
            self.gets_leaf(name)

    @rule(bundle=st.booleans())
    def all_get(self, bundle: bool) -> None:
        for name, proxy in self.proxies.items():
            if proxy.is_connected and bundle:
                proxy.trusts = self.bundle
            elif proxy.is_connected:
                self.gets_leaf(name)

    @rule(data=st.data())
    @precondition(lambda self: self.proxies)
    def goes_or_returns(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.proxies)))
        if name.startswith("node:"):
            self.proxies[name].is_connected ^= True

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        """Connected proxies are renewed in time, the others end."""
        self.hours += timedelta(hours=hours)
        for name, proxy in self.proxies.items():
            if proxy.is_connected:
                self.gets_leaf(name)
        self.proxies = {
            name: proxy for name, proxy in self.proxies.items() if proxy.until > self.hours
        }

    # -- the server -------------------------------------------------------------------------------

    @rule()
    def looks(self) -> None:
        for name, proxy in self.proxies.items():
            if proxy.is_connected:
                self.journal.note(
                    name,
                    Holding(
                        trusts=proxy.trusts,
                        uses=frozenset({proxy.uses}),
                        until=NOW + proxy.until,
                    ),
                )
        self.store.advance(Looked(self.journal.holders.at(self.now)), self.now)

    @rule()
    @precondition(lambda self: self.store.rotation.phase is Phase.STABLE)
    def is_asked(self) -> None:
        self.store.request("cluster.local", self.now)

    @rule()
    @precondition(lambda self: self.store.rotation.phase is Phase.TRUSTING_BOTH)
    def is_asked_to_stop(self) -> None:
        self.store.advance(Cancelled(), self.now)

    @rule()
    def all_get_and_it_looks(self) -> None:
        self.all_get(bundle=True)
        self.all_get(bundle=False)
        self.looks()

    @rule()
    def is_killed(self) -> None:
        before = self.store.rotation
        self.start()
        assert self.store.rotation == before

    # -- the law ----------------------------------------------------------------------------------

    @invariant()
    def every_handshake_succeeds(self) -> None:
        used = {proxy.uses for proxy in self.proxies.values()}
        for proxy in self.proxies.values():
            assert used <= proxy.trusts, (self.store.rotation, self.proxies)


Rotations.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestRotations = Rotations.TestCase


def test_a_rotation_ends_when_all_keep_up(tmp_path: Path) -> None:
    """The law above is not kept by standing still."""
    machine = Rotations()
    machine.some_proxies()
    first = machine.store.rotation.current
    machine.is_asked()
    for _ in range(3):
        for proxy in machine.proxies.values():
            proxy.trusts, proxy.uses = machine.bundle, machine.store.rotation.signer
        machine.looks()
        machine.is_killed()
        machine.every_handshake_succeeds()
    assert machine.store.rotation.phase is Phase.STABLE
    assert machine.store.rotation.current != first
    machine.teardown()
