"""
One child program: started so that it dies with us, logged to a file, always reaped.

Only this module starts programs for the demo. Each child leads its own process group, so that what
it starts itself goes with it, and the kernel kills it if we are killed (see `launch.py`).
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from pilothouse.demo.errors import ChildExited

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_TAIL_LINES: Final = 12


class ChildProcess:
    """
    A program in its own process group, its output in `log_path`.

    Args:
        name: How messages call it; also the name of its log file.
        argv: Program (absolute path) and arguments.
        log_dir: Folder for the log; must exist.
        environment: Variables added to ours.
        netns: Path of a network namespace to run in, such as ``/run/netns/NAME``; needs root.
        uid: User and group id to run as; needs root.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_dir: Path,
        environment: Mapping[str, str] | None = None,
        netns: Path | None = None,
        uid: int | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_dir / f"{name}.log"
        self._argv = tuple(argv)
        self._environment = dict(environment or {})
        self._netns = netns
        self._uid = uid
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id; also the id of its process group. Raises if it was never started."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> Self:
        """Start it. Raises OSError if the launcher cannot be run."""
        options = ["--parent", str(os.getpid())]
        if self._netns is not None:
            options += ["--netns", str(self._netns)]
        if self._uid is not None:
            options += ["--uid", str(self._uid)]
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_LAUNCH),
                *options,
                "--",
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
            )
        return self

    async def wait(self) -> int:
        """Wait for its end and return the exit code; negative is the signal that ended it."""
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return await self._process.wait()

    def raise_if_ended(self) -> None:
        """Raise ChildExited if it is no longer running."""
        if self._process is not None and self._process.returncode is not None:
            raise ChildExited(self.name, self._process.returncode, self.tail())

    async def stop(self, *, grace_seconds: float = 2.0) -> None:
        """End it: SIGTERM, then after `grace_seconds` SIGKILL for the whole group. Idempotent."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_seconds)
        self._signal(signal.SIGKILL)
        await self._process.wait()

    async def kill(self) -> None:
        """End it and its group at once, as a crash would."""
        self._signal(signal.SIGKILL)
        await self.wait()

    def tail(self, lines: int = _TAIL_LINES) -> list[str]:
        """Return the last lines of its log, each cut at 400 characters."""
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as log:
                return [line.rstrip()[:400] for line in deque(log, maxlen=lines)]
        except FileNotFoundError:
            return []

    def _signal(self, number: int) -> None:
        # The group may be gone, or (for an instant after the start) not made yet.
        process = self._process
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
