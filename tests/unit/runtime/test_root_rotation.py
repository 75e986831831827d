"""When steps of a rotation are taken: after everything was in place for a while, and in time."""

from datetime import datetime, timedelta
from pathlib import Path

from certificates import NOW

from pilothouse.certs.holders import Holders, HoldersAt, Holding
from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.root_store import RootStore
from pilothouse.certs.rotation import Phase
from pilothouse.certs.rotation_files import Action, RotationRequest, read_status, write_request
from pilothouse.certs.self_signed import ROOT_LIFETIME
from pilothouse.runtime.root_rotation import RotationRun

SETTLE = timedelta(seconds=30)


class Mesh:
    """A store, a clock, and proxies that have what the test says; `applied` counts."""

    def __init__(self, directory: Path) -> None:
        self.store = RootStore.open(directory / "ca", "cluster.local", NOW)
        self.holders = Holders()
        self.connected_keys = frozenset[str]()
        self.seconds = 0.0
        self.applied: list[Phase] = []
        self.failures = 0
        self.run = RotationRun(
            self.store,
            self,  # type: ignore[arg-type]
            apply=self.apply,
            clock=self.now,
            monotonic=lambda: self.seconds,
            settle=SETTLE,
            trust_domain=lambda: "cluster.local",
            algorithm=KeyAlgorithm.ECDSA_P256,
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def look(self) -> HoldersAt:
        return self.holders.at(self.now())

    async def apply(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is full")
        self.applied.append(self.store.rotation.phase)

    async def after(self, seconds: float) -> Phase:
        self.seconds += seconds
        await self.run.step()
        return self.store.rotation.phase

    def ask(self) -> None:
        write_request(
            self.store.directory,
            RotationRequest(action=Action.ROTATE, phase=self.store.rotation.phase),
        )

    def all_have(self, *, trusts: frozenset[str], uses: str) -> None:
        until = self.now() + timedelta(hours=24)
        self.holders.note("node:a", Holding(trusts=trusts, uses=frozenset({uses}), until=until))


async def test_a_step_is_taken_after_it_held_for_a_while(tmp_path: Path) -> None:
    """What comes and goes begins anew."""
    mesh = Mesh(tmp_path)
    old = mesh.store.rotation.current
    mesh.all_have(trusts=frozenset({old}), uses=old)
    mesh.ask()
    assert await mesh.after(1) is Phase.TRUSTING_BOTH
    assert mesh.applied == [Phase.TRUSTING_BOTH]
    both = mesh.store.rotation.trusted_roots
    assert await mesh.after(100) is Phase.TRUSTING_BOTH
    mesh.all_have(trusts=both, uses=old)
    assert await mesh.after(1) is Phase.TRUSTING_BOTH
    assert await mesh.after(29) is Phase.TRUSTING_BOTH
    mesh.all_have(trusts=frozenset({old}), uses=old)
    await mesh.after(1)
    mesh.all_have(trusts=both, uses=old)
    assert await mesh.after(1) is Phase.TRUSTING_BOTH
    assert await mesh.after(29) is Phase.TRUSTING_BOTH
    assert await mesh.after(1) is Phase.SIGNING_WITH_NEW
    assert mesh.applied == [Phase.TRUSTING_BOTH], "the next turn uses it"
    await mesh.after(1)
    assert mesh.applied == [Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW]
    assert await mesh.after(100) is Phase.SIGNING_WITH_NEW


async def test_nothing_goes_on_before_a_step_is_in_use(tmp_path: Path) -> None:
    """A failure half way is tried again, and the clock runs from its success only."""
    mesh = Mesh(tmp_path)
    mesh.failures = 3
    mesh.ask()
    for _ in range(3):
        assert await mesh.after(100) is Phase.TRUSTING_BOTH
        assert mesh.applied == []
    assert await mesh.after(100) is Phase.TRUSTING_BOTH
    assert mesh.applied == [Phase.TRUSTING_BOTH]
    assert await mesh.after(29) is Phase.TRUSTING_BOTH
    assert await mesh.after(1) is Phase.SIGNING_WITH_NEW


async def test_a_root_is_replaced_before_it_ends(tmp_path: Path) -> None:
    """C-R-3: in the last fifth of its life."""
    mesh = Mesh(tmp_path)
    assert await mesh.after(ROOT_LIFETIME.total_seconds() * 0.79) is Phase.STABLE
    assert await mesh.after(ROOT_LIFETIME.total_seconds() * 0.02) is Phase.TRUSTING_BOTH


async def test_status_tells_who_is_waited_for(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    old = mesh.store.rotation.current
    mesh.all_have(trusts=frozenset({old}), uses=old)
    mesh.holders.note("leaf:1", Holding(until=mesh.now() + timedelta(hours=3)))
    mesh.connected_keys = frozenset({"node:a"})
    mesh.ask()
    await mesh.after(1)
    status = read_status(mesh.store.directory)
    assert status is not None
    assert (status.phase, status.waiting, status.absent) == (Phase.TRUSTING_BOTH, 1, 1)
    assert status.absent_until == NOW + timedelta(hours=3)
