"""
Which network a workload is in that does not name its own (MN-01, MN-06).

Its cluster decides, else its address. Who goes through which gateway to other networks is the
business of `pilothouse.model.networks`.
"""

from ipaddress import ip_address, ip_network
from typing import NamedTuple

from pilothouse.api.names import is_address
from pilothouse.graph.core import Ctx, query
from pilothouse.model.mesh import known_clusters, mesh_networks
from pilothouse.model.topology import default_network


class Home(NamedTuple):
    """The name of a cluster, and the network of all of its workloads ("" if none is named)."""

    cluster: str
    network: str


@query
def home_of(ctx: Ctx, cluster: str) -> Home:
    """
    Return what workloads of a cluster (empty: our own) have in common.

    The label of its root namespace goes before what MeshNetworks say of it.
    """
    name = ctx.get(known_clusters, None).name_of(cluster)
    return Home(name, ctx.get(default_network, cluster) or ctx.get(registry_network, name))


@query
def registry_network(ctx: Ctx, cluster: str) -> str:
    """Return the network that everything of a cluster is in by name, empty if none is named."""
    for name, network in ctx.get(mesh_networks, None).networks.items():
        if any(each.from_registry == cluster for each in network.endpoints):
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


def network_at(ctx: Ctx, address: str, home: Home) -> str:
    """Return the network of a workload of a cluster at an address."""
    if home.network:
        return home.network
    ranges = ctx.get(network_ranges, None)
    if not ranges or not is_address(address):
        return ""
    place = ip_address(address)
    return next((name for cidr, name in ranges if place in ip_network(cidr, strict=False)), "")
