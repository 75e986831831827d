"""
A server is killed while modes change between plain text and mutual TLS, and no request is lost.

The example mesh with its six Envoys carries the requests; the state on disk says when to kill.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.demo.ground import LoopbackGround
from pilothouse.demo.mesh import BookinfoMesh
from pilothouse.demo.story import READERS
from pilothouse.demo.traffic import Traffic
from pilothouse.model.mode_change import Step
from pilothouse.runtime.mode_change_file import KnownModes, ModeChangeFile

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240), pytest.mark.xdist_group("modes")]

LOOPBACK = "127.64"
PATIENCE_SECONDS = 90
POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: %s}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: productpage, namespace: default}
spec: {selector: {matchLabels: {app: productpage}}, mtls: {mode: %s}}
"""


class Ground:
    """A mesh with traffic."""

    def __init__(self, mesh: BookinfoMesh, traffic: Traffic) -> None:
        self.mesh = mesh
        self.traffic = traffic
        self._file = ModeChangeFile(mesh.workdir / "ca")

    def known(self) -> KnownModes:
        """Return what the next server would know."""
        found = self._file.read()
        assert found is not None
        return found

    def is_at(self, step: Step | None) -> bool:
        """Tell whether a change has come so far; None: none is under way."""
        change = self.known().change
        return (change.step if change is not None else None) is step

    def declare(self, mode: str) -> None:
        """Write a mode for all; who calls from outside has no certificate."""
        front = "PERMISSIVE" if mode == "STRICT" else mode
        self.mesh.write("peer-authentication.yaml", POLICY % (mode, front))

    async def lives_by(self, mode: str) -> None:
        """Wait until all calls are made as a mode says."""
        began = time.monotonic()

        def seen() -> bool:
            recent = self.traffic.since(began)[-30:]
            calls = [pair for sample in recent for pair in sample.callers]
            is_secured = mode != "DISABLE"
            return len(calls) >= 60 and all(bool(who) is is_secured for _, who in calls)

        await until(lambda: self.is_at(None))
        await until(seen)

    def lost(self) -> list[tuple[float, int]]:
        """Return the requests that were not answered well: when, and how."""
        return [(each.started, each.status) for each in self.traffic.since(0) if each.status != 200]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as name:
        yield Path(name)
        shutil.rmtree(name, ignore_errors=True)


@asynccontextmanager
async def ground(path: Path) -> AsyncIterator[Ground]:
    async with (
        BookinfoMesh(LoopbackGround(loopback=LOOPBACK), workdir=path / "w") as mesh,
        Traffic(mesh.url, READERS, pause_seconds=0.1) as traffic,
    ):
        await until(lambda: len(traffic.since(0)) >= 50)
        yield Ground(mesh, traffic)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (files and samples change silently)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("step", [Step.SERVERS, Step.CLIENTS, None], ids=str)
async def test_a_server_is_killed_in_each_step(short_path: Path, step: Step | None) -> None:
    """S-PA-1, ADR 21: there and back; None: just after the last step."""
    async with ground(short_path) as mesh:
        mesh.declare("DISABLE")
        await mesh.lives_by("DISABLE")
        for mode in ("STRICT", "DISABLE"):
            mesh.declare(mode)
            await until(lambda: not mesh.is_at(None))
            await until(lambda: mesh.is_at(step))
            await mesh.mesh.restart_control_plane()
            await mesh.lives_by(mode)
            assert mesh.lost() == [], f"on the way to {mode}"


async def test_modes_change_while_nobody_serves(short_path: Path) -> None:
    """What is written between two servers is a change like any other."""
    async with ground(short_path) as mesh:
        for mode in ("DISABLE", "STRICT"):
            await mesh.mesh.restart_control_plane(meanwhile=lambda m=mode: mesh.declare(m))
            await mesh.lives_by(mode)
        assert mesh.lost() == []
