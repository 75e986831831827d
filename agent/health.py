"""
The agent's word for its workload: probes run in a loop, their verdict told to the control plane.

Told on a discovery stream of the agent's own, as the node that its Envoy introduces itself with
(GN-06); the whole verdict at its beginning, then each change. While the control plane is away
probes go on, and it is told when it is back.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf import json_format

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from pilothouse.agent.control_plane import ControlPlaneClient, brief
from pilothouse.agent.identity import HeldIdentity
from pilothouse.agent.probes import Verdict, prober
from pilothouse.api.workload import ReadinessProbe
from pilothouse.errors import InvalidConfig, MeshError

HEALTH_TYPE: Final = "type.googleapis.com/istio.v1.HealthInformation"
REPORTER_KEY: Final = "PILOTHOUSE_REPORTS_HEALTH"
"""Tells the control plane that the stream is an agent's, beside that of its Envoy."""
DEFAULT_PERIOD_SECONDS: Final = 10.0
FIRST_RETRY_SECONDS: Final = 0.2
LONGEST_RETRY_SECONDS: Final = 15.0

log = structlog.get_logger()


class BadBootstrap(InvalidConfig):
    """A bootstrap of Envoy names no node that could be reported for."""

    def __str__(self) -> str:
        """One sentence for people."""
        return "The bootstrap has no node of the form type~ip~name.namespace~domain."


def node_of(bootstrap: Mapping[str, Any]) -> Node:
    """Return the node of a bootstrap as JSON data. Raises: BadBootstrap."""
    try:
        node = json_format.ParseDict(
            bootstrap.get("node") or {}, Node(), ignore_unknown_fields=True
        )
    except (json_format.ParseError, AttributeError, TypeError) as problem:
        raise BadBootstrap from problem
    if node.id.count("~") != 3:
        raise BadBootstrap
    return node


class HealthReporter:
    """See the module docstring; lives on one event loop."""

    def __init__(
        self,
        client: ControlPlaneClient,
        probe: ReadinessProbe,
        node: Node,
        *,
        held: Callable[[], HeldIdentity | None],
    ) -> None:
        """Report for `node`; `held` is what proves who we are, None while there is nothing."""
        self._client = client
        self._probe = probe
        self._look = prober(probe, node.id.split("~")[1])
        self._node = Node()
        self._node.CopyFrom(node)
        self._node.metadata.update({REPORTER_KEY: True})
        self._held = held
        self._verdict = Verdict(probe.success_threshold, probe.failure_threshold)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Probe and report, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._tell())

    async def _watch(self) -> None:
        await asyncio.sleep(self._probe.initial_delay_seconds)
        while True:
            if self._verdict.take(await self._look()):
                log.info("agent.health", problem=self._verdict.problem or "none")
                self._changed.set()
            await asyncio.sleep(self._probe.period_seconds or DEFAULT_PERIOD_SECONDS)

    async def _tell(self) -> None:
        await self._changed.wait()
        failures = 0
        while True:
            held = self._held()
            if held is not None:
                try:
                    await self._converse(held)
                    failures = 0
                except (MeshError, grpc.aio.AioRpcError) as problem:
                    log.warning("agent.health_not_told", problem=brief(problem))
            seconds = min(FIRST_RETRY_SECONDS * (1 << min(failures, 20)), LONGEST_RETRY_SECONDS)
            failures += 1
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311 (spread)

    async def _converse(self, held: HeldIdentity) -> None:
        """Tell what there is to tell until the stream ends."""
        async with self._client.discovery_stream(held) as call:
            ended = asyncio.create_task(call.read())
            try:
                self._changed.set()  # the control plane may know nothing yet
                request = DiscoveryRequest(node=self._node)
                while not ended.done():
                    await self._next(ended)
                    if self._changed.is_set():
                        self._changed.clear()
                        await self._send(call, request)
                        request = DiscoveryRequest()
                await ended  # nothing is ever sent, so this says how it ended
            finally:
                ended.cancel()
                with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                    await ended

    async def _next(self, ended: "asyncio.Task[object]") -> None:
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()

    async def _send(self, call: Any, request: DiscoveryRequest) -> None:  # noqa: ANN401 (gRPC's)
        request.type_url = HEALTH_TYPE
        if self._verdict.problem is not None:
            request.error_detail.code = grpc.StatusCode.INTERNAL.value[0]
            request.error_detail.message = self._verdict.problem
        await call.write(request.SerializeToString())
