"""
Endpoints: where each port of a service runs.

From EndpointSlices (or Endpoints), WorkloadEntries and Pods that a selector picks, or a
ServiceEntry's own list. What a proxy sees of them is decided by `pilothouse.model.endpoint_policy`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.entry_endpoints import entry_endpoints, selected_workloads
from pilothouse.model.inputs import ENDPOINT_SLICES, ENDPOINTS, SERVICE_ENTRIES
from pilothouse.model.kubernetes_services import declared_service
from pilothouse.model.pod_endpoints import listed_endpoints, pod_at
from pilothouse.model.services import Port, Resolution, Service, ServiceKey, service

__all__ = ["Endpoint", "EndpointsKey", "Health", "endpoints", "pod_at"]


class EndpointsKey(NamedTuple):
    """A port of a service."""

    service: ServiceKey
    port: int


@query
def endpoints(ctx: Ctx, key: EndpointsKey) -> tuple[Endpoint, ...]:
    """Return the endpoints of a service port, sorted, each address once (K8-12, SE-07 to SE-09)."""
    found = ctx.get(service, key.service)
    port = found.port(key.port) if found else None
    if found is None or port is None:
        return ()
    if found.is_kubernetes:
        every = _kubernetes_endpoints(ctx, found, port)
    else:
        every = entry_endpoints(ctx, found, port)
    if found.session is None:  # nobody is sent to what drains, unless it is named (K8-11)
        every = (each for each in every if each.health is not Health.DRAINING)
    # What has no address is told apart by its workload: it is reached through a gateway. An
    # address of one cluster may be another workload's elsewhere.
    unique = {(e.address, e.port, "" if e.address else e.workload, e.cluster): e for e in every}
    if not unique and found.is_kubernetes and found.selector and not _is_listed(ctx, found):
        ctx.report(_unlisted(found))
    return tuple(unique[place] for place in sorted(unique))


def _kubernetes_endpoints(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    for part in _parts(ctx, owner):
        # Clusters agree on a port by its name; which number it leads to each says for itself.
        own_port = port if part is owner else part.port_named(port.name)
        if own_port is not None:
            yield from listed_endpoints(ctx, part, own_port)
            if owner.resolution is Resolution.ENDPOINTS:
                yield from selected_workloads(ctx, part, own_port)
    if owner.resolution is not Resolution.ENDPOINTS:
        return
    if owner.host in ctx.index_values(SERVICE_ENTRIES, "kubernetes_host"):
        yield from entry_endpoints(ctx, owner, port)


def _parts(ctx: Ctx, owner: Service) -> Iterator[Service]:
    """Yield a service as each of its clusters has it (K8-20)."""
    if len(owner.placements) < 2:
        yield owner
        return
    for cluster in owner.clusters:
        key = ObjectKey(owner.namespace, owner.key.name, cluster)
        part = ctx.get_or_none(declared_service, key)
        if part is not None:
            yield part


def _is_listed(ctx: Ctx, owner: Service) -> bool:
    keys = [ObjectKey(owner.namespace, owner.key.name, cluster) for cluster in owner.clusters]
    return any(
        bool(ctx.where(ENDPOINT_SLICES, "service", key)) or ctx.row(ENDPOINTS, key) is not None
        for key in keys
    )


def _unlisted(owner: Service) -> Finding:
    # A cluster makes a slice for every such Service; files copied from one may lack them.
    return Finding(
        Severity.WARNING,
        "NoEndpointSlice",
        owner.source.at("spec.selector").ref,
        f"No EndpointSlice lists endpoints of {owner.host}; requests to it get 503.",
        "Add its EndpointSlices to the config (kubectl get endpointslices -o yaml).",
    )
