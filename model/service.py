"""
A service: something that can be called by host, and its parts as values.

Plain values. Where services come from is the business of `pilothouse.model.services`.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

from pilothouse.api.sessions import Session
from pilothouse.model.distribution import Distribution
from pilothouse.model.protocols import Protocol
from pilothouse.model.provenance import ServiceName, Source


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

    @property
    def is_dns(self) -> bool:
        """Whether the proxy looks up the endpoints' names."""
        return self in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)


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


class Placement(NamedTuple):
    """A cluster that has a service (empty: our own), and the service's addresses there."""

    cluster: str
    vips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    Something that can be called by host.

    `vips` may hold CIDR ranges for a ServiceEntry; empty means the wildcard address. `selector`
    picks workloads of the namespace (None: endpoints are listed). `alias_of` is an ExternalName's
    target. `export_to` is never empty. `age_order` sorts the oldest first. `labels` (sorted) are
    the declaring ServiceEntry's.
    `is_node_local` keeps clients to endpoints on their own node (K8-06). `placements` are the
    clusters that have the service, the one whose words count first; empty is our own alone.
    `session` is how requests name the workload they stick to, if they do (K8-11).
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
    labels: tuple[tuple[str, str], ...] = ()
    is_node_local: bool = False
    distribution: Distribution = Distribution.ANY
    placements: tuple[Placement, ...] = ()
    session: Session | None = None

    @property
    def host(self) -> str:
        """The host it is called by."""
        return self.key.host

    @property
    def namespace(self) -> str:
        """The namespace of the declaring object."""
        return self.key.namespace

    @property
    def called(self) -> ServiceName:
        """What statistics call it: a ServiceEntry's name is not among it, its host is."""
        name = self.key.name if self.is_kubernetes else self.host
        return ServiceName(self.host, name, self.namespace)

    @property
    def is_kubernetes(self) -> bool:
        """Whether a Kubernetes Service declared it."""
        return self.key.registry == Registry.KUBERNETES

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that have it, the one whose words count first."""
        return tuple(each.cluster for each in self.placements) or ("",)

    def vips_in(self, cluster: str) -> tuple[str, ...]:
        """Return its addresses for clients of a cluster: those there, else the first cluster's."""
        own = next((each.vips for each in self.placements if each.cluster == cluster), ())
        return own or self.vips

    def port(self, number: int) -> Port | None:
        """Return the port of that number."""
        return next((port for port in self.ports if port.number == number), None)

    def port_named(self, name: str) -> Port | None:
        """Return the port of that name."""
        return next((port for port in self.ports if port.name == name), None)
