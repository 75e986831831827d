"""
The process: signals, exit codes, and what is told once the server is ready.

Everything the server is made of is put together in `pilothouse.runtime.control_plane`.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from typing import Final

import structlog

from pilothouse.errors import MeshError
from pilothouse.runtime import descriptors, memory
from pilothouse.runtime.addresses import InvalidSetting
from pilothouse.runtime.control_plane import ControlPlane
from pilothouse.runtime.logs import configure_logs
from pilothouse.runtime.ports import BoundPorts, explain
from pilothouse.runtime.settings import Settings

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    configure_logs(settings.log_level, settings.log_format)
    descriptors.take_all()
    memory.tune_allocator()
    memory.tune_collector()
    with asyncio.Runner(loop_factory=memory.loop_factory()) as runner:
        try:
            runner.run(_serve(settings))
        except (MeshError, BaseExceptionGroup) as failure:
            known, unknown = _split(failure)
            if unknown is not None:
                raise  # a fault of ours: the traceback is what helps
            for error in known:
                sys.stderr.write(f"Error: {error}\n")
            return 1
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_for(name: str) -> None:
        log.info("server.stopping", signal=name)
        stop.set()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)  # who asks again does not want to wait

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop_for, number.name)
    await ControlPlane(settings).run(stop, lambda ports: announce(settings, ports))


def announce(settings: Settings, ports: BoundPorts) -> None:
    """
    Say on standard output, and in the ports file if there is one, where the server is.

    Raises: InvalidSetting: The ports file cannot be written.
    """
    memory.freeze_loaded()
    secure = ports.secure_grpc or "off"
    sys.stdout.write(f"grpc={ports.grpc} secure_grpc={secure} monitoring={ports.monitoring}\n")
    sys.stdout.flush()
    if settings.ports_file is not None:
        try:
            ports.write(settings.ports_file)
        except OSError as error:
            problem = f"{settings.ports_file} cannot be written: {explain(error)}."
            raise InvalidSetting("--ports-file", problem) from error


def _split(
    failure: BaseException,
) -> tuple[list[MeshError], BaseExceptionGroup[BaseException] | None]:
    """Return the errors people are told in a sentence, and what is left."""
    group = BaseExceptionGroup("", [failure])
    known, unknown = group.split(MeshError)
    return list(_leaves(known)) if known else [], unknown


def _leaves(group: BaseExceptionGroup[MeshError]) -> Iterator[MeshError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
