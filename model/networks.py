"""
Networks: which one an address is in, and the gateways through which the others are reached.

A mesh of one network has no gateways, and then nothing here costs anything. Rows MN-01 to MN-06 of
traffic.md; what a client is told of endpoints elsewhere is 3.12.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from pilothouse.api.kubernetes_core import Service
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.api.meta import ObjectKey
from pilothouse.api.names import is_address
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.inputs import MESH_NETWORKS, SERVICES, THE_MESH
from pilothouse.model.mesh import domain
from pilothouse.model.proxies import Locality
from pilothouse.model.topology import default_network
from pilothouse.model.topology_labels import CLUSTER_LABEL, LOCAL_CLUSTER, NETWORK_LABEL

GATEWAY_PORT_LABEL: Final = "networking.istio.io/gatewayPort"
DEFAULT_GATEWAY_PORT: Final = 15443
_MOST: Final = 2**32 - 1
"""The largest weight Envoy knows."""


class NetworkGateway(NamedTuple):
    """A way into a network; `cluster` is empty unless a Service of a cluster is the gateway."""

    network: str
    address: str
    port: int
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class NetworkGateways:
    """
    All gateways, by network, address and port.

    Weights are multiplied by `scale`, so that each divides among the gateways of any network.
    """

    every: tuple[NetworkGateway, ...]
    scale: int

    def __bool__(self) -> bool:
        """Tell whether the mesh has more than one network as far as clients are concerned."""
        return bool(self.every)

    def into(self, network: str, cluster: str) -> tuple[NetworkGateway, ...]:
        """Return the gateways of a network, those of the cluster alone if it has any."""
        found = tuple(each for each in self.every if each.network == network)
        own = tuple(each for each in found if each.cluster == cluster)
        return own or found


class Reach(NamedTuple):
    """
    What a client can make use of.

    `crosses` tells that it has the certificates that gateways ask for. `networks` are the only ones
    it wants to know of besides the unnamed; empty is all (NM-04).
    """

    network: str
    ipv4: bool
    ipv6: bool
    crosses: bool
    networks: tuple[str, ...] = ()

    def knows(self, endpoint: Endpoint) -> bool:
        """Tell whether the client wants to know of the endpoint at all."""
        return not (self.networks and endpoint.network) or endpoint.network in self.networks

    def connects_to(self, gateway: NetworkGateway) -> bool:
        """Tell whether the client has an address of the gateway's family."""
        return self.ipv6 if ":" in gateway.address else self.ipv4


@query
def mesh_networks(ctx: Ctx, _key: None) -> MeshNetworks:
    """Return the networks the mesh was told of."""
    return ctx.row(MESH_NETWORKS, THE_MESH) or MeshNetworks()


@query
def registry_network(ctx: Ctx, _key: None) -> str:
    """Return the network that everything of our own cluster is in, empty if none is named."""
    for name, network in ctx.get(mesh_networks, None).networks.items():
        if any(each.from_registry == LOCAL_CLUSTER for each in network.endpoints):
            return name
    return ""


@query
def network_ranges(ctx: Ctx, _key: None) -> tuple[tuple[str, str], ...]:
    """Return (range, network), the narrowest range first."""
    found = [
        (each.from_cidr, name)
        for name, network in ctx.get(mesh_networks, None).networks.items()
        for each in network.endpoints
        if each.from_cidr
    ]
    return tuple(sorted(found, key=lambda pair: (-_prefix(pair[0]), pair)))


def _prefix(cidr: str) -> int:
    return int(cidr.rpartition("/")[2])


def network_at(ctx: Ctx, address: str) -> str:
    """
    Return the network of a workload that does not name its own (MN-01, MN-06).

    The label of the root namespace goes first, then the cluster's network, then its address.
    """
    named = ctx.get(default_network, None) or ctx.get(registry_network, None)
    if named:
        return named
    ranges = ctx.get(network_ranges, None)
    if not ranges or not is_address(address):
        return ""
    place = ip_address(address)
    return next((name for cidr, name in ranges if place in ip_network(cidr, strict=False)), "")


@query
def network_gateways(ctx: Ctx, _key: None) -> NetworkGateways:
    """Return the gateways of all networks (MN-02, MN-03, MN-05)."""
    config = ctx.get(mesh_networks, None)
    found: set[NetworkGateway] = set()
    for name, network in config.networks.items():
        is_ours = any(each.from_registry == LOCAL_CLUSTER for each in network.endpoints)
        for index, gateway in enumerate(network.gateways):
            if is_address(gateway.address):
                found.add(NetworkGateway(name, gateway.address, gateway.port))
            elif gateway.registry_service_name and is_ours:
                path = f"networks.{name}.gateways[{index}].registryServiceName"
                host = gateway.registry_service_name
                found.update(_of_service(ctx, name, host, gateway.port, path))
    for row in ctx.where(SERVICES, "is_network_gateway", True):
        found.update(_labelled(ctx, row))
    every = tuple(sorted(found))
    counts = [len([g for g in every if g.network == name]) for name in {g.network for g in every}]
    pairs = {(gateway.network, gateway.cluster) for gateway in every}
    counts.extend(len([g for g in every if (g.network, g.cluster) == pair]) for pair in pairs)
    return NetworkGateways(every, math.lcm(*counts) if counts else 1)


def _of_service(
    ctx: Ctx, network: str, host: str, port: int, path: str
) -> Iterator[NetworkGateway]:
    name, _, namespace = host.removesuffix(f".svc.{ctx.get(domain, None)}").partition(".")
    row = ctx.row(SERVICES, ObjectKey(namespace, name))
    ref = ConfigRef("MeshNetworks", "", "mesh", path)
    if row is None:
        ctx.report(_useless(ref, f"There is no Service {host}", "Name the Service by its host."))
        return
    yield from _at_addresses(ctx, row, network, port, ref)


def _labelled(ctx: Ctx, row: Service) -> Iterator[NetworkGateway]:
    text = row.meta.labels.get(GATEWAY_PORT_LABEL, "")
    port = int(text) if text.isdigit() else DEFAULT_GATEWAY_PORT
    ref = row.meta.ref(f"metadata.labels[{NETWORK_LABEL}]")
    if not any(each.port == port for each in row.spec.ports):
        problem = f"The Service has no port {port}"
        ctx.report(_useless(ref, problem, f"Add it, or name another by {GATEWAY_PORT_LABEL}."))
        return
    yield from _at_addresses(ctx, row, row.meta.labels[NETWORK_LABEL], port, ref)


def _at_addresses(
    ctx: Ctx, row: Service, network: str, port: int, ref: ConfigRef
) -> Iterator[NetworkGateway]:
    # Only addresses that are reached from outside of the cluster count (K8-09).
    outer = [each.ip for each in row.status.load_balancer.ingress if each.ip]
    addresses = tuple(dict.fromkeys((*outer, *row.spec.external_ips)))
    if not addresses:
        problem = f"Service {row.meta.namespace}/{row.meta.name} has no IP outside of its cluster"
        remedy = "Wait for its load balancer, or set externalIPs."
        ctx.report(_useless(ref, problem, remedy))
    for address in addresses:
        yield NetworkGateway(network, address, port, LOCAL_CLUSTER)


def _useless(ref: ConfigRef, problem: str, remedy: str) -> Finding:
    message = f"{problem}; its network is not reached through it."
    return Finding(Severity.WARNING, "NetworkGatewayUnusable", ref, message, remedy)


def through_gateways(
    endpoints: Iterable[Endpoint], gateways: NetworkGateways, reach: Reach, *, crosses: bool
) -> Iterator[Endpoint]:
    """
    Yield what a client connects to: endpoints, and gateways in place of those behind them (3.12).

    `crosses` tells that connections to the service are mutual TLS, by which gateways tell where
    they go: without it, and for workloads that take none, there is no way through. A gateway stands
    in the locality of what it leads to, with the share of its weight.
    """
    behind: dict[tuple[Locality, NetworkGateway], dict[Health, int]] = {}
    for endpoint in endpoints:
        if not reach.knows(endpoint):
            continue
        ways = gateways.into(endpoint.network, endpoint.label(CLUSTER_LABEL))
        if not ways or not endpoint.network or endpoint.network == reach.network:
            if endpoint.address:
                weight = min(endpoint.weight * gateways.scale, _MOST)
                yield replace(endpoint, weight=weight) if gateways.scale > 1 else endpoint
            continue
        usable = [each for each in ways if reach.connects_to(each)]
        if not (crosses and reach.crosses and endpoint.takes_mutual_tls and usable):
            continue
        share = max(1, min(endpoint.weight * gateways.scale, _MOST) // len(usable))
        for way in usable:
            weights = behind.setdefault((endpoint.locality, way), {})
            weights[endpoint.health] = weights.get(endpoint.health, 0) + share
    for (locality, way), weights in behind.items():
        # A gateway is as well as the best of what it leads to, and only that counts.
        health = min(weights, key=lambda each: each.value)
        yield Endpoint(
            address=way.address,
            port=way.port,
            health=health,
            weight=min(weights[health], _MOST),
            locality=locality,
            network=way.network,
            labels=((CLUSTER_LABEL, way.cluster),) if way.cluster else (),
            takes_mutual_tls=True,
        )
