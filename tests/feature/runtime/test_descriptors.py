"""A server uses the open files that the system lets it have, not the few it begins with."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen


def test_more_connections_than_the_usual_limit(mesh: Path, tmp_path: Path) -> None:
    """Hundreds of connections of strangers must not keep it from reading its config."""
    ports_file = tmp_path / "ports.json"
    serve = [
        sys.executable, "-m", "pilothouse", "serve", "-d", str(mesh), "--grpc-addr", ":0",
        "--secure-grpc-addr", "off", "--monitoring-addr", "127.0.0.1:0",
        "--ports-file", str(ports_file),
    ]  # fmt: skip
    few = ["sh", "-c", 'ulimit -Sn 128; exec "$@"', "sh", *serve]
    with (
        subprocess.Popen(
            few, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONSAFEPATH": "1"}
        ) as process,
        ExitStack() as open_,
    ):
        open_.callback(process.kill)
        deadline = time.monotonic() + 30
        while not ports_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.02)
        ports = json.loads(ports_file.read_text())
        for _ in range(300):
            made = socket.create_connection(("127.0.0.1", ports["grpc"]))
            open_.callback(made.close)
        with urlopen(f"http://127.0.0.1:{ports['monitoring']}/ready", timeout=20) as answer:
            assert answer.status == 200
        [limits] = [
            line
            for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines()
            if line.startswith("Max open files")
        ]
        soft, hard = limits.split()[3:5]
        assert soft == hard
