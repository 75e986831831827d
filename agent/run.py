"""The agent as a process: its parts, its signals, and the program it may run beside itself."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from pilothouse.agent.control_plane import ControlPlaneAccess, ControlPlaneClient
from pilothouse.agent.keys import KeyKind
from pilothouse.agent.renewal import DEFAULT_SPREAD, Renewal
from pilothouse.agent.sds_server import SdsServer, somebody_listens
from pilothouse.agent.secrets import AgentSecrets
from pilothouse.api.workload import ReadinessProbe

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

if TYPE_CHECKING:
    from pilothouse.agent.health import HealthReporter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """A probe of the workload, and the bootstrap (JSON data) of the Envoy it is reported for."""

    probe: ReadinessProbe
    bootstrap: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """
    What the operator chose; `command` is run beside the agent, none if empty.

    With `health` the workload is probed.
    `spread` is within what time a certificate of a root that no longer signs is replaced.
    """

    access: ControlPlaneAccess
    socket: Path
    key_kind: KeyKind = KeyKind.ECDSA_P256
    lifetime: timedelta = timedelta()
    spread: timedelta = DEFAULT_SPREAD
    health: HealthOptions | None = None
    command: Sequence[str] = ()


async def run(options: AgentOptions) -> int:
    """
    Serve secrets until a signal comes or the program ends; return the exit code.

    Raises: CannotServe: The socket cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    if somebody_listens(options.socket):
        log.info("agent.others_serve_secrets", socket=str(options.socket))
        return await _until_end(options.command, stop)
    secrets = AgentSecrets()
    server = SdsServer(secrets, options.socket)
    client = ControlPlaneClient(options.access)
    renewal = Renewal(
        client,
        secrets,
        key_kind=options.key_kind,
        lifetime=options.lifetime,
        clock=lambda: datetime.now(UTC),
        spread=options.spread,
    )
    await server.start()
    log.info("agent.serving", socket=str(options.socket))
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(renewal.run(), name="renewal"),
                tasks.create_task(renewal.follow_trust(), name="roots"),
            ]
            if options.health is not None:
                reporter = _reporter(options.health, client, renewal)
                running.append(tasks.create_task(reporter.run(), name="health"))
            code = await _until_end(options.command, stop)
            for task in running:
                task.cancel()
        return code
    finally:
        await server.stop()


def _reporter(
    options: HealthOptions, client: ControlPlaneClient, renewal: Renewal
) -> "HealthReporter":
    # Few agents probe, and what that needs takes time and memory to load.
    from pilothouse.agent.health import HealthReporter, node_of  # noqa: PLC0415

    node = node_of(options.bootstrap)
    return HealthReporter(client, options.probe, node, held=lambda: renewal.held)


async def _until_end(command: Sequence[str], stop: asyncio.Event) -> int:
    if not command:
        await stop.wait()
        return 0
    child = await asyncio.create_subprocess_exec(*command)
    ended = asyncio.create_task(child.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        child.terminate()
    code = await ended
    return code if code >= 0 else 128 - code
