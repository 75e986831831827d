"""
The composition root: one server, from its settings to its last stream.

Owns the task group that everything runs in. Order matters: ports are bound first, so that a busy
one is said at once; then the config is read and committed; only then are streams answered.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from pilothouse.api.mesh_config import MeshConfig
from pilothouse.certs.service import refuse_all, send_elsewhere
from pilothouse.errors import QueryFailed
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import (
    CLOCK,
    DOMAIN,
    MESH_CONFIG,
    TABLES,
    THE_MESH,
    TLS_POLICY,
    MeshDomain,
)
from pilothouse.model.issued_certificates import Clock
from pilothouse.model.network_gateways import gateway_names
from pilothouse.model.proxies import Proxy
from pilothouse.providers.directory_state import Change
from pilothouse.runtime import memory
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.commit import Change as RowChange
from pilothouse.runtime.commit import CommitCycle
from pilothouse.runtime.connect_rate import connects_per_second
from pilothouse.runtime.debounce import Debouncer
from pilothouse.runtime.dns_client import NameServers
from pilothouse.runtime.findings import FindingsLog
from pilothouse.runtime.identities import Identities, utc_now
from pilothouse.runtime.inspection import ServerInspection
from pilothouse.runtime.metrics import Metrics
from pilothouse.runtime.mode_changes import ModeChanges
from pilothouse.runtime.monitoring import monitoring_app
from pilothouse.runtime.name_lookups import NameLookups
from pilothouse.runtime.observer import ProxyFollower, StreamObserver
from pilothouse.runtime.ports import BoundPorts, CannotListen, why_not
from pilothouse.runtime.pushes_first import PushesFirst
from pilothouse.runtime.registrations import Registrations
from pilothouse.runtime.registrations_file import RegistrationsFile
from pilothouse.runtime.settings import Settings
from pilothouse.runtime.stores import stores_of
from pilothouse.runtime.tidy import Tidier
from pilothouse.translators.envoy import roots
from pilothouse.translators.envoy.secrets import SECRET_FAULTS
from pilothouse.xds.admission import StreamLimits
from pilothouse.xds.auth import inspect_everything
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.server import AddressInUse, DiscoveryServer
from pilothouse.xds.streams import Streams

if TYPE_CHECKING:
    pass

_LOOK_AT_CERTIFICATE_SECONDS = 60.0
_TELL_TIME_SECONDS = 3_600.0
_REPORT_AFTER_SECONDS = 0.05
"""How long a look for findings waits, as it must not take the time of the pushes that go first."""

log = structlog.get_logger()


class ControlPlane:
    """One server. Make it, then `run` it once, on one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Put the parts together; nothing is read or opened yet."""
        self.settings = settings
        self.graph = Graph()
        self.metrics = Metrics()
        self.store = stores_of(settings)
        self.publisher = Publisher(self.graph, roots, time.monotonic)
        self._findings_changed = asyncio.Event()
        self.streams = Streams(
            self.publisher,
            observer=StreamObserver(self.metrics, self._findings_changed.set, self._followers),
            limits=StreamLimits(
                connects_per_second=connects_per_second(settings.max_connects_per_second)
            ),
            clock=time.monotonic,
            prepare=self._prepare,
            on_health=self._reported,
            on_written=self._written,
        )
        self.pushes_first = PushesFirst(self.publisher, self.streams)
        self.cycle = CommitCycle(
            self.graph,
            TABLES,
            self._publish,
            debouncer=Debouncer(settings.quiet, settings.longest_wait),
            observer=self.metrics,
            clock=time.monotonic,
        )
        self.registrations = Registrations(
            offer=self.cycle.offer,
            put=self.cycle.put,
            grace=settings.workload_entry_grace,
            clock=time.monotonic,
            registry=self.metrics.registry,
            knows_callers=settings.secure_grpc_addr is not None,
            memory=RegistrationsFile(
                settings.ca_dir if settings.secure_grpc_addr is not None else None
            ),
            on_change=self._findings_changed.set,
        )
        self._mode_changes = ModeChanges(
            self.streams,
            self.cycle.put,
            directory=settings.ca_dir if settings.secure_grpc_addr is not None else None,
            clock=time.monotonic,
        )
        self._names = NameLookups(self._gateway_names, NameServers().look_up, self.cycle.put)
        self.identities = Identities(
            settings,
            streams=self.streams,
            offer=self.cycle.offer,
            put=self.cycle.put,
            mesh_config=self._mesh_config,
            precedence=self.pushes_first.precedence,
            registry=self.metrics.registry,
            on_finding=self._findings_changed.set,
        )
        self.inspection = ServerInspection(
            graph=self.graph,
            store=self.store,
            cycle=self.cycle,
            publisher=self.publisher,
            streams=self.streams,
            metrics=self.metrics,
            registrations=self.registrations,
            bundles=self.identities.bundles,
            clock_offset_seconds=time.time() - time.monotonic(),
        )
        self._tidy = Tidier(lambda: self.metrics.pushed_bytes)
        self._plaintext = DiscoveryServer(
            self.streams,
            # Nobody is known there, so from other machines nobody sees what others were sent.
            may_inspect=inspect_everything if settings.grpc_addr.is_loopback else None,
            services=(refuse_all() if settings.ca_server else send_elsewhere(),),
        )
        self._first_trust_domain: asyncio.Future[str]
        self._web = web.AppRunner(monitoring_app(self.inspection), access_log=None)

    async def run(self, stop: asyncio.Event, on_ready: Callable[[BoundPorts], None]) -> None:
        """
        Serve until `stop` is set; `on_ready` is called once streams are answered.

        Raises: MeshError: It cannot start; or an ExceptionGroup if a part failed while running.
        """
        try:
            ports = await self._start()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self.cycle.run(), name="commit"),
                    tasks.create_task(self.store.watch(self._changed), name="watch"),
                    tasks.create_task(self._report_findings(), name="findings"),
                    tasks.create_task(self._tidy.run(), name="tidy"),
                    tasks.create_task(self.registrations.run(), name="registrations"),
                    tasks.create_task(self._mode_changes.run(), name="mode changes"),
                    tasks.create_task(self._names.run(), name="names"),
                ]
                running.append(tasks.create_task(self._tell_time(), name="clock"))
                running += [
                    tasks.create_task(part, name=name) for name, part in self.identities.parts()
                ]
                # A proxy that comes back must not be told first that gateways have no address.
                await self._names.settled()
                self.streams.set_ready()
                on_ready(ports)
                log.info("server.ready", config_dir=str(self.settings.config_dir), **_shown(ports))
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            await self._close()

    # -- start and end ----------------------------------------------------------------------------

    async def _start(self) -> BoundPorts:
        """Read the config while the processes of the secure port come up; then commit it."""
        self._first_trust_domain = asyncio.get_running_loop().create_future()
        listening = asyncio.create_task(self._listen(), name="listen")
        started = time.monotonic()
        try:
            with memory.without_collections():
                # In a thread, so that what the other processes say is heard meanwhile.
                changes = self.registrations.take(await asyncio.to_thread(self.store.scan))
                changes += self.registrations.recall()
                self._first_trust_domain.set_result(_trust_domain_in(changes))
                ports = await listening
                await self._commit_first(changes)
        except BaseException:
            # What has begun to listen is closed properly only once it has begun.
            self._first_trust_domain.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            raise
        seconds = time.monotonic() - started
        log.info("config.loaded", objects=len(changes), seconds=round(seconds, 3))
        return ports

    async def _listen(self) -> BoundPorts:
        settings = self.settings
        if settings.skip_validate_trust_domain:
            log.warning(
                "mutual_tls.trust_domains_unchecked",
                option="--skip-validate-trust-domain",
                problem="Callers of every trust domain are let in whose certificate any trusted"
                " root vouches for.",
            )
        await self._web.setup()
        monitoring = await self._listen_http(settings.monitoring_addr)
        grpc = await self._listen_grpc(settings.grpc_addr)
        secure = None
        if settings.secure_grpc_addr is not None:
            secure = await self.identities.listen(
                settings.secure_grpc_addr, self._first_trust_domain
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

    async def _listen_grpc(self, address: Address) -> Address:
        try:
            port = await self._plaintext.start(str(address))
        except AddressInUse as error:
            raise CannotListen("--grpc-addr", address, why_not(address)) from error
        return address.with_port(port)

    async def _commit_first(self, changes: list[RowChange]) -> None:
        changes = self._mode_changes.start(changes)
        own = [
            (DOMAIN.name, THE_MESH, MeshDomain(self.settings.domain)),
            (TLS_POLICY.name, THE_MESH, self.settings.tls_policy),
        ]
        self.cycle.offer([*own, *changes])
        self.cycle.offer([(CLOCK.name, THE_MESH, Clock(utc_now()))])
        await self.cycle.commit_now()

    async def _close(self) -> None:
        self.inspection.is_closing = True
        grace_seconds = self.settings.drain.total_seconds()
        await asyncio.gather(
            self._plaintext.stop(grace_seconds), self.identities.secure_port.stop(grace_seconds)
        )
        await self.identities.close()
        await self._web.cleanup()
        log.info("server.stopped")

    # -- while running ----------------------------------------------------------------------------

    def _changed(self, changes: list[Change]) -> None:
        self.cycle.offer(self._mode_changes.take(self.registrations.take(changes)))
        if self.cycle.is_due:
            self.pushes_first.begin()
        self._findings_changed.set()

    async def _publish(self) -> None:
        await self.pushes_first.publish()
        self._names.wake()
        self._findings_changed.set()

    def _written(self) -> None:
        self.pushes_first.written()

    def _followers(self) -> Iterator[ProxyFollower]:
        yield self.registrations
        yield from self.identities.followers()

    def _reported(self, proxy: Proxy, problem: str | None) -> None:
        self.registrations.reported(proxy, problem)

    async def _prepare(self, proxy: Proxy) -> None:
        await self.registrations.prepare(proxy)
        await self.identities.prepare(proxy)

    async def _tell_time(self) -> None:
        while True:
            await asyncio.sleep(_TELL_TIME_SECONDS)
            self.cycle.offer([(CLOCK.name, THE_MESH, Clock(utc_now()))])

    def _gateway_names(self) -> tuple[str, ...]:
        try:
            return self.graph.value(gateway_names, None)
        except QueryFailed:
            return ()  # it has said so itself, as a finding

    def _mesh_config(self) -> MeshConfig:
        return self.graph.store(MESH_CONFIG).rows.get(THE_MESH) or MeshConfig()

    async def _report_findings(self) -> None:
        known = FindingsLog()
        while True:
            await self._findings_changed.wait()
            await asyncio.sleep(_REPORT_AFTER_SECONDS)
            self._findings_changed.clear()
            counts = known.update(self.inspection.unlocated_findings(), self.inspection.located)
            self.metrics.found(counts)
            self.metrics.secrets_failed(
                sum(finding.code in SECRET_FAULTS for finding in known.appeared)
            )


def _trust_domain_in(changes: Iterable[RowChange]) -> str:
    found = [row for kind, _, row in changes if kind == MESH_CONFIG.name and row is not None]
    return found[-1].trust_domain if found else MeshConfig().trust_domain


def _shown(ports: BoundPorts) -> dict[str, str]:
    return {
        "grpc": str(ports.grpc),
        "secure_grpc": str(ports.secure_grpc or "off"),
        "monitoring": str(ports.monitoring),
    }
