"""
A network namespace with nothing but loopback in it, for one program that binds fixed ports.

Envoy's sidecar ports (15001, 15006) are the same for every proxy; in a namespace of its own each
may have them, whoever else runs on the machine.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def why_not() -> str:
    """Say why namespaces cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root for a network namespace"
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2) for a network namespace"
    try:
        with lonely_namespace():
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made: {error.stderr.decode().strip()}"


@contextmanager
def lonely_namespace() -> Iterator[Path]:
    """Make a namespace, yield the file that stands for it, remove it."""
    name = f"pilothouse-test-{os.getpid()}-{secrets.token_hex(3)}"
    _ip("netns", "add", name)
    try:
        _ip("-netns", name, "link", "set", "dev", "lo", "up")
        yield Path("/run/netns") / name
    finally:
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
