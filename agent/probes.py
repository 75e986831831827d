"""
Probes of a workload's program, and when their results count as its health (WG-03).

As Istio's agent runs them: by HTTP, by a TCP connection, by a command, by gRPC's health service.
A probe returns what is wrong, or None. Nothing here knows whom it is told.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import grpc
import grpc.aio

from pilothouse.api.workload import ExecProbe, GrpcProbe, HttpProbe, ReadinessProbe, TcpProbe
from pilothouse.model.resource import field

USER_AGENT: Final = "istio-probe/1.0"
_CHECK: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
"""A HealthCheckResponse with the status SERVING."""
_MAX_REDIRECTS: Final = 10

Probe = Callable[[], Awaitable[str | None]]
"""Look once; return what is wrong, None if nothing is. Ends by itself."""


class Verdict:
    """
    What a row of results comes to: health changes after so many of one kind without a break.

    `problem` is what is wrong, None if nothing is; it counts once `is_known`.
    """

    def __init__(self, success_threshold: int, failure_threshold: int) -> None:
        """Thresholds of 0 are 1."""
        self._needed = {True: max(1, success_threshold), False: max(1, failure_threshold)}
        self._last = False
        self._count = 0
        self.is_known = False
        self.problem: str | None = None

    def take(self, problem: str | None) -> bool:
        """Take a result; tell whether health has changed."""
        is_good = problem is None
        self._count = self._count + 1 if is_good is self._last else 1
        self._last = is_good
        if self._count < self._needed[is_good]:
            return False
        if self.is_known and is_good is (self.problem is None):
            return False
        self.is_known, self.problem = True, problem
        return True


def prober(probe: ReadinessProbe, own_address: str) -> Probe:
    """Return how a workload at `own_address` is looked at; at most as long as the probe allows."""
    seconds = float(probe.timeout_seconds or 1)
    look = _method(probe, own_address)

    async def bounded() -> str | None:
        try:
            async with asyncio.timeout(seconds):
                return await look()
        except TimeoutError:
            return f"no answer within {seconds:g} s"

    return bounded


def _method(probe: ReadinessProbe, own_address: str) -> Probe:
    if probe.http_get is not None:
        return _http(probe.http_get, own_address)
    if probe.tcp_socket is not None:
        return _tcp(probe.tcp_socket, own_address)
    if probe.grpc is not None:
        return _grpc(probe.grpc, own_address)
    return _exec(probe.exec or ExecProbe(command=("false",)))


def _http(config: HttpProbe, own_address: str) -> Probe:
    scheme = (config.scheme or "HTTP").lower()
    parts = urlsplit(config.path or "/")
    path = parts.path if parts.path.startswith("/") else f"/{parts.path}"
    query = f"?{parts.query}" if parts.query else ""
    url = f"{scheme}://{_place(config.host or own_address, config.port)}{path}{query}"
    headers = {"User-Agent": USER_AGENT} | {each.name: each.value for each in config.http_headers}

    async def look() -> str | None:
        # As a kubelet: the question is whether it answers, not who it is.
        connector = aiohttp.TCPConnector(ssl=False, force_close=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(url, headers=headers, max_redirects=_MAX_REDIRECTS) as answer,
            ):
                is_good = 200 <= answer.status < 400
                return None if is_good else f"status {answer.status}"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            return _told(problem)

    return look


def _tcp(config: TcpProbe, own_address: str) -> Probe:
    async def look() -> str | None:
        try:
            _, writer = await asyncio.open_connection(config.host or own_address, config.port)
        except OSError as problem:
            return _told(problem)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return None

    return look


def _exec(config: ExecProbe) -> Probe:
    async def look() -> str | None:
        try:
            process = await asyncio.create_subprocess_exec(
                *config.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as problem:
            return _told(problem)
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return None if code == 0 else f"exit code {code}"

    return look


def _grpc(config: GrpcProbe, own_address: str) -> Probe:
    request = field(1, config.service.encode()) if config.service else b""

    async def look() -> str | None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", USER_AGENT)]
        channel: Any = grpc.aio.insecure_channel(_place(own_address, config.port), options=options)
        async with channel:
            try:
                answer = await channel.unary_unary(_CHECK)(request)
            except grpc.aio.AioRpcError as problem:
                return f"{problem.code().name}: {(problem.details() or '')[:200]}"
        return None if answer == _SERVING else "it does not serve"

    return look


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _told(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"[:300]
