"""
The control plane is killed under connected Envoys, stays away for a while, and comes back changed.

Nothing here needs root: the example mesh runs on loopback addresses of this file's own.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilothouse.demo.bookinfo import stage_text
from pilothouse.demo.ground import LoopbackGround
from pilothouse.demo.mesh import BookinfoMesh
from pilothouse.demo.story import READERS, STAGES
from pilothouse.demo.traffic import Traffic

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("restart"),
]
PATIENCE_SECONDS = 60


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("r", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize(
    ("delta", "loopback"), [(True, "127.62"), (False, "127.63")], ids=["delta", "sotw"]
)
async def test_no_request_is_lost_while_the_control_plane_is_away(
    short_path: Path, delta: bool, loopback: str
) -> None:
    """XD-10: served on by what they have; what was changed meanwhile is obeyed at once."""
    mesh = BookinfoMesh(LoopbackGround(loopback=loopback), delta=delta, workdir=short_path / "w")
    async with mesh, Traffic(mesh.url, READERS) as traffic:

        def count_since(when: float) -> int:
            return len(traffic.since(when))

        await until(lambda: count_since(0) >= 20)
        assert mesh._control_plane is not None
        await mesh._control_plane.kill()
        killed = time.monotonic()
        await until(lambda: count_since(killed) >= 100)
        mesh.write(STAGES[2].target, stage_text(STAGES[2].file))
        written = time.monotonic()
        await until(lambda: count_since(written) >= 20)
        assert {sample.version for sample in traffic.since(killed)} == {"v1"}
        await mesh._start_control_plane()
        await until(lambda: any(s.version == "v2" for s in traffic.since(written)))
        back = time.monotonic()
        await until(lambda: count_since(back) >= 100)
        samples = traffic.since(0)
    lost = {each.started - killed: each.status for each in samples if each.status != 200}
    assert not lost, f"seconds after the kill: {lost}; back after {back - killed}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (samples arrive silently)
            await asyncio.sleep(0.02)
