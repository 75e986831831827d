"""
Networks: the gateways through which clients reach the networks they are not in.

A mesh of one network has no gateways, and then nothing here costs anything. Rows MN-01 to MN-06 of
traffic.md; what a client is told of endpoints elsewhere is 3.12. Names of gateways are looked up by
the runtime: here is what was found (ADR 23).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.inputs import RESOLVED_NAMES
from pilothouse.model.network_gateways import DeclaredGateway, declared_gateways
from pilothouse.model.proxies import Locality
from pilothouse.model.resolved_names import ResolvedName
from pilothouse.model.topology_labels import CLUSTER_LABEL, LOCAL_CLUSTER

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
    `unreached` are networks whose gateways have names only that lead nowhere so far: to call
    their workloads directly would be to call whoever has the same addresses here.
    """

    every: tuple[NetworkGateway, ...]
    scale: int
    unreached: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Tell whether the mesh has more than one network as far as clients are concerned."""
        return bool(self.every or self.unreached)

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


@firewall(1)
def network_gateways(ctx: Ctx, _key: None) -> NetworkGateways:
    """Return the gateways of all networks, names among them as what they lead to (MN-03)."""
    found: set[NetworkGateway] = set()
    named: set[str] = set()
    for each in ctx.get(declared_gateways, None):
        places: tuple[str, ...] = (each.place,)
        if each.is_named:
            named.add(each.network)
            resolved = ctx.row(RESOLVED_NAMES, each.place) or ResolvedName()
            places = resolved.addresses
            if resolved.problem:
                ctx.report(_unresolved(each, resolved))
        found.update(NetworkGateway(each.network, at, each.port, each.cluster) for at in places)
    every = tuple(sorted(found))
    counts = [len([g for g in every if g.network == name]) for name in {g.network for g in every}]
    pairs = {(gateway.network, gateway.cluster) for gateway in every}
    counts.extend(len([g for g in every if (g.network, g.cluster) == pair]) for pair in pairs)
    unreached = frozenset(named - {gateway.network for gateway in every})
    return NetworkGateways(every, math.lcm(*counts) if counts else 1, unreached)


@query
def has_gateways(ctx: Ctx, _key: None) -> bool:
    """Tell whether some network has gateways, so that other changes of these stop here."""
    return bool(ctx.get(network_gateways, None))


def _unresolved(gateway: DeclaredGateway, resolved: ResolvedName) -> Finding:
    kept = ", ".join(resolved.addresses)
    so = f"{kept} is still used" if kept else "nothing behind it is reached"
    return Finding(
        Severity.WARNING,
        "GatewayNameUnresolved",
        gateway.ref,
        f"The gateway {gateway.place} of network {gateway.network} has no address now: "
        f"{resolved.problem}; {so}.",
        "Check the name and this server's resolver, or write the gateway's IP addresses.",
    )


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
        is_open = not ways and endpoint.network not in gateways.unreached
        if is_open or not endpoint.network or endpoint.network == reach.network:
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
            cluster=way.cluster or LOCAL_CLUSTER,
            takes_mutual_tls=True,
        )
