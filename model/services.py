"""
Services: what can be called, whether a Kubernetes Service or a ServiceEntry declared it.

One `Service` per host and declaring object. Who may see it, and which of several wins a host, is
the business of `pilothouse.model.scopes`; where it runs, of `pilothouse.model.endpoints`.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from pilothouse.api import kubernetes_core as kubernetes
from pilothouse.api.meta import ObjectKey
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.inputs import SERVICE_ENTRIES, SERVICES
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.protocols import Protocol, declared_protocol, kubernetes_protocol
from pilothouse.model.provenance import Source

EXPORT_TO_ANNOTATION: Final = "networking.istio.io/exportTo"


class Registry(StrEnum):
    """Which API declared a service."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    KUBERNETES = "Kubernetes"
    EXTERNAL = "External"


class Resolution(Enum):
    """How a service's endpoints are found (traffic.md CL-02, 3.14)."""

    ENDPOINTS = "endpoints"
    DNS = "dns"
    DNS_ROUND_ROBIN = "dns round robin"
    ORIGINAL_DESTINATION = "original destination"
    ALIAS = "alias"
    DYNAMIC_DNS = "dynamic dns"


_RESOLUTIONS: Final = {
    "": Resolution.ORIGINAL_DESTINATION,
    "NONE": Resolution.ORIGINAL_DESTINATION,
    "STATIC": Resolution.ENDPOINTS,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.DYNAMIC_DNS,
}


class ServiceKey(NamedTuple):
    """Key of a service: who declared it, and the host."""

    registry: Registry
    namespace: str
    name: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of a service; `target` is a number, a container port's name, or None for the same."""

    number: int
    name: str
    protocol: Protocol
    target: int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    Something that can be called by host.

    `vips` may hold CIDR ranges for a ServiceEntry; empty means the wildcard address. `selector`
    picks workloads of the namespace (None: endpoints are listed). `alias_of` is an ExternalName's
    target. `export_to` is never empty. `age_order` sorts the oldest first.
    """

    key: ServiceKey
    ports: tuple[Port, ...]
    resolution: Resolution
    vips: tuple[str, ...]
    export_to: tuple[str, ...]
    age_order: tuple[str, str, str]
    source: Source
    selector: tuple[tuple[str, str], ...] | None = None
    is_headless: bool = False
    is_mesh_external: bool = False
    alias_of: str = ""
    publish_not_ready: bool = False

    @property
    def host(self) -> str:
        """The host it is called by."""
        return self.key.host

    @property
    def namespace(self) -> str:
        """The namespace of the declaring object."""
        return self.key.namespace

    @property
    def is_kubernetes(self) -> bool:
        """Whether a Kubernetes Service declared it."""
        return self.key.registry == Registry.KUBERNETES

    def port(self, number: int) -> Port | None:
        """Return the port of that number."""
        return next((port for port in self.ports if port.number == number), None)


@query
def kubernetes_service(ctx: Ctx, key: ObjectKey) -> Service | None:
    """Return a Kubernetes Service as a service (K8-01 to K8-10)."""
    row = ctx.row(SERVICES, key)
    if row is None:
        return None
    spec = row.spec
    is_headless = spec.cluster_ip == "None"
    if spec.type == "ExternalName":
        resolution = Resolution.ALIAS
    elif is_headless:
        resolution = Resolution.ORIGINAL_DESTINATION
    else:
        resolution = Resolution.ENDPOINTS
    vips = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    exported = row.meta.annotations.get(EXPORT_TO_ANNOTATION, "")
    return Service(
        key=ServiceKey(
            Registry.KUBERNETES,
            key.namespace,
            key.name,
            f"{key.name}.{key.namespace}.svc.{ctx.get(domain, None)}",
        ),
        ports=tuple(_kubernetes_port(port) for port in spec.ports),
        resolution=resolution,
        vips=() if is_headless else tuple(ip for ip in vips if ip and ip != "None"),
        export_to=tuple(part.strip() for part in exported.split(",") if part.strip())
        or ctx.get(mesh_config, None).default_service_export_to,
        age_order=row.meta.age_order,
        source=Source.of(row.meta),
        selector=tuple(sorted(spec.selector.items())) or None,
        is_headless=is_headless,
        alias_of=spec.external_name.lower() if resolution is Resolution.ALIAS else "",
        publish_not_ready=bool(spec.publish_not_ready_addresses),
    )


def _kubernetes_port(port: kubernetes.ServicePort) -> Port:
    return Port(
        number=port.port,
        name=port.name,
        protocol=kubernetes_protocol(port.name, port.protocol, port.app_protocol, port.port),
        target=port.target_port,
    )


@query
def entry_services(ctx: Ctx, key: ObjectKey) -> tuple[Service, ...]:
    """Return the services a ServiceEntry declares, one per host (SE-01 to SE-10)."""
    row = ctx.row(SERVICE_ENTRIES, key)
    if row is None:
        return ()
    spec = row.spec
    resolution = _RESOLUTIONS[spec.resolution]
    if resolution is Resolution.DYNAMIC_DNS:
        ctx.report(
            Finding(
                Severity.WARNING,
                "FieldNotTranslated",
                row.meta.ref("spec.resolution"),
                "DYNAMIC_DNS is not translated by this version; the entry's hosts are not served.",
                "Use resolution NONE, STATIC or DNS.",
            )
        )
        return ()
    selector = spec.workload_selector
    return tuple(
        Service(
            key=ServiceKey(Registry.EXTERNAL, key.namespace, key.name, host.lower()),
            ports=_entry_ports(row),
            resolution=resolution,
            vips=spec.addresses,
            export_to=spec.export_to or ctx.get(mesh_config, None).default_service_export_to,
            age_order=row.meta.age_order,
            source=Source.of(row.meta),
            selector=tuple(sorted(selector.labels.items())) if selector else None,
            is_mesh_external=spec.location != "MESH_INTERNAL",
        )
        for host in dict.fromkeys(spec.hosts)
    )


def _entry_ports(row: ServiceEntry) -> tuple[Port, ...]:
    return tuple(
        Port(
            number=port.number,
            name=port.name,
            protocol=declared_protocol(port.protocol),
            target=port.target_port or None,
        )
        for port in row.spec.ports
    )


@query
def service(ctx: Ctx, key: ServiceKey) -> Service | None:
    """Return one service."""
    owner = ObjectKey(key.namespace, key.name)
    if key.registry == Registry.KUBERNETES:
        return ctx.get(kubernetes_service, owner)
    return next((s for s in ctx.get(entry_services, owner) if s.key == key), None)


@query
def catalog(ctx: Ctx, _key: None) -> tuple[Service, ...]:
    """Return every service, the oldest first (traffic.md 3.1)."""
    found: list[Service] = []
    for key in ctx.keys(SERVICES):
        kube = ctx.get_or_none(kubernetes_service, key)
        if kube is not None:
            found.append(kube)
    for key in ctx.keys(SERVICE_ENTRIES):
        found.extend(ctx.get_or_none(entry_services, key) or ())
    return tuple(sorted(found, key=lambda s: (s.age_order, s.key)))
