"""
Removes network namespaces whose maker has died. Both a script and a module.

    python -I -S guard.py OWNER

The script waits until its standard input ends, which the kernel sees to however its parent dies,
and then removes what OWNER has left. It lives in a session of its own and follows nobody's signals.
The namespaces of an owner are named ``pilothouse-OWNER-NAME``, and OWNER is ``PID.STARTTIME`` so
that a number used again is not taken for the one that died. Uses the standard library alone.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PREFIX = "pilothouse-"
_FOLDER = Path("/run/netns")


def owner(pid: int) -> str | None:
    """Return ``PID.STARTTIME`` of a process, or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets and may hold anything.
    return f"{pid}.{stat.rpartition(')')[2].split()[19]}"


def namespaces_of(owner_text: str) -> list[str]:
    """Return the names of the namespaces of an owner."""
    return [name for name in _ours() if name.startswith(f"{PREFIX}{owner_text}-")]


def leftovers() -> list[str]:
    """Return the names of the namespaces whose owner has died."""
    return [name for name in _ours() if not _is_alive(name.removeprefix(PREFIX).split("-")[0])]


def remove(names: list[str]) -> None:
    """Kill what runs in the namespaces and remove them, with the links in them."""
    for name in names:
        for pid in _ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", name)


def _ours() -> list[str]:
    if not _FOLDER.is_dir():
        return []
    return sorted(path.name for path in _FOLDER.iterdir() if path.name.startswith(PREFIX))


def _is_alive(owner_text: str) -> bool:
    pid = owner_text.split(".", maxsplit=1)[0]
    # A name that is not of our making is nobody's leftover.
    return not pid.isdigit() or owner(int(pid)) == owner_text


def _ip(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 (fixed program, names from our own listing)
        ["ip", *arguments],  # noqa: S607 (found on PATH: its place differs between systems)
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def _main(owner_text: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    remove(namespaces_of(owner_text))


if __name__ == "__main__":
    _main(sys.argv[1])
