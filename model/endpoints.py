"""
Endpoints: where each port of a service runs.

From EndpointSlices (or Endpoints), WorkloadEntries and Pods that a selector picks, or a
ServiceEntry's own list. What a proxy sees of them (subsets, locality) is decided by translators.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, NamedTuple

from pilothouse.api.kubernetes_core import Endpoint as SliceEndpoint
from pilothouse.api.kubernetes_core import EndpointSlice, Pod
from pilothouse.api.meta import ObjectKey, selects
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.workload import WorkloadEntry, WorkloadEntrySpec
from pilothouse.graph.core import Ctx, query
from pilothouse.model.address_pools import is_address
from pilothouse.model.inputs import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    NODES,
    PODS,
    SERVICE_ENTRIES,
    WORKLOAD_ENTRIES,
)
from pilothouse.model.proxies import Locality
from pilothouse.model.services import (
    Port,
    Resolution,
    Service,
    ServiceKey,
    entries_of_host,
    service,
)

REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"
LOCALITY_LABELS: Final = ("topology.istio.io/locality", "istio-locality")
NAME_LABELS: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
REVISION_LABELS: Final = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
UNIX: Final = "unix://"
DNS_RESOLUTIONS: Final = ("DNS", "DNS_ROUND_ROBIN")


class Health(Enum):
    """Whether an endpoint may be sent traffic; the value is Envoy's HealthStatus."""

    HEALTHY = 1
    UNHEALTHY = 2
    DRAINING = 3


class EndpointsKey(NamedTuple):
    """A port of a service."""

    service: ServiceKey
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    One place where a port is served.

    `address` is an IP, a host name (DNS resolutions) or a Unix path (port 0). `labels` are the
    workload's, sorted. `workload` is the text of N-70, empty if unknown. `weight` is at least 1.
    """

    address: str
    port: int
    health: Health = Health.HEALTHY
    weight: int = 1
    locality: Locality = field(default_factory=Locality)
    labels: tuple[tuple[str, str], ...] = ()
    workload: str = ""
    service_account: str = ""

    def has_labels(self, wanted: tuple[tuple[str, str], ...]) -> bool:
        """Tell whether the workload carries every wanted label."""
        return all(pair in self.labels for pair in wanted)


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
        every = _entry_endpoints(ctx, found, port)
    unique = {(endpoint.address, endpoint.port): endpoint for endpoint in every}
    return tuple(unique[place] for place in sorted(unique))


def _kubernetes_endpoints(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    key = ObjectKey(owner.namespace, owner.key.name)
    slices = ctx.where(ENDPOINT_SLICES, "service", key)
    for row in slices:
        yield from _slice_endpoints(ctx, owner, port, row)
    if not slices:
        yield from _legacy_endpoints(ctx, owner, port, key)
    if owner.resolution is Resolution.ENDPOINTS:
        for workload in _selected_entries(ctx, owner):
            yield from _workload_of_kubernetes(workload, port)
        if owner.host in ctx.index_values(SERVICE_ENTRIES, "kubernetes_host"):
            yield from _entry_endpoints(ctx, owner, port)


def _slice_endpoints(
    ctx: Ctx, owner: Service, port: Port, row: EndpointSlice
) -> Iterator[Endpoint]:
    if row.address_type == "FQDN":
        return
    number = next((p.port for p in row.ports or () if (p.name or "") == port.name), None)
    if number is None:
        return
    for endpoint in row.endpoints or ():
        health = _slice_health(endpoint, owner)
        if health is None:
            continue
        for address in endpoint.addresses:
            pod = _pod_of(ctx, row.meta.namespace, endpoint, address)
            yield _pod_endpoint(ctx, pod, address, number, health, endpoint)


def _slice_health(endpoint: SliceEndpoint, owner: Service) -> Health | None:
    conditions = endpoint.conditions
    if conditions.ready is not False or owner.publish_not_ready:
        return Health.HEALTHY
    if conditions.terminating:
        return None  # draining is for persistent sessions only (traffic.md 3.12)
    return Health.UNHEALTHY


def _pod_of(ctx: Ctx, namespace: str, endpoint: SliceEndpoint, address: str) -> Pod | None:
    target = endpoint.target_ref
    if target is not None and target.kind == "Pod":
        return ctx.row(PODS, ObjectKey(target.namespace or namespace, target.name))
    return pod_at(ctx, address)


def pod_at(ctx: Ctx, address: str) -> Pod | None:
    """Return the living pod with that address."""
    pods = [p for p in ctx.where(PODS, "address", address) if not _is_finished(p)]
    return pods[0] if pods else None


def _is_finished(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")  # its address is free again (K8-16)


def _is_usable(pod: Pod) -> bool:
    # No slice says so here: a pod that says it is not ready is left out (SE-09).
    is_unready = any(
        each.type == "Ready" and each.status != "True" for each in pod.status.conditions
    )
    return not is_unready and not _is_finished(pod)


def _pod_endpoint(
    ctx: Ctx,
    pod: Pod | None,
    address: str,
    number: int,
    health: Health,
    listed: SliceEndpoint | None,
) -> Endpoint:
    node = (pod.spec.node_name if pod else "") or (listed.node_name if listed else "")
    locality = _node_locality(ctx, node)
    if not locality.zone and listed is not None and listed.zone:
        locality = Locality(region=locality.region, zone=listed.zone, subzone=locality.subzone)
    if pod is None:
        return Endpoint(address=address, port=number, health=health, locality=locality)
    labels = pod.meta.labels
    return Endpoint(
        address=address,
        port=number,
        health=health,
        locality=_labelled_locality(labels) or locality,
        labels=tuple(sorted(labels.items())),
        workload=workload_text(pod.meta.name, pod.meta.namespace, labels),
        service_account=pod.spec.service_account_name,
    )


def _legacy_endpoints(ctx: Ctx, owner: Service, port: Port, key: ObjectKey) -> Iterator[Endpoint]:
    row = ctx.row(ENDPOINTS, key)
    for subset in (row.subsets or ()) if row else ():
        number = next((p.port for p in subset.ports if (p.name or "") == port.name), None)
        if number is None:
            continue
        for address in subset.addresses:
            pod = pod_at(ctx, address.ip)
            yield _pod_endpoint(ctx, pod, address.ip, number, Health.HEALTHY, None)
        health = Health.HEALTHY if owner.publish_not_ready else Health.UNHEALTHY
        for address in subset.not_ready_addresses:
            pod = pod_at(ctx, address.ip)
            yield _pod_endpoint(ctx, pod, address.ip, number, health, None)


def _entry_endpoints(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    # All entries of the namespace that name the host take part, by the name of the port (SE-13).
    for entry in entries_of_host(ctx, owner.namespace, owner.host):
        declared = next((each for each in entry.spec.ports if each.name == port.name), None)
        is_dns = entry.spec.resolution in DNS_RESOLUTIONS
        if declared is None or is_dns != owner.resolution.is_dns:
            continue
        own_port = replace(port, target=declared.target_port or declared.number)
        found = list(_endpoints_of_entry(ctx, owner, entry, own_port))
        yield from found
        if found and owner.resolution is Resolution.DNS_ROUND_ROBIN:
            return  # one endpoint only (SE-07)


def _endpoints_of_entry(
    ctx: Ctx, owner: Service, entry: ServiceEntry, port: Port
) -> Iterator[Endpoint]:
    number = port.target if isinstance(port.target, int) else port.number
    is_dns = entry.spec.resolution in DNS_RESOLUTIONS
    selector = entry.spec.workload_selector
    if selector is not None:
        chosen = replace(owner, selector=tuple(sorted(selector.labels.items())))
        for row in _selected_entries(ctx, chosen):
            if is_dns or is_address(row.spec.address):
                yield from _workload_entry(row, port)
        for pod in _selected_pods(ctx, chosen):
            if pod.status.pod_ip:
                yield _pod_endpoint(ctx, pod, pod.status.pod_ip, number, Health.HEALTHY, None)
        return
    for listed in entry.spec.endpoints:
        yield from _listed_workload(listed, port, entry.meta.namespace, "", listed.labels)
    if not entry.spec.endpoints and is_dns:
        yield Endpoint(address=owner.host, port=number)


def _workload_of_kubernetes(row: WorkloadEntry, port: Port) -> Iterator[Endpoint]:
    # Looked up by the target's name if it has one, else by the port's (WE-06).
    if not is_address(row.spec.address):
        return
    if isinstance(port.target, str):
        if port.target not in row.spec.ports:
            return
        port = replace(port, target=row.spec.ports[port.target], name="")
    yield from _workload_entry(row, port)


def _selected_entries(ctx: Ctx, owner: Service) -> Iterator[WorkloadEntry]:
    # One pair of the selector finds candidates through the index; the rest are compared.
    for name, value in (owner.selector or ())[:1]:
        for row in ctx.where(WORKLOAD_ENTRIES, "label", (owner.namespace, name, value)):
            if selects(dict(owner.selector or ()), row.all_labels) and row.is_healthy:
                yield row


def _selected_pods(ctx: Ctx, owner: Service) -> Iterator[Pod]:
    for name, value in (owner.selector or ())[:1]:
        for row in ctx.where(PODS, "label", (owner.namespace, name, value)):
            if selects(dict(owner.selector or ()), row.meta.labels) and _is_usable(row):
                yield row


def _workload_entry(row: WorkloadEntry, port: Port) -> Iterator[Endpoint]:
    labels = row.all_labels
    return _listed_workload(row.spec, port, row.meta.namespace, row.meta.name, labels)


def _listed_workload(
    spec: WorkloadEntrySpec, port: Port, namespace: str, name: str, labels: dict[str, str]
) -> Iterator[Endpoint]:
    if spec.address.startswith(UNIX):
        address, number = spec.address[len(UNIX) :], 0
    else:
        target = port.target if isinstance(port.target, int) else port.number
        address, number = spec.address, spec.ports.get(port.name, target)
    if not address:
        return
    yield Endpoint(
        address=address,
        port=number,
        weight=spec.weight or 1,
        locality=Locality.parse(spec.locality) if spec.locality else Locality(),
        labels=tuple(sorted(labels.items())),
        workload=workload_text(name, namespace, labels) if name else "",
        service_account=spec.service_account,
    )


def _node_locality(ctx: Ctx, name: str) -> Locality:
    node = ctx.row(NODES, ObjectKey("", name)) if name else None
    labels = node.meta.labels if node else {}
    return Locality(
        region=labels.get(REGION_LABEL, ""),
        zone=labels.get(ZONE_LABEL, ""),
        subzone=labels.get(SUBZONE_LABEL, ""),
    )


def _labelled_locality(labels: dict[str, str]) -> Locality | None:
    text = next((labels[name] for name in LOCALITY_LABELS if labels.get(name)), "")
    return Locality.parse(text.replace(".", "/") if "/" not in text else text) if text else None


def workload_text(name: str, namespace: str, labels: dict[str, str]) -> str:
    """Return ``NAME;NAMESPACE;CANONICAL-NAME;CANONICAL-REVISION;CLUSTER`` (N-70)."""
    canonical = next((labels[label] for label in NAME_LABELS if labels.get(label)), name)
    revision = next((labels[label] for label in REVISION_LABELS if labels.get(label)), "latest")
    revision = "" if revision == "latest" else revision
    return f"{name};{namespace};{canonical};{revision};Kubernetes"
