"""
Endpoints that are not listed by slices: those of ServiceEntries and of WorkloadEntries.

Inline endpoints, and workloads that a selector picks (SE-07 to SE-09, WE-01 to WE-06). Which
services have such endpoints is decided in `pilothouse.model.endpoints`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from pilothouse.api.kubernetes_core import Pod
from pilothouse.api.meta import ObjectMeta, selects
from pilothouse.api.names import is_address
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.sessions import DRAINING_LABEL
from pilothouse.api.workload import WorkloadEntry, WorkloadEntrySpec
from pilothouse.graph.core import Ctx
from pilothouse.model.authentication import takes_mutual_tls
from pilothouse.model.endpoint import Endpoint, Health, account_path, cluster_of, workload_text
from pilothouse.model.inputs import PODS, WORKLOAD_ENTRIES
from pilothouse.model.mesh import known_clusters
from pilothouse.model.pod_endpoints import is_finished, pod_endpoint
from pilothouse.model.proxies import Locality
from pilothouse.model.registration import workload_name
from pilothouse.model.services import Port, Resolution, Service, entries_of_host
from pilothouse.model.topology_labels import NETWORK_LABEL, labelled_locality
from pilothouse.model.topology_networks import home_of, network_at
from pilothouse.model.visibility import is_discovered

UNIX: Final = "unix://"
DNS_RESOLUTIONS: Final = ("DNS", "DNS_ROUND_ROBIN")


def selected_workloads(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    """Yield the WorkloadEntries that a Kubernetes service selects, of its cluster only (WE-06)."""
    for row in _selected_entries(ctx, owner):
        if row.meta.cluster != owner.clusters[0]:
            continue
        yield from _workload_of_kubernetes(ctx, row, port)


def _workload_of_kubernetes(ctx: Ctx, row: WorkloadEntry, port: Port) -> Iterator[Endpoint]:
    # Looked up by the target's name if it has one, else by the port's (WE-06).
    if not is_address(row.spec.address):
        return
    if isinstance(port.target, str):
        if port.target not in row.spec.ports:
            return
        port = replace(port, target=row.spec.ports[port.target], name="")
    yield from _workload_entry(ctx, row, port)


def entry_endpoints(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    """Yield what ServiceEntries of the service's host bring for a port (SE-07 to SE-09)."""
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
            # Names can be looked up, sockets cannot; a static service takes neither.
            address = row.spec.address
            if is_address(address) or (is_dns and not address.startswith(UNIX)):
                yield from _workload_entry(ctx, row, port)
        for pod in _selected_pods(ctx, chosen):
            if pod.status.pod_ip:
                ip, cluster = pod.status.pod_ip, pod.meta.cluster
                yield pod_endpoint(ctx, pod, ip, number, Health.HEALTHY, None, cluster)
        return
    own = entry.meta
    for listed in entry.spec.endpoints:
        place = _Place(own.namespace, is_external=owner.is_mesh_external)
        yield from _listed_workload(ctx, listed, port, place, listed.labels)
    if not entry.spec.endpoints and is_dns:
        yield Endpoint(address=owner.host, port=number)


def _selected_entries(ctx: Ctx, owner: Service) -> Iterator[WorkloadEntry]:
    # One pair of the selector finds candidates through the index; the rest are compared.
    for name, value in (owner.selector or ())[:1]:
        for row in ctx.where(WORKLOAD_ENTRIES, "label", (owner.namespace, name, value)):
            is_chosen = selects(dict(owner.selector or ()), row.all_labels)
            if is_chosen and row.is_healthy and _takes_part(ctx, row.meta):
                yield row


def _selected_pods(ctx: Ctx, owner: Service) -> Iterator[Pod]:
    for name, value in (owner.selector or ())[:1]:
        for row in ctx.where(PODS, "label", (owner.namespace, name, value)):
            is_chosen = selects(dict(owner.selector or ()), row.meta.labels)
            if is_chosen and _is_usable(row) and _takes_part(ctx, row.meta):
                yield row


def _takes_part(ctx: Ctx, meta: ObjectMeta) -> bool:
    # Where our own namespace takes part was asked before.
    if not meta.cluster:
        return True
    is_known = meta.cluster in ctx.get(known_clusters, None).others
    return is_known and is_discovered(ctx, meta.namespace, meta.cluster)


def _workload_entry(ctx: Ctx, row: WorkloadEntry, port: Port) -> Iterator[Endpoint]:
    labels, place = row.all_labels, _Place(row.meta.namespace, workload_name(row), row.meta.cluster)
    return _listed_workload(ctx, row.spec, port, place, labels)


class _Place(NamedTuple):
    """
    Where a workload is written: `name` is empty for one within a ServiceEntry.

    What `is_external` is in no network of the mesh, unless it says so itself.
    """

    namespace: str
    name: str = ""
    cluster: str = ""
    is_external: bool = False


def _listed_workload(
    ctx: Ctx,
    spec: WorkloadEntrySpec,
    port: Port,
    place: _Place,
    labels: dict[str, str],
) -> Iterator[Endpoint]:
    namespace, name, cluster, is_external = place
    if spec.address.startswith(UNIX):
        address, number = spec.address[len(UNIX) :], 0
    else:
        target = port.target if isinstance(port.target, int) else port.number
        address, number = spec.address, spec.ports.get(port.name, target)
    if not address and not spec.network:
        return
    labelled = labelled_locality(labels)
    account = spec.service_account
    home = ctx.get(home_of, cluster)
    known = cluster_of(labels, home.cluster, is_remote=bool(cluster))
    around = "" if is_external else network_at(ctx, spec.address, home)
    yield Endpoint(
        address=address,
        port=number,
        health=Health.DRAINING if labels.get(DRAINING_LABEL) else Health.HEALTHY,
        weight=spec.weight or 1,
        locality=Locality.parse(spec.locality) if spec.locality else labelled or Locality(),
        network=spec.network or labels.get(NETWORK_LABEL) or around,
        labels=tuple(sorted(labels.items())),
        workload=workload_text(name, namespace, labels, known),
        account=account_path(namespace, account) if account else "",
        takes_mutual_tls=takes_mutual_tls(
            ctx, namespace, labels, number, has_identity=bool(account)
        ),
        cluster=known,
    )


def _is_usable(pod: Pod) -> bool:
    # No slice says so here: a pod that says it is not ready is left out (SE-09).
    is_unready = any(
        each.type == "Ready" and each.status != "True" for each in pod.status.conditions
    )
    return not is_unready and not is_finished(pod)
