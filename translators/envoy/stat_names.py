"""Statistics' names of clusters and TCP chains, as the mesh config words them (traffic.md N-62)."""

from typing import NamedTuple

from pilothouse.graph.core import Ctx
from pilothouse.model.inbound_ports import InboundPort
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import InboundClusterName
from pilothouse.model.services import Port, Registry, Service, ServiceKey, service


class StatSubject(NamedTuple):
    """What statistics are about; `target_port` is 0 for outbound ones."""

    service: Service
    port: Port
    subset: str = ""
    target_port: int = 0


def stat_name(pattern: str, subject: StatSubject, otherwise: str) -> str:
    """Fill in the pattern's variables; without a pattern the name is as `otherwise` says."""
    if not pattern:
        return otherwise
    service = subject.service
    is_short = service.is_kubernetes
    values = {
        "%SERVICE%": f"{service.key.name}.{service.namespace}" if is_short else service.host,
        "%SERVICE_NAME%": service.key.name if is_short else service.host,
        "%SERVICE_FQDN%": service.host,
        "%SUBSET_NAME%": subject.subset,
        "%TARGET_PORT%": str(subject.target_port),
        "%SERVICE_PORT%": str(subject.port.number),
        "%SERVICE_PORT_NAME%": subject.port.name,
    }
    for variable, value in values.items():
        pattern = pattern.replace(variable, value)
    return pattern


def is_declared(port: InboundPort) -> bool:
    """Tell whether a Sidecar opens a port, and not a service that the workload serves."""
    return port.source.ref.kind == "Sidecar"


def inbound_stat_name(ctx: Ctx, port: InboundPort) -> str:
    """Return the statistics' name of an inbound port: of its cluster and of its TCP chain."""
    name = str(InboundClusterName(port.port))
    pattern = ctx.get(mesh_config, None).inbound_cluster_stat_name
    if not pattern or is_declared(port):
        return name
    ref = port.source.ref
    registry = Registry.KUBERNETES if ref.kind == "Service" else Registry.EXTERNAL
    owner = ctx.get(service, ServiceKey(registry, ref.namespace, ref.name, port.host))
    owned = owner.port(port.service_port) if owner else None
    if owner is None or owned is None:
        return name
    return stat_name(pattern, StatSubject(owner, owned, target_port=port.port), name)
