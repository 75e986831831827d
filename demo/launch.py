"""
Becomes another program that cannot outlive its parent. Run as a script, never imported.

    python -I -S launch.py --parent PID [--netns PATH] [--uid N] -- PROGRAM ARG...

Between fork and exec only a small program of its own can do these things safely: leave the
terminal's process group (so that Ctrl-C reaches the parent alone), enter a network namespace, drop
to another user, and ask the kernel for SIGKILL when the parent dies. Uses the standard library
alone, as it starts without site-packages.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000


def _check(result: int, act: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        sys.exit(f"launch: cannot {act}: {os.strerror(number)}")


def _launch(arguments: list[str]) -> None:
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    program = arguments[split + 1 :]
    libc = ctypes.CDLL(None, use_errno=True)

    os.setpgid(0, 0)
    # Opened first: a user we drop to may not be allowed to walk the path to the program.
    binary = os.open(program[0], os.O_RDONLY | os.O_CLOEXEC)
    if "--netns" in options:
        namespace = os.open(options["--netns"], os.O_RDONLY | os.O_CLOEXEC)
        _check(libc.setns(namespace, _CLONE_NEWNET), "enter the network namespace")
    if "--uid" in options:
        uid = int(options["--uid"])
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After the change of user, which clears the request.
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "renounce privileges")
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "follow the parent")
    if os.getppid() != int(options["--parent"]):
        sys.exit("launch: the parent has died")
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execve(binary, program, dict(os.environ))  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    _launch(sys.argv[1:])
