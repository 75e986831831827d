"""Children die with their parent, whichever way it goes, and their end is noticed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from pilothouse.demo.errors import ChildExited
from pilothouse.demo.process import ChildProcess

PATIENCE_SECONDS = 20


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while state(pid) not in ("", "Z"):  # noqa: ASYNC110 (not our child: nobody tells us)
            await asyncio.sleep(0.01)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def until_said(child: ChildProcess, text: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(text in line for line in child.tail()):
            child.raise_if_ended()
            await asyncio.sleep(0.01)


async def test_stop_ends_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    text = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=1); signal.pause()"
    child = await ChildProcess("stubborn", program(text), log_dir=tmp_path).start()
    await until_said(child, "up")

    await child.stop(grace_seconds=0.1)

    assert await child.wait() == -signal.SIGKILL
    assert not child.is_running


async def test_stop_ends_grandchildren_too(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, signal\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print('grandchild', p.pid, flush=True)\n"
        "signal.pause()"
    )
    child = await ChildProcess("parent", program(text), log_dir=tmp_path).start()
    await until_said(child, "grandchild")
    grandchild = int(child.tail()[0].split()[1])

    await child.stop()

    await until_gone(grandchild)


async def test_an_unexpected_end_is_told_with_the_last_words(tmp_path: Path) -> None:
    text = "import sys; print('out of cheese', file=sys.stderr); sys.exit(3)"
    child = await ChildProcess("reviews", program(text), log_dir=tmp_path).start()
    assert await child.wait() == 3

    with pytest.raises(ChildExited, match="reviews ended with code 3") as caught:
        child.raise_if_ended()

    assert "out of cheese" in str(caught.value)


async def test_a_missing_program_is_told(tmp_path: Path) -> None:
    child = await ChildProcess("ghost", ["/no/such/program"], log_dir=tmp_path).start()

    assert await child.wait() != 0
    assert "No such file" in child.tail()[-1]


async def test_children_do_not_share_the_group_that_ctrl_c_reaches(tmp_path: Path) -> None:
    child = await ChildProcess(
        "apart", program("print('up', flush=1); import signal; signal.pause()"), log_dir=tmp_path
    ).start()
    try:
        await until_said(child, "up")
        assert os.getpgid(child.pid) == child.pid
    finally:
        await child.stop()


async def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    """The kernel ends the child of a parent that got SIGKILL."""
    text = f"""
import asyncio
from pathlib import Path
from pilothouse.demo.process import ChildProcess

async def main():
    child = ChildProcess("child", ["/bin/sleep", "1000"], log_dir=Path({str(tmp_path)!r}))
    await child.start()
    while Path(f"/proc/{{child.pid}}/comm").read_text().strip() != "sleep":
        await asyncio.sleep(0.01)
    print("child", child.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    parent = ChildProcess("parent", program(text), log_dir=tmp_path)
    await parent.start()
    await until_said(parent, "child")
    child = int(parent.tail()[0].split()[1])
    assert state(child) != ""

    # Only the parent, not its group.
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()

    await until_gone(child)
