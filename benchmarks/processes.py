"""The processes of a run: the server as users start it, the helpers, and what /proc says."""

import asyncio
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
READY_WITHIN_SECONDS: Final = 120.0
_LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class Running:
    """A child process."""

    process: asyncio.subprocess.Process

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads, to the nanosecond."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue  # the thread has just ended
        return total / 1e9

    def loop_seconds(self) -> float:
        """Return the processor time of its first thread, in which the event loop runs."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9

    def rss_bytes(self) -> int:
        """Return the resident set."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 15)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@dataclass(slots=True)
class Helper(Running):
    """`swarm.py` or `floor.py`: one command at a time, as JSON lines."""

    @classmethod
    async def start(cls, script: str) -> "Helper":
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / script),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT_BYTES,
            )
        )  # fmt: skip

    async def do(self, command: str, **arguments: Any) -> Any:
        """Give a command and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the helper process ended during {command!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["answer"]


@dataclass(slots=True)
class Server(Running):
    """`pilothouse serve`, as a user would start it, on free ports."""

    grpc_port: int
    secure_port: int
    monitoring_port: int
    started_at: float
    ready_at: float

    @classmethod
    async def start(cls, config_dir: Path, scratch: Path, *options: str) -> "Server":
        """Start it and return once /ready says so; moments are of CLOCK_MONOTONIC."""
        ports_file = scratch / f"ports-{time.monotonic_ns()}.json"
        log = (scratch / "server.log").open("ab")
        started_at = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pilothouse", "serve", "--config-dir", str(config_dir),
            "--grpc-addr", "127.0.0.1:0", "--secure-grpc-addr", "127.0.0.1:0",
            "--monitoring-addr", "127.0.0.1:0", "--ports-file", str(ports_file), *options,
            stdout=log, stderr=log,
        )  # fmt: skip
        server = cls(process, 0, 0, 0, started_at, 0.0)
        while not ports_file.exists():
            if process.returncode is not None or time.monotonic() > (
                started_at + READY_WITHIN_SECONDS
            ):
                await server.stop()
                raise RuntimeError((scratch / "server.log").read_text()[-2000:])
            await asyncio.sleep(0.002)
        ports = json.loads(ports_file.read_text())
        server.grpc_port, server.monitoring_port = ports["grpc"], ports["monitoring"]
        server.secure_port = ports["secure_grpc"]
        while not server._is_ready():
            await asyncio.sleep(0.002)
        server.ready_at = time.monotonic()
        return server

    def _is_ready(self) -> bool:
        try:
            return bool(self.get("/ready"))
        except urllib.error.URLError:
            return False

    def get(self, path: str) -> str:
        """Return what the monitoring port answers."""
        url = f"http://127.0.0.1:{self.monitoring_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()

    def metrics(self) -> dict[str, float]:
        """Return all metrics, those with labels summed up."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            match = re.match(r"([a-zA-Z_:]+)(?:\{.*\})? (\S+)$", line)
            if match:
                found[match[1]] = found.get(match[1], 0.0) + float(match[2])
        return found
