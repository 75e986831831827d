"""
``python -m pilothouse.certs.front LISTENER CONTROL BACKEND``: started by the main process only.

The arguments are two inherited descriptors and the path of a Unix socket, nothing secret.
"""

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pilothouse.certs.front.process import Front


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the fastest event loop at hand."""
    try:
        import uvloop  # noqa: PLC0415 (absent on Windows)
    except ImportError:  # pragma: no cover (installed wherever the tests run)
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def run(listener_number: int, control_number: int, backend: str) -> bool:
    """Serve until the main process has gone; return whether it said so."""
    listener = socket.socket(fileno=listener_number)
    listener.setblocking(False)
    control = socket.socket(fileno=control_number)
    reader, writer = await asyncio.open_unix_connection(sock=control)
    return await Front(listener, reader, writer, backend).run()


def main() -> None:
    """Take as many descriptors as the system gives, and run."""
    # Who asks the whole process group to stop means the main process, which asks us when it has
    # said goodbye to its clients.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        was_told = runner.run(run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
    if not was_told:  # the main process was killed, so nobody else cleans up
        backend = Path(sys.argv[3])
        with contextlib.suppress(OSError):
            backend.unlink(missing_ok=True)
            backend.parent.rmdir()


if __name__ == "__main__":
    main()
