"""Process-wide tuning does no harm where it cannot help."""

import asyncio
import ctypes
import gc
import subprocess
import sys

import pytest

from pilothouse.runtime import memory


def test_allocator_without_mallopt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without mallopt is left alone."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert memory.tune_allocator() is False


def test_freezing_and_collector() -> None:
    """What is loaded leaves later collections; thresholds only grow."""
    before = gc.get_threshold()
    try:
        memory.tune_collector()
        assert gc.get_threshold()[0] > before[0]
        assert memory.freeze_loaded() > 0
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_loop_factory_runs() -> None:
    """The loop that is chosen works."""
    with asyncio.Runner(loop_factory=memory.loop_factory()) as runner:
        assert runner.run(asyncio.sleep(0, "ran")) == "ran"


def test_serving_does_not_load_rich():
    """A server that never prints for people has no rich; other commands still find it."""
    script = (
        "import sys; from pilothouse.runtime.memory import leave_out_rich; leave_out_rich();"
        "import pilothouse.runtime.app; assert 'rich' not in sys.modules;"
        "import rich.console; assert 'rich.console' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
