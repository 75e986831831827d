"""
Gateways of networks as the config declares them: by address, by host name, by a Service.

Rows MN-02, MN-03, MN-05 and K8-09 of traffic.md. A place may be a name here; what names lead to and
who goes through is the business of `pilothouse.model.networks`.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pilothouse.api.kubernetes_core import Service
from pilothouse.api.mesh_networks import Network
from pilothouse.api.meta import ObjectKey, selects
from pilothouse.api.names import is_address
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import NODES, SERVICES
from pilothouse.model.mesh import domain, known_clusters, mesh_networks
from pilothouse.model.topology_labels import NETWORK_LABEL

GATEWAY_PORT_LABEL: Final = "networking.istio.io/gatewayPort"
DEFAULT_GATEWAY_PORT: Final = 15443
NODE_SELECTOR_ANNOTATION: Final = "traffic.istio.io/nodeSelector"
"""Of a Service of type NodePort: labels (JSON) of the nodes at which it is reached (K8-09)."""


class DeclaredGateway(NamedTuple):
    """
    A way into a network at `place`, an IP address or a host name in lower case.

    `cluster` is empty unless a Service of a cluster is the gateway. `ref` is who says so.
    """

    network: str
    place: str
    port: int
    cluster: str
    ref: ConfigRef

    @property
    def is_named(self) -> bool:
        """Tell whether the place is a name, which must be looked up."""
        return not is_address(self.place)


@query
def declared_gateways(ctx: Ctx, _key: None) -> tuple[DeclaredGateway, ...]:
    """Return the gateways of all networks, those of MeshNetworks first (MN-02, MN-03, MN-05)."""
    found: dict[DeclaredGateway, None] = {}
    for name, network in ctx.get(mesh_networks, None).networks.items():
        registries = _registries(ctx, name, network)
        for index, gateway in enumerate(network.gateways):
            path = f"networks.{name}.gateways[{index}]"
            if gateway.address:
                ref = ConfigRef("MeshNetworks", "", "mesh", f"{path}.address")
                place = _as_name(gateway.address)
                found[DeclaredGateway(name, place, gateway.port, "", ref)] = None
                continue
            ref = ConfigRef("MeshNetworks", "", "mesh", f"{path}.registryServiceName")
            host = gateway.registry_service_name
            for cluster in registries:
                of_it = _of_service(ctx, name, host, gateway.port, ref, cluster)
                found.update(dict.fromkeys(of_it))
    for row in ctx.where(SERVICES, "is_network_gateway", True):
        found.update(dict.fromkeys(_labelled(ctx, row)))
    return tuple(found)


@query
def gateway_names(ctx: Ctx, _key: None) -> tuple[str, ...]:
    """Return the host names of gateways, which somebody must look up; sorted."""
    return tuple(sorted({each.place for each in ctx.get(declared_gateways, None) if each.is_named}))


def _registries(ctx: Ctx, name: str, network: Network) -> list[str]:
    """Return the known clusters of a network, as keys have them; say which are not known."""
    clusters = ctx.get(known_clusters, None)
    found: dict[str, None] = {}
    for index, each in enumerate(network.endpoints):
        if clusters.knows(each.from_registry):
            found[clusters.key_of(each.from_registry)] = None
        elif each.from_registry:
            path = f"networks.{name}.endpoints[{index}].fromRegistry"
            ctx.report(
                Finding(
                    Severity.WARNING,
                    "UnknownCluster",
                    ConfigRef("MeshNetworks", "", "mesh", path),
                    f"Nothing is known of a cluster {each.from_registry}; nothing is in network"
                    f" {name} because of it.",
                    "Add it by --remote-cluster, or name our own cluster by --cluster-id.",
                )
            )
    return list(found)


def _as_name(text: str) -> str:
    return text if is_address(text) else text.lower().removesuffix(".")


def _of_service(
    ctx: Ctx, network: str, host: str, port: int, ref: ConfigRef, cluster: str
) -> Iterator[DeclaredGateway]:
    name, _, namespace = host.removesuffix(f".svc.{ctx.get(domain, None)}").partition(".")
    row = ctx.row(SERVICES, ObjectKey(namespace, name, cluster))
    if row is None:
        ctx.report(_useless(ref, f"There is no Service {host}", "Name the Service by its host."))
        return
    yield from _at_addresses(ctx, row, network, port, ref)


def _labelled(ctx: Ctx, row: Service) -> Iterator[DeclaredGateway]:
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
) -> Iterator[DeclaredGateway]:
    # Only addresses that are reached from outside of the cluster count (K8-09).
    cluster = ctx.get(known_clusters, None).name_of(row.meta.cluster)
    outer = [each.ip or _as_name(each.hostname) for each in row.status.load_balancer.ingress]
    places = dict.fromkeys((*filter(None, outer), *row.spec.external_ips))
    if row.spec.type == "NodePort" and NODE_SELECTOR_ANNOTATION in row.meta.annotations:
        places.update(dict.fromkeys(_of_nodes(ctx, row)))
        port = next((p.node_port for p in row.spec.ports if p.port == port and p.node_port), port)
    if not places:
        problem = f"Service {row.meta.namespace}/{row.meta.name} has no address outside its cluster"
        remedy = "Wait for its load balancer, or set externalIPs."
        ctx.report(_useless(ref, problem, remedy))
    for place in places:
        yield DeclaredGateway(network, place, port, cluster, ref)


def _of_nodes(ctx: Ctx, row: Service) -> Iterator[str]:
    """Yield the external addresses of the nodes that the Service's annotation selects."""
    ref = row.meta.ref(f"metadata.annotations[{NODE_SELECTOR_ANNOTATION}]")
    try:
        wanted = msgspec.json.decode(
            row.meta.annotations[NODE_SELECTOR_ANNOTATION], type=dict[str, str]
        )
    except msgspec.DecodeError:
        problem = "The annotation is no JSON object of labels"
        ctx.report(_useless(ref, problem, 'Write for example {"ingress": "true"}, or {} for all.'))
        return
    for node in ctx.rows(NODES):
        if node.meta.cluster == row.meta.cluster and selects(wanted, node.meta.labels):
            for each in node.status.addresses:
                if each.type == "ExternalIP" and is_address(each.address):
                    yield each.address


def _useless(ref: ConfigRef, problem: str, remedy: str) -> Finding:
    message = f"{problem}; its network is not reached through it."
    return Finding(Severity.WARNING, "NetworkGatewayUnusable", ref, message, remedy)
