"""
Sidecar: what a workload's proxy sees and opens.

Types of networking.istio.io; rules across fields are in `sidecar_check`.
"""

from typing import Literal

from pilothouse.api.destination_rule import ConnectionPool
from pilothouse.api.gateway import ServerTls
from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct, WorkloadLabels
from pilothouse.api.virtual_service import Destination

CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


class SidecarPort(ApiStruct, frozen=True):
    """A listening port of the proxy."""

    number: int = 0
    protocol: str = ""
    name: str = ""
    target_port: int = 0


class IngressTls(ServerTls, frozen=True):
    """ServerTLSSettings of a sidecar, of which fewer fields hold than of a gateway (SC-09)."""


class IngressListener(ApiStruct, frozen=True):
    """IstioIngressListener: a port opened towards the workload."""

    port: SidecarPort
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    tls: IngressTls | None = None
    connection_pool: ConnectionPool | None = None


class EgressListener(ApiStruct, frozen=True):
    """IstioEgressListener: hosts (``namespace/host``) seen, on one port or all."""

    hosts: tuple[str, ...]
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"


class OutboundTrafficPolicy(ApiStruct, frozen=True):
    """What happens to destinations nobody declared; here absence means REGISTRY_ONLY."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class SidecarSpec(ApiStruct, frozen=True):
    """Whose proxies, and what they open and see."""

    workload_selector: WorkloadLabels | None = None
    ingress: tuple[IngressListener, ...] = ()
    egress: tuple[EgressListener, ...] = ()
    inbound_connection_pool: ConnectionPool | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(ApiStruct, frozen=True):
    """A Sidecar object."""

    meta: ObjectMeta
    spec: SidecarSpec = SidecarSpec()
