"""
The composition root: one server, from its settings to its last stream.

Owns the task group that everything runs in. Order matters: ports are bound first, so that a busy
one is said at once; then the config is read and committed; only then are streams answered.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from aiohttp import web

from pilothouse.certs.authority import Authority
from pilothouse.certs.server_tls import ServerTls
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import DOMAIN, TABLES, THE_MESH, MeshDomain
from pilothouse.providers.directory_state import Change
from pilothouse.providers.files import FileStore
from pilothouse.runtime import memory
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.authorization import only_itself
from pilothouse.runtime.commit import CommitCycle
from pilothouse.runtime.debounce import Debouncer
from pilothouse.runtime.findings import FindingsLog
from pilothouse.runtime.inspection import ServerInspection
from pilothouse.runtime.metrics import Metrics
from pilothouse.runtime.monitoring import monitoring_app
from pilothouse.runtime.observer import StreamObserver
from pilothouse.runtime.ports import BoundPorts, CannotListen, why_not
from pilothouse.runtime.settings import Settings
from pilothouse.runtime.tidy import Tidier
from pilothouse.translators.envoy import roots
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.server import AddressInUse, DiscoveryServer
from pilothouse.xds.streams import Streams

SERVER_NAMES = ("istiod.istio-system.svc", "istiod.istio-system", "localhost", "127.0.0.1", "::1")
"""What the TLS port answers for; agents verify the first, whatever address they dial."""

_REPORT_AFTER_SECONDS = 0.05
"""How long a look for findings waits, as it must not take the time of the pushes that go first."""

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ControlPlane:
    """One server. Make it, then `run` it once, on one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Put the parts together; nothing is read or opened yet."""
        self.settings = settings
        self.graph = Graph()
        self.metrics = Metrics()
        self.store = FileStore(settings.config_dir, mesh_config=settings.mesh_config)
        self.publisher = Publisher(self.graph, roots, time.monotonic)
        self._findings_changed = asyncio.Event()
        self.streams = Streams(
            self.publisher,
            observer=StreamObserver(self.metrics, self._findings_changed.set),
            clock=time.monotonic,
        )
        self.cycle = CommitCycle(
            self.graph,
            TABLES,
            self._publish,
            debouncer=Debouncer(settings.quiet, settings.longest_wait),
            observer=self.metrics,
            clock=time.monotonic,
        )
        self.inspection = ServerInspection(
            graph=self.graph,
            store=self.store,
            cycle=self.cycle,
            publisher=self.publisher,
            streams=self.streams,
            metrics=self.metrics,
            clock_offset_seconds=time.time() - time.monotonic(),
        )
        self._tidy = Tidier(lambda: self.metrics.pushed_bytes)
        self._plaintext = DiscoveryServer(self.streams)
        self._secure = DiscoveryServer(self.streams, authorize=only_itself)
        self._web = web.AppRunner(monitoring_app(self.inspection), access_log=None)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[BoundPorts], None]) -> None:
        """
        Serve until `stop` is set; `on_ready` is called once streams are answered.

        Raises: MeshError: It cannot start; or an ExceptionGroup if a part failed while running.
        """
        try:
            ports = await self._listen()
            await self._load()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self.cycle.run(), name="commit"),
                    tasks.create_task(self.store.watch(self._changed), name="watch"),
                    tasks.create_task(self._report_findings(), name="findings"),
                    tasks.create_task(self._tidy.run(), name="tidy"),
                ]
                self.streams.set_ready()
                on_ready(ports)
                log.info("server.ready", config_dir=str(self.settings.config_dir), **_shown(ports))
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            await self._close()

    # -- start and end ----------------------------------------------------------------------------

    async def _listen(self) -> BoundPorts:
        settings = self.settings
        await self._web.setup()
        monitoring = await self._listen_http(settings.monitoring_addr)
        grpc = await self._listen_grpc(self._plaintext, settings.grpc_addr, "--grpc-addr")
        secure = None
        if settings.secure_grpc_addr is not None:
            secure = await self._listen_grpc(
                self._secure, settings.secure_grpc_addr, "--secure-grpc-addr", self._tls()
            )
        if not grpc.is_loopback:
            log.warning(
                "server.plaintext_reachable_from_other_machines",
                address=str(grpc),
                remedy="Anybody there can read the mesh's config. Use it on trusted networks only.",
            )
        return BoundPorts(grpc=grpc, secure_grpc=secure, monitoring=monitoring)

    async def _listen_http(self, address: Address) -> Address:
        site = web.TCPSite(self._web, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen("--monitoring-addr", address, why_not(address)) from error
        return address.with_port(self._web.addresses[0][1])

    @staticmethod
    async def _listen_grpc(
        server: DiscoveryServer, address: Address, option: str, tls: ServerTls | None = None
    ) -> Address:
        try:
            port = await server.start(str(address), tls.credentials() if tls else None)
        except AddressInUse as error:
            raise CannotListen(option, address, why_not(address)) from error
        return address.with_port(port)

    def _tls(self) -> ServerTls:
        # The trust domain may change with the mesh config; the root's own name is for people.
        trust_domain, now = "cluster.local", _utc_now()
        if self.settings.ca_dir is None:
            log.info(
                "certs.root_in_memory",
                remedy="No client can hold a certificate of it; give --ca-dir to keep a root.",
            )
            authority = Authority.create(trust_domain, now)
        else:
            authority = Authority.open(self.settings.ca_dir, trust_domain, now)
        return ServerTls(authority, SERVER_NAMES, _utc_now)

    async def _load(self) -> None:
        started = time.monotonic()
        with memory.without_collections():
            changes = self.store.scan()
            self.cycle.offer([(DOMAIN.name, THE_MESH, MeshDomain(self.settings.domain)), *changes])
            await self.cycle.commit_now()
        seconds = time.monotonic() - started
        log.info("config.loaded", objects=len(changes), seconds=round(seconds, 3))

    async def _close(self) -> None:
        self.inspection.is_closing = True
        grace_seconds = self.settings.drain.total_seconds()
        await asyncio.gather(self._plaintext.stop(grace_seconds), self._secure.stop(grace_seconds))
        await self._web.cleanup()
        log.info("server.stopped")

    # -- while running ----------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        self.cycle.offer(changes)
        self._findings_changed.set()

    async def _publish(self) -> None:
        await self.publisher.publish()
        self._findings_changed.set()

    async def _report_findings(self) -> None:
        known = FindingsLog()
        while True:
            await self._findings_changed.wait()
            await asyncio.sleep(_REPORT_AFTER_SECONDS)
            self._findings_changed.clear()
            counts = known.update(self.inspection.unlocated_findings(), self.inspection.located)
            self.metrics.found(counts)


def _shown(ports: BoundPorts) -> dict[str, str]:
    return {
        "grpc": str(ports.grpc),
        "secure_grpc": str(ports.secure_grpc or "off"),
        "monitoring": str(ports.monitoring),
    }
