"""
The half of the server that knows who is who: the secure port, its callers, and who signs for them.

The composition root makes one, has it listen, and runs its parts. What proxies discover is none of
its business; it puts what they need to know of certificates and roots among the rows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import CollectorRegistry

from pilothouse.api.mesh_config import MeshConfig
from pilothouse.certs.client_certificates import ClientCertificates
from pilothouse.certs.front.control import Material
from pilothouse.certs.front.supervisor import FrontFailed
from pilothouse.certs.oidc_issuers import read_issuers
from pilothouse.certs.precedence import Precedence
from pilothouse.certs.refusals import Refusal
from pilothouse.model.proxies import Proxy
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.authority import AuthoritySettings, MeshAuthority
from pilothouse.runtime.bundle_fetches import BundleFetches
from pilothouse.runtime.caller_log import CallerLog
from pilothouse.runtime.commit import Change
from pilothouse.runtime.known_callers import KnownCallers
from pilothouse.runtime.observer import ProxyFollower
from pilothouse.runtime.outside_authority import OutsideAuthority
from pilothouse.runtime.port_files import port_files
from pilothouse.runtime.secure_port import SecurePort
from pilothouse.runtime.server_names import server_names
from pilothouse.runtime.settings import Settings
from pilothouse.runtime.workload_certificates import WorkloadCertificates
from pilothouse.xds.streams import Streams

if TYPE_CHECKING:
    import grpc

_LOOK_AT_CERTIFICATE_SECONDS = 60.0

log = structlog.get_logger()


def utc_now() -> datetime:
    """Return the time by which certificates are judged."""
    return datetime.now(UTC)


class Identities:
    """
    Who may join, and with which certificates.

    `authority` signs; `outside` is there instead of it where somebody else does. Both are None
    until `listen`, and so is `workload_certificates`: those that proxies without an agent have.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        streams: Streams,
        offer: Callable[[Iterable[Change]], None],
        put: Callable[[Iterable[Change]], Awaitable[None]],
        mesh_config: Callable[[], MeshConfig],
        precedence: Precedence,
        registry: CollectorRegistry,
        on_finding: Callable[[], None],
    ) -> None:
        """Serve `streams`; rows are handed on by `offer` and `put`, the latter until published."""
        self._settings = settings
        self._streams = streams
        self._offer = offer
        self._put = put
        self._mesh_config = mesh_config
        self._precedence = precedence
        self._registry = registry
        self.authority: MeshAuthority | None = None
        self.outside: OutsideAuthority | None = None
        self.workload_certificates: WorkloadCertificates | None = None
        self.bundles = BundleFetches(
            lambda: mesh_config().ca_certificates,
            put,
            directory=settings.ca_dir,
            on_change=on_finding,
        )
        self.caller_log = CallerLog(registry, time.monotonic)
        self.known_callers = KnownCallers(
            ca_dir=settings.ca_dir,
            oidc_issuers=read_issuers(settings.oidc_issuers) if settings.oidc_issuers else (),
            trust_domains=self._trust_domains,
            caller_log=self.caller_log,
            wall_clock=utc_now,
            clock=time.monotonic,
        )
        self.secure_port = SecurePort(
            streams,
            callers=self.known_callers.chain,
            recognise=ClientCertificates(self._trust_domains).read,
            root_namespace=lambda: mesh_config().root_namespace,
            caller_log=self.caller_log,
            clock=time.monotonic,
            tls=settings.port_tls,
            precedence=precedence,
        )

    async def listen(self, address: Address, trust_domain: Awaitable[str]) -> Address:
        """
        Open the secure port and return where it is; a new root is called after `trust_domain`.

        Raises: MeshError: The port is taken, or what it serves with cannot be had.
        """
        service = await self._start_authority(trust_domain)
        return await self.secure_port.listen(address, await self._material(), (service,))

    def parts(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what runs as long as the server does, with names; nothing without the port."""
        authority = self.authority or self.outside
        if authority is None:
            return
        yield "secure port", self.secure_port.run()
        yield "certificate", self._renew_certificate()
        yield "revocations", self.known_callers.end_revoked(self._streams)
        yield "authority", authority.run()
        yield "root bundles", self.bundles.run()
        if self.workload_certificates is not None:
            yield "certificates", self.workload_certificates.run()

    def followers(self) -> Iterator[ProxyFollower]:
        """Yield who is told of proxies that come and go, and of what they accept."""
        if self.authority is not None:
            yield self.authority.follower
        if self.workload_certificates is not None:
            yield self.workload_certificates

    async def prepare(self, proxy: Proxy) -> None:
        """Have what a proxy asks for ready before its first request is answered."""
        if self.workload_certificates is not None:
            await self.workload_certificates.prepare(proxy)

    async def update_port(self) -> None:
        """Have the secure port show what is valid now. Raises: Refusal, FrontFailed."""
        await self.secure_port.update(await self._material())

    async def close(self) -> None:
        """Let go of keys and directories, once the ports are closed."""
        if self.authority is not None:
            await self.authority.close()
        if self.outside is not None:
            self.outside.close()

    async def _start_authority(
        self, trust_domain: Awaitable[str]
    ) -> "grpc.GenericRpcHandler[Any, Any]":
        """Start what tells the roots, and issues if it is to; return its service."""
        settings = self._settings
        if not settings.ca_server and settings.ca_cert_file is not None:
            self.outside = outside = OutsideAuthority(
                settings.ca_cert_file, directory=settings.ca_dir, put=self._put, clock=utc_now
            )
            outside.start()
            outside.on_change = self.update_port
            self._offer([*outside.rows(), *self.bundles.rows()])
            return outside.service()
        self.authority = authority = MeshAuthority(
            AuthoritySettings(
                directory=settings.ca_dir,
                plugged_in=settings.ca_certs_dir,
                default_ttl=settings.workload_cert_ttl,
                longest_ttl=settings.max_workload_cert_ttl,
                algorithm=settings.ca_key_algorithm,
                settle=settings.ca_rotation_settle,
            ),
            streams=self._streams,
            put=self._put,
            registry=self._registry,
            clock=utc_now,
            names=server_names(settings.revision, settings.server_names),
            trust_domains=self._trust_domains,
            precedence=self._precedence,
        )
        # Only a new root waits for the config: it is called after the mesh's trust domain.
        await authority.start(lambda: trust_domain)
        self.workload_certificates = WorkloadCertificates(
            authority.issuer, self._put, clock=utc_now, registry=self._registry
        )
        authority.reissue = self.workload_certificates.reissue
        authority.on_change = self.update_port
        self._offer([*authority.rows(), *self.bundles.rows()])
        find_caller = self.secure_port.find_caller
        return authority.service(find_caller, find_caller.arrived)

    async def _material(self) -> Material:
        """Return what the secure port serves with. Raises: Refusal, FrontFailed."""
        authority, files = self.authority or self.outside, port_files(self._settings)
        if authority is None:
            raise FrontFailed("no authority has been started")
        material = await authority.port_material()
        return files.over(material) if files is not None else material

    async def _renew_certificate(self) -> None:
        # The server's own certificate lives no longer than those of workloads.
        lifetime_seconds = self._settings.workload_cert_ttl.total_seconds()
        while True:
            await asyncio.sleep(min(_LOOK_AT_CERTIFICATE_SECONDS, lifetime_seconds / 8))
            try:
                await self.update_port()
            except (FrontFailed, Refusal) as failure:
                log.warning("secure_port.certificate_not_renewed", reason=str(failure))

    def _trust_domains(self) -> tuple[str, ...]:
        config = self._mesh_config()
        return (config.trust_domain, *config.trust_domain_aliases)
