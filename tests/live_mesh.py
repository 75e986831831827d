"""
A small mesh as in a cluster: network namespaces, a real Envoy in each, traffic intercepted.

The control plane and the workloads' programs run in this process (their sockets live in the
namespaces), so a test can look at what a program saw. Needs root; see `isolation.why_not`.
"""

import asyncio
import json
import shutil
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from mesh import Mesh

from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.demo.interception import PROXY_UID
from pilothouse.demo.netns import NetworkNamespace, NetworkNamespaces
from pilothouse.translators.envoy.bootstrap import PipeAddress, Workload, bootstrap

HTTP_PORT: Final = 8080
TCP_PORT: Final = 9000
OTHER_TCP_PORT: Final = 9001
TLS_PORT: Final = 8443
PROBE_PATH: Final = "/probe"
"""Requests for it are answered and not noted."""
PATIENCE_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Seen:
    """A request as a program saw it."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """A response, and which program answered with what it had seen (empty: none of ours)."""

    status: int
    headers: Mapping[str, str]
    by: str = ""
    path: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Program:
    """
    What a workload runs: HTTP on 8080, TCP on 9000 and 9001, TLS on 8443, each saying its name.

    HTTP is answered 503 while `is_broken`. Paths: ``/slow/SECONDS`` waits, ``/flaky/KEY/COUNT``
    fails COUNT times with 503, anything else is answered 200 with what was seen.
    """

    def __init__(self, name: str, tls: ssl.SSLContext) -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.is_broken = False
        self._tls = tls
        self._failures: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, namespace: NetworkNamespace) -> None:
        """Listen on the namespace's own address."""
        await self._runner.setup()
        await web.SockSite(self._runner, _listening(namespace, HTTP_PORT)).start()
        for port, tls in ((TCP_PORT, None), (OTHER_TCP_PORT, None), (TLS_PORT, self._tls)):
            made = await asyncio.start_server(
                self._say_name, sock=_listening(namespace, port), ssl=tls
            )
            self._servers.append(made)

    async def stop(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path_qs
        headers = {name.lower(): value for name, value in request.headers.items()}
        if path != PROBE_PATH:
            self.seen.append(Seen(request.method, path, headers))
        status = 503 if self.is_broken and path != PROBE_PATH else 200
        parts = request.path.split("/")
        if parts[1] == "slow":
            await asyncio.sleep(float(parts[2]))
        if parts[1] == "flaky":
            failed = self._failures.get(parts[2], 0)
            if failed < int(parts[3]):
                self._failures[parts[2]] = failed + 1
                status = 503
        return web.json_response({"by": self.name, "path": path, "seen": headers}, status=status)

    async def _say_name(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readline()
            writer.write(f"{self.name}\n".encode())
            await writer.drain()
            writer.close()


class LiveWorkload:
    """A program, its Envoy, and the namespace they share."""

    def __init__(self, namespace: NetworkNamespace, program: Program, envoy: EnvoyProcess) -> None:
        self.namespace = namespace
        self.program = program
        self.envoy = envoy
        self._session = aiohttp.ClientSession(
            connector=namespace.connector(), timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        )

    async def close(self) -> None:
        """Stop all three but the namespace."""
        await self._session.close()
        await self.envoy.stop()
        await self.program.stop()

    async def request(
        self, url: str, *, method: str = "GET", host: str = "", headers: Any = None
    ) -> Reply:
        """Send a request as the workload's program would; redirects are not followed."""
        sent = {**(headers or {}), **({"host": host} if host else {})}
        began = asyncio.get_running_loop().time()
        async with self._session.request(
            method, url, headers=sent, allow_redirects=False
        ) as answer:
            text = await answer.text()
        seconds = asyncio.get_running_loop().time() - began
        found: dict[str, Any] = {}
        with suppress(ValueError):
            found = json.loads(text)
        return Reply(answer.status, answer.headers, seconds=seconds, **found)

    async def who_answers(self, address: str, port: int, sni: str | None = None) -> str:
        """Open a connection, with TLS if `sni` is given; return who says its name, or nothing."""
        made = self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await loop.sock_connect(made, (address, port))
                tls = _trusting() if sni else None
                reader, writer = await asyncio.open_connection(
                    sock=made, ssl=tls, server_hostname=sni
                )
                writer.write(b"\x01who\n")  # no HTTP method begins like this
                line = await reader.readline()
                writer.close()
                return line.decode().strip()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            made.close()
            return ""


class LiveMesh:
    """
    Workloads by name, and the control plane; use as an async context manager.

    `probe` is a request (workload, URL, host) that passes the sidecar under test, see `settled`.
    """

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.workloads: dict[str, LiveWorkload] = {}
        self.probe = ("", "", "")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # Envoy runs as another user, who must reach the folder, and its path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="pilothouse-test-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o711)
        try:
            self._namespaces = NetworkNamespaces()
            await asyncio.to_thread(self._namespaces.create)
            self._stack.push_async_callback(asyncio.to_thread, self._namespaces.close)
            self.control = await self._stack.enter_async_context(Mesh(f"unix:{self.folder}/xds"))
            (self.folder / "xds").chmod(0o777)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def add(
        self,
        name: str,
        address: str,
        labels: Mapping[str, str],
        tls: ssl.SSLContext,
        metadata: Mapping[str, Any] | None = None,
        clusters: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Start a workload and wait until its Envoy, with more `clusters`, is ready."""
        namespace = await asyncio.to_thread(self._namespaces.add, name, address)
        await asyncio.to_thread(namespace.intercept)
        program = Program(name, tls)
        await program.start(namespace)
        config = bootstrap(
            Workload(
                name=name,
                namespace="default",
                addresses=(address,),
                labels=labels,
                metadata=metadata or {},
            ),
            control_plane=PipeAddress(path=f"{self.folder}/xds"),
            admin=PipeAddress(path=f"{self.folder}/{name}/admin"),
            delta=self.delta,
            stats_kept=({"prefix": "cluster.outbound"},),
        )
        known = config["static_resources"]
        assert isinstance(known, dict)
        known["clusters"] = [*known["clusters"], *clusters]
        envoy = EnvoyProcess(
            config, self.folder / name, name=name, netns=namespace.path, uid=PROXY_UID
        )
        self.workloads[name] = workload = LiveWorkload(namespace, program, envoy)
        self._stack.push_async_callback(workload.close)
        await envoy.start()
        await envoy.wait_ready()

    @property
    def hub(self) -> NetworkNamespace:
        """Where connections begin that pass no sidecar of their own."""
        return self._namespaces.hub

    async def apply(self, text: str, file: str = "test.yaml") -> None:
        """Replace a file of the config and wait until every Envoy has taken it over."""
        await self.control.apply(text, file)
        await self.settled()

    async def settled(self) -> None:
        """Wait until no Envoy has anything outstanding; none may have refused anything."""
        await eventually(self._is_settled)
        assert self.control.rejected() == []
        # Envoy acknowledges before its worker thread has been told; a round trip through the
        # worker comes after that.
        workload, url, host = self.probe
        if workload:
            await self.workloads[workload].request(url + PROBE_PATH, host=host)

    async def _is_settled(self) -> bool:
        streams = list(self.control.streams.status())
        states = {each.state for stream in streams for each in stream.types}
        return len(streams) == len(self.workloads) and states <= {"SYNCED", "ERROR"}


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until something holds; Envoy has no event to wait for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 (nothing to wait on)
            await asyncio.sleep(0.02)


def _listening(namespace: NetworkNamespace, port: int) -> socket.socket:
    made = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((namespace.address, port))
    made.listen(128)
    return made


def _trusting() -> ssl.SSLContext:
    # The test asks who answers, not whether to believe it.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
