"""
Endpoints in pods: EndpointSlices or the older Endpoints, and the pods they point at.

Rows K8-08, K8-12 to K8-17 of traffic.md, for a service as one cluster has it. Which services have
such endpoints is decided in `pilothouse.model.endpoints`.
"""

from collections.abc import Iterator
from dataclasses import replace

from pilothouse.api.kubernetes_core import Endpoint as SliceEndpoint
from pilothouse.api.kubernetes_core import EndpointSlice, Pod
from pilothouse.api.meta import ObjectKey
from pilothouse.api.sessions import DRAINING_LABEL
from pilothouse.graph.core import Ctx
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.authentication import takes_mutual_tls
from pilothouse.model.clusters import placed
from pilothouse.model.endpoint import Endpoint, Health, account_path, cluster_of, workload_text
from pilothouse.model.inputs import ENDPOINT_SLICES, ENDPOINTS, PODS
from pilothouse.model.proxies import Locality
from pilothouse.model.services import Port, Service
from pilothouse.model.topology import has_pods, node_locality
from pilothouse.model.topology_labels import NETWORK_LABEL, labelled_locality
from pilothouse.model.topology_networks import home_of, network_at
from pilothouse.model.workload_names import workload_of_pod


def listed_endpoints(ctx: Ctx, owner: Service, port: Port) -> Iterator[Endpoint]:
    """Yield what slices of its cluster list for a port of a service, else what Endpoints do."""
    key = ObjectKey(owner.namespace, owner.key.name, owner.clusters[0])
    slices = ctx.where(ENDPOINT_SLICES, "service", key)
    for row in slices:
        yield from _slice_endpoints(ctx, owner, port, row)
    if not slices:
        yield from _legacy_endpoints(ctx, owner, port, key)


def _slice_endpoints(
    ctx: Ctx, owner: Service, port: Port, row: EndpointSlice
) -> Iterator[Endpoint]:
    if row.address_type == "FQDN":
        return
    number = next((p.port for p in row.ports or () if (p.name or "") == port.name), None)
    if number is None:
        return
    cluster = row.meta.cluster
    for index, endpoint in enumerate(row.endpoints or ()):
        health = _slice_health(endpoint, owner)
        if health is None:
            continue
        named = _named_pod(row, endpoint)
        # Where no pods are told of, an endpoint must not cost a node for the lack of its pod.
        is_told = named is not None and ctx.get(has_pods, placed(named.namespace, cluster))
        pod = ctx.row(PODS, named) if named and is_told else None
        if named and is_told and pod is None:
            ctx.report(_without_pod(row, index, named))
            continue
        has_both = pod is not None and len(pod.status.pod_ips) > 1 and len(owner.vips) > 1
        if has_both and row.address_type == "IPv6":
            continue  # the slice of the other family brings the pod with all its addresses
        for address in endpoint.addresses:
            at = pod if named else pod_at(ctx, address, cluster)
            found = pod_endpoint(ctx, at, address, number, health, endpoint, cluster)
            if has_both and pod is not None:
                first, *more = (ip.ip for ip in pod.status.pod_ips)
                found = replace(found, address=first, more_addresses=tuple(more))
            yield found


def _slice_health(endpoint: SliceEndpoint, owner: Service) -> Health | None:
    conditions = endpoint.conditions
    if conditions.ready is not False or owner.publish_not_ready:
        return Health.HEALTHY
    if conditions.terminating:
        # Draining is for sessions that stick only (traffic.md 3.12).
        drains = owner.session is not None and conditions.serving is not False
        return Health.DRAINING if drains else None
    return Health.UNHEALTHY


def _named_pod(row: EndpointSlice, endpoint: SliceEndpoint) -> ObjectKey | None:
    target = endpoint.target_ref
    if target is None or target.kind != "Pod":
        return None
    return ObjectKey(target.namespace or row.meta.namespace, target.name, row.meta.cluster)


def _without_pod(row: EndpointSlice, index: int, pod: ObjectKey) -> Finding:
    # Without its pod an endpoint has no labels and no identity: it waits (K8-13).
    return Finding(
        Severity.WARNING,
        "EndpointWithoutPod",
        row.meta.ref(f"endpoints[{index}].targetRef"),
        f"There is no Pod {pod.namespace}/{pod.name}; the endpoint is not used until there is one.",
        "Add the Pod, or leave out targetRef.",
    )


def pod_at(ctx: Ctx, address: str, cluster: str = "") -> Pod | None:
    """Return the living pod with that address in a cluster; elsewhere it may be another's."""
    pods = [p for p in ctx.where(PODS, "address", placed(address, cluster)) if not is_finished(p)]
    return pods[0] if pods else None


def is_finished(pod: Pod) -> bool:
    """Tell whether a pod has ended; its address is free again (K8-16)."""
    return pod.status.phase in ("Succeeded", "Failed")


def pod_endpoint(
    ctx: Ctx,
    pod: Pod | None,
    address: str,
    number: int,
    health: Health,
    listed: SliceEndpoint | None,
    cluster: str,
) -> Endpoint:
    """Return an endpoint in a cluster with what its pod (if it has one) and its slice say of it."""
    node = (pod.spec.node_name if pod else "") or (listed.node_name if listed else "")
    locality = ctx.get(node_locality, placed(node, cluster)) if node else Locality()
    if not locality.zone and listed is not None and listed.zone:
        locality = Locality(region=locality.region, zone=listed.zone, subzone=locality.subzone)
    home = ctx.get(home_of, cluster)
    network = network_at(ctx, address, home)
    if pod is None:
        return Endpoint(
            address=address,
            port=number,
            health=health,
            locality=locality,
            node=node,
            network=network,
            cluster=home.cluster,
        )
    labels = pod.meta.labels
    if labels.get(DRAINING_LABEL):
        health = Health.DRAINING
    known = cluster_of(labels, home.cluster, is_remote=bool(cluster))
    return Endpoint(
        address=address,
        port=number,
        health=health,
        locality=labelled_locality(labels) or locality,
        node=node,
        network=labels.get(NETWORK_LABEL) or network,
        labels=tuple(sorted(labels.items())),
        workload=workload_text(workload_of_pod(pod), pod.meta.namespace, labels, known),
        account=account_path(pod.meta.namespace, pod.spec.service_account_name or "default"),
        takes_mutual_tls=takes_mutual_tls(ctx, pod.meta.namespace, labels, number),
        cluster=known,
    )


def _legacy_endpoints(ctx: Ctx, owner: Service, port: Port, key: ObjectKey) -> Iterator[Endpoint]:
    row = ctx.row(ENDPOINTS, key)
    for subset in (row.subsets or ()) if row else ():
        number = next((p.port for p in subset.ports if (p.name or "") == port.name), None)
        if number is None:
            continue
        for address in subset.addresses:
            pod = pod_at(ctx, address.ip, key.cluster)
            yield pod_endpoint(ctx, pod, address.ip, number, Health.HEALTHY, None, key.cluster)
        health = Health.HEALTHY if owner.publish_not_ready else Health.UNHEALTHY
        for address in subset.not_ready_addresses:
            pod = pod_at(ctx, address.ip, key.cluster)
            yield pod_endpoint(ctx, pod, address.ip, number, health, None, key.cluster)
