"""
MeshNetworks: the networks of the mesh, what is in each, and the gateways that lead into it.

Types of mesh.istio.io and their rules (traffic.md 2.11). Kept in a file beside the mesh config, or
under the key ``meshNetworks`` of its ConfigMap.
"""

from collections.abc import Iterator
from ipaddress import ip_network

from pilothouse.api import names, paths
from pilothouse.api.problem import Problem, port, warning
from pilothouse.api.structs import ApiStruct


class NetworkEndpoints(ApiStruct, frozen=True):
    """MN-01: workloads of a network, by their addresses or by the cluster that knows them."""

    from_cidr: str = ""
    from_registry: str = ""


class IstioNetworkGateway(ApiStruct, frozen=True):
    """
    A way into a network: an IP address or host name, or a Service whose outer addresses count.

    Rows MN-02, MN-03.
    """

    registry_service_name: str = ""
    address: str = ""
    port: int = 0
    locality: str = ""


class Network(ApiStruct, frozen=True):
    """One network."""

    endpoints: tuple[NetworkEndpoints, ...] = ()
    gateways: tuple[IstioNetworkGateway, ...] = ()


class MeshNetworks(ApiStruct, frozen=True):
    """The networks by name; `MeshNetworks()` is what a mesh of one network has."""

    networks: dict[str, Network] = {}


def check(config: MeshNetworks) -> Iterator[Problem]:
    """Yield what is wrong with the networks."""
    registries: dict[str, str] = {}
    for name, network in config.networks.items():
        path = paths.child("networks", name)
        if not name:
            yield Problem(path, "A network needs a name.")
        for index, endpoints in enumerate(network.endpoints):
            at = f"{path}.endpoints[{index}]"
            yield from _check_endpoints(endpoints, at)
            registry = endpoints.from_registry
            first = registries.setdefault(registry, name) if registry else name
            if first != name:
                message = f'Everything in the cluster "{registry}" is in the network "{first}".'
                remedy = "A cluster belongs to one network; use fromCidr for the others."
                yield warning(f"{at}.fromRegistry", message, remedy)
        has_registry = any(each.from_registry for each in network.endpoints)
        for index, gateway in enumerate(network.gateways):
            at = f"{path}.gateways[{index}]"
            problems = tuple(_check_gateway(gateway, at))
            yield from problems
            if gateway.registry_service_name and not problems and not has_registry:
                message = "The network names no cluster, so the Service is looked for in none."
                remedy = "Add fromRegistry to the network's endpoints, or write an address."
                yield warning(f"{at}.registryServiceName", message, remedy)


def _check_endpoints(endpoints: NetworkEndpoints, path: str) -> Iterator[Problem]:
    given = _given(endpoints.from_cidr, endpoints.from_registry)
    if given != 1:
        yield Problem(path, "Exactly one of fromCidr, fromRegistry must be set.")
    if endpoints.from_cidr and not _is_cidr(endpoints.from_cidr):
        message = f'"{endpoints.from_cidr}" is no range of addresses such as 10.1.0.0/16.'
        yield Problem(f"{path}.fromCidr", message)
    if endpoints.from_registry:
        problem = names.dns_label(endpoints.from_registry.lower())
        if problem:
            message = f'The cluster "{endpoints.from_registry}" {problem}.'
            yield Problem(f"{path}.fromRegistry", message)


def _check_gateway(gateway: IstioNetworkGateway, path: str) -> Iterator[Problem]:
    if _given(gateway.address, gateway.registry_service_name) != 1:
        yield Problem(path, "Exactly one of address, registryServiceName must be set.")
    yield from port(gateway.port, f"{path}.port")
    if gateway.registry_service_name:
        problem = names.host(gateway.registry_service_name)
        if problem:
            message = f'The host "{gateway.registry_service_name}" {problem}.'
            yield Problem(f"{path}.registryServiceName", message)
    if gateway.address and not names.is_address(gateway.address):
        problem = names.host(gateway.address)
        if not problem and gateway.address.startswith("*"):
            problem = "stands for many names, and a gateway is at one"
        if problem:
            yield Problem(f"{path}.address", f'The address "{gateway.address}" {problem}.')


def _given(*texts: str) -> int:
    return sum(bool(text) for text in texts)


def _is_cidr(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text
