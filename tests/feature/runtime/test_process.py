"""``pilothouse serve`` as a process: ports, signals, exit codes, and what it says."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

FREE = ("--grpc-addr", ":0", "--secure-grpc-addr", "off", "--monitoring-addr", "127.0.0.1:0")


def command(mesh: Path, *options: str) -> list[str]:
    """Return the command line of a server on free ports."""
    return [sys.executable, "-m", "pilothouse", "serve", "-d", str(mesh), *FREE, *options]


@contextmanager
def started(mesh: Path, ports_file: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a server and wait until its ports file is there."""
    with subprocess.Popen(
        command(mesh, "--ports-file", str(ports_file), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    ) as process:
        try:
            deadline = time.monotonic() + 20
            while not ports_file.exists() and process.poll() is None:
                assert time.monotonic() < deadline, "the server did not become ready"
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def get(port: int, path: str) -> Any:
    """Return decoded JSON from the monitoring port."""
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_signal_ends_it_with_zero(mesh: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ports are printed and written; a signal ends it cleanly; logs off a terminal are JSON."""
    ports_file = tmp_path / "ports.json"
    with started(mesh, ports_file) as process:
        ports = json.loads(ports_file.read_text())
        assert set(ports) == {"grpc", "secure_grpc", "monitoring"}
        assert ports["secure_grpc"] is None
        assert get(ports["monitoring"], "/version")["product"] == "pilothouse"
        process.send_signal(number)
        out, log = process.communicate(timeout=15)
    assert process.returncode == 0
    assert out == (
        f"grpc=127.0.0.1:{ports['grpc']} secure_grpc=off"
        f" monitoring=127.0.0.1:{ports['monitoring']}\n"
    )
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["config.loaded", "server.ready", "server.stopping", "server.stopped"]


def test_restart_on_the_same_port(mesh: Path, tmp_path: Path) -> None:
    """A server that was killed can be started again at once on its port."""
    with started(mesh, tmp_path / "first.json") as process:
        ports = json.loads((tmp_path / "first.json").read_text())
        process.kill()
        process.communicate(timeout=15)
    same = (
        "--grpc-addr",
        f":{ports['grpc']}",
        "--monitoring-addr",
        f":{ports['monitoring']}",
    )
    with started(mesh, tmp_path / "second.json", *same):
        assert json.loads((tmp_path / "second.json").read_text()) == ports


@pytest.mark.parametrize("option", ["--grpc-addr", "--secure-grpc-addr", "--monitoring-addr"])
def test_busy_port_is_one_line(mesh: Path, option: str) -> None:
    """No traceback: the address, the option, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        done = subprocess.run(
            command(mesh, option, address, "--log-level", "error"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: Cannot listen on {address} ({option}): address already in use. Free it, or"
        f" choose another address with {option} HOST:PORT (port 0: any free).\n"
    )


def test_missing_directory_is_one_line(tmp_path: Path) -> None:
    """No traceback: the directory, and exit code 1."""
    done = subprocess.run(
        command(tmp_path / "none", "--log-level", "error"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"Error: The config directory {tmp_path / 'none'} does not exist.\n"


def test_ports_file_that_cannot_be_written(mesh: Path, tmp_path: Path) -> None:
    """No traceback: the option, the file, the reason, and exit code 1."""
    file = tmp_path / "none" / "ports.json"
    done = subprocess.run(
        command(mesh, "--ports-file", str(file), "--log-level", "error"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: --ports-file: {file} cannot be written: no such file or directory.\n"
    )
