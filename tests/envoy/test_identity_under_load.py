"""
Roots and modes change while requests run: none is lost, whatever happens to the server meanwhile.

The example mesh with its six Envoys carries the requests; fifty simulated proxies make sure that a
step waits for everybody.
"""

import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from identity_follower import IdentityFollower

from pilothouse.certs.root_store import read_state
from pilothouse.certs.rotation import Phase, RootRotation
from pilothouse.certs.tokens import TokenStore
from pilothouse.demo.ground import LoopbackGround
from pilothouse.demo.mesh import BookinfoMesh
from pilothouse.demo.story import READERS
from pilothouse.demo.traffic import Traffic
from pilothouse.model.identity import WorkloadIdentity

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240), pytest.mark.xdist_group("under_load")]

LOOPBACK = "127.61"
FOLLOWERS = 50
SETTLE = "--ca-rotation-settle=1s"
PATIENCE_SECONDS = 90
STRANGE = WorkloadIdentity("cluster.local", "default", "follower")
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


@dataclass
class Ground:
    """A mesh with traffic and followers."""

    mesh: BookinfoMesh
    traffic: Traffic
    followers: list[IdentityFollower]

    @property
    def authority(self) -> Path:
        """The directory of the roots."""
        return self.mesh.workdir / "ca"

    def state(self) -> RootRotation:
        """Return where the rotation is."""
        found = read_state(self.authority)
        assert found is not None
        return found

    async def ask_for_rotation(self) -> None:
        """Ask as an operator does; returns when the server has begun."""
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pilothouse", "ca", "rotate", f"--ca-dir={self.authority}",
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await asked.wait() == 0

    def lost(self) -> list[tuple[float, int]]:
        """Return the requests that were not answered well: when, and how."""
        return [(each.started, each.status) for each in self.traffic.since(0) if each.status != 200]

    def strangers(self) -> list[str]:
        """Return pairs of followers of which one would not take the other's certificate."""
        known: dict[tuple[bytes, bytes], bool] = {}
        found = []
        for one, other in itertools.product(self.followers, repeat=2):
            pair = (one.held.roots_pem, other.held.leaf_pem)
            if pair not in known:
                known[pair] = one.trusts(other.held.leaf_pem)
            if not known[pair]:
                found.append(f"{self.state().phase}: {pair[0][:0]!r}")
        return found


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as name:
        yield Path(name)
        shutil.rmtree(name, ignore_errors=True)


@asynccontextmanager
async def ground(path: Path, followers: int) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        mesh = BookinfoMesh(
            LoopbackGround(loopback=LOOPBACK), workdir=path / "w", serve_options=(SETTLE,)
        )
        await stack.enter_async_context(mesh)
        token, _ = TokenStore(mesh.workdir / "ca").create(STRANGE, datetime.now(UTC))
        roots = (mesh.workdir / "details-v1" / "roots.pem").read_bytes()
        address = f"127.0.0.1:{mesh.ports['secure_grpc']}"
        made = [
            await stack.enter_async_context(IdentityFollower(address, number, token, roots))
            for number in range(followers)
        ]
        await until(lambda: all(each.held.leaf_pem for each in made))
        traffic = await stack.enter_async_context(Traffic(mesh.url, READERS))
        await until(lambda: len(traffic.since(0)) >= 50)
        yield Ground(mesh, traffic, made)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (files and samples change silently)
            await asyncio.sleep(0.02)


async def rotated(ground: Ground, old: str) -> None:
    """Wait for the end of a rotation; all the while everybody trusts everybody."""

    def is_over() -> bool:
        assert ground.strangers() == []
        state = ground.state()
        return state.phase is Phase.STABLE and state.current != old

    await until(is_over)
    renewed = time.monotonic()
    await until(lambda: len(ground.traffic.since(renewed)) >= 50)


async def test_a_root_is_replaced_under_load(short_path: Path) -> None:
    """C-R-5, C-R-6: nobody meets a certificate it does not trust, and no request fails."""
    async with ground(short_path, FOLLOWERS) as mesh:
        old = mesh.state().current
        before = {each.held.leaf_pem for each in mesh.followers}
        await mesh.ask_for_rotation()
        await rotated(mesh, old)
        assert mesh.lost() == []
        assert all(each.connects == 1 for each in mesh.followers), "streams did not stay"
        assert not before & {each.held.leaf_pem for each in mesh.followers}
        assert len({each.held.roots_pem for each in mesh.followers}) == 1
        for envoy in mesh.mesh.envoys.values():
            told = await envoy.admin("/certs")
            assert told.count('"ca_cert"') >= 1


@pytest.mark.parametrize(
    "phase", [Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW, Phase.DROPPING_OLD], ids=str
)
async def test_a_server_killed_while_it_rotates_goes_on(short_path: Path, phase: Phase) -> None:
    """The state on disk is what counts: the next server takes the rotation to its end."""
    async with ground(short_path, 8) as mesh:
        old = mesh.state().current
        await mesh.ask_for_rotation()
        await until(lambda: mesh.state().phase is phase)
        await mesh.mesh.restart_control_plane()
        await rotated(mesh, old)
        assert mesh.lost() == []


async def test_modes_change_under_load(short_path: Path) -> None:
    """S-PA-1: from plain text to mutual TLS only, and back, and no request fails."""
    async with ground(short_path, 0) as mesh:
        # The way of a cautious operator, then of a bold one.
        for mode in ("DISABLE", "PERMISSIVE", "STRICT", "PERMISSIVE", "DISABLE", "STRICT"):
            front = "PERMISSIVE" if mode == "STRICT" else mode
            mesh.mesh.write("peer-authentication.yaml", POLICY % (mode, front))
            is_known = mode != "DISABLE"
            written = time.monotonic()

            def seen(since: float = written, wanted: bool = is_known) -> bool:
                calls = [pair for s in mesh.traffic.since(since)[-30:] for pair in s.callers]
                return len(calls) >= 60 and all(bool(identity) is wanted for _, identity in calls)

            await until(seen)
        assert mesh.lost() == []
