"""
What stands behind a cluster: its endpoints by priority, with health, weight and locality.

Nothing is balanced here; the data says who may get a request. Source: envoyproxy/envoy, docs of
config.cluster.v3.Cluster and config.endpoint.v3.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.core.v3.address_pb2 import Address
from pilothouse._pb.envoy.config.core.v3.health_check_pb2 import HealthStatus
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_components_pb2 import (
    LbEndpoint,
    LocalityLbEndpoints,
)
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse.graph.findings import ConfigRef
from pilothouse.simulator.provenance import made_by
from pilothouse.simulator.request import Request
from pilothouse.simulator.served import ServedConfig


class Health(StrEnum):
    """Whether an endpoint gets requests: yes, if no healthy one is there, or no."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint; `address` is ``ip:port``, a DNS name with port, or a path."""

    address: str
    health: Health
    weight: int
    priority: int
    locality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """
    What a cluster reaches.

    `is_known` says that the proxy has the cluster. `kind` is Envoy's discovery type. `endpoints`
    are in order of priority; of a cluster of kind ORIGINAL_DST it is the request's own address.
    """

    cluster: str
    is_known: bool
    kind: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    made_by: tuple[ConfigRef, ...] = ()

    @property
    def is_reachable(self) -> bool:
        """Tell whether there is any endpoint (Envoy tries unhealthy ones before none)."""
        return bool(self.endpoints)

    @property
    def preferred(self) -> tuple[Endpoint, ...]:
        """The healthy endpoints of the first priority that has one; empty if none has."""
        healthy = [each for each in self.endpoints if each.health is Health.HEALTHY]
        first = min((each.priority for each in healthy), default=0)
        return tuple(each for each in healthy if each.priority == first)


_HEALTH: Final = {
    HealthStatus.UNKNOWN: Health.HEALTHY,
    HealthStatus.HEALTHY: Health.HEALTHY,
    HealthStatus.DEGRADED: Health.DEGRADED,
}
_DEFAULT_WEIGHT: Final = 1
_HTTP_PORT: Final = 80
_TLS_PORT: Final = 443
FORWARD_PROXY: Final = "envoy.clusters.dynamic_forward_proxy"
"""The type of clusters that connect to whatever host is asked for; rewrites are left out here."""


def reach(served: ServedConfig, name: str, request: Request) -> Reach:
    """Return what a cluster reaches for a request."""
    cluster = served.clusters.get(name)
    if cluster is None:
        return Reach(cluster=name, is_known=False)
    if cluster.WhichOneof("cluster_discovery_type") == "cluster_type":
        kind = cluster.cluster_type.name
    else:
        kind = Cluster.DiscoveryType.Name(cluster.type)
    return Reach(
        cluster=name,
        is_known=True,
        kind=kind,
        endpoints=_endpoints(served, cluster, kind, request),
        made_by=made_by(cluster.metadata),
    )


def _endpoints(
    served: ServedConfig, cluster: Cluster, kind: str, request: Request
) -> tuple[Endpoint, ...]:
    if kind == "ORIGINAL_DST":
        override = cluster.original_dst_lb_config.upstream_port_override
        port = override.value or request.port
        address = f"[{request.address}]" if ":" in request.address else request.address
        return (_only(f"{address}:{port}"),)
    if kind == FORWARD_PROXY:
        named = _named(cluster, request)
        return (_only(named),) if named else ()
    assignment: ClusterLoadAssignment | None = cluster.load_assignment
    if kind == "EDS":
        name = cluster.eds_cluster_config.service_name or cluster.name
        assignment = served.assignments.get(name)
    if assignment is None:
        return ()
    found = [
        _endpoint(group, each)
        for group in assignment.endpoints
        for each in group.lb_endpoints
        if each.HasField("endpoint")
    ]
    return tuple(sorted(found, key=lambda each: each.priority))


def _only(address: str) -> Endpoint:
    return Endpoint(
        address=address, health=Health.HEALTHY, weight=_DEFAULT_WEIGHT, priority=0, locality=""
    )


def _named(cluster: Cluster, request: Request) -> str:
    """Return what a forward proxy looks up: the host of a request, else the SNI; empty is none."""
    if not request.protocol.is_http or request.tls is not None:
        name = request.tls.server_name if request.tls else ""
        return f"{name}:{request.port}" if name else ""
    _, colon, port = request.host.rpartition(":")
    if colon and port.isdigit():
        return request.host
    default = _TLS_PORT if cluster.HasField("transport_socket") else _HTTP_PORT
    return f"{request.host}:{default}" if request.host else ""


def _endpoint(group: LocalityLbEndpoints, each: LbEndpoint) -> Endpoint:
    place = (group.locality.region, group.locality.zone, group.locality.sub_zone)
    return Endpoint(
        address=_shown(each.endpoint.address),
        health=_HEALTH.get(each.health_status, Health.UNHEALTHY),
        weight=each.load_balancing_weight.value or _DEFAULT_WEIGHT,
        priority=group.priority,
        locality="/".join(place).rstrip("/"),
    )


def _shown(address: Address) -> str:
    if address.HasField("pipe"):
        return address.pipe.path
    host = address.socket_address.address
    return f"{f'[{host}]' if ':' in host else host}:{address.socket_address.port_value}"
