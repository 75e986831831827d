"""
Workloads: what a proxy stands in front of.

Finds a proxy's labels and the service ports it serves from the registry, with what the proxy said
of itself as the fallback (traffic.md K8-18, NM-02).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pilothouse.api.kubernetes_core import Pod
from pilothouse.api.meta import ObjectKey, selects
from pilothouse.api.workload import WorkloadEntry
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.clusters import placed
from pilothouse.model.inputs import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    PODS,
    SERVICE_ENTRIES,
    SERVICES,
    WORKLOAD_ENTRIES,
    service_of_slice,
)
from pilothouse.model.kubernetes_services import service_in_cluster
from pilothouse.model.mesh import known_clusters
from pilothouse.model.pod_endpoints import is_finished, pod_at
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import Locality, Proxy
from pilothouse.model.registration import entry_key
from pilothouse.model.services import Port, Service, entry_services
from pilothouse.model.topology import node_locality
from pilothouse.model.topology_labels import WHERE_LABELS, labelled_locality, with_topology
from pilothouse.model.topology_networks import home_of, network_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service port that a workload serves, and the number it listens on."""

    service: Service
    port: Port
    number: int


@query
def workload_labels(ctx: Ctx, proxy: Proxy) -> tuple[tuple[str, str], ...]:
    """Return a proxy's labels, sorted: the registry's if it knows the workload, else its own."""
    pod = pod_of(ctx, proxy)
    if pod is not None:
        return tuple(sorted(pod.meta.labels.items()))
    entry = entry_of(ctx, proxy)
    return tuple(sorted(entry.all_labels.items())) if entry else proxy.labels


def cluster_of_proxy(ctx: Ctx, proxy: Proxy) -> str:
    """Return the cluster a proxy is in, as keys have it: the one it names, if known (NM-04)."""
    return ctx.get(known_clusters, None).key_of(proxy.cluster_id)


def pod_of(ctx: Ctx, proxy: Proxy) -> Pod | None:
    """Return a proxy's pod: by name, which host-network pods need, else by address (K8-16)."""
    cluster = cluster_of_proxy(ctx, proxy)
    named = ctx.row(PODS, ObjectKey(proxy.namespace, proxy.name, cluster))
    if named is not None and not is_finished(named):
        return named
    for ip in proxy.ips:
        pod = pod_at(ctx, ip, cluster)
        if pod is not None and pod.meta.namespace == proxy.namespace:
            return pod
    return None


def entry_of(ctx: Ctx, proxy: Proxy) -> WorkloadEntry | None:
    """Return a proxy's WorkloadEntry: the one it names, else of its address and cluster or ours."""
    key = entry_key(proxy)
    own = ctx.row(WORKLOAD_ENTRIES, key) if key is not None else None
    if own is not None:
        return own
    for cluster in dict.fromkeys((cluster_of_proxy(ctx, proxy), "")):
        for ip in proxy.ips:
            for entry in ctx.where(WORKLOAD_ENTRIES, "address", ip):
                if (entry.meta.namespace, entry.meta.cluster) == (proxy.namespace, cluster):
                    return entry
    return None


def where_it_runs(ctx: Ctx, proxy: Proxy) -> dict[str, str]:
    """Return a proxy's labels, those of topology among them; the registry knows best (NM-26)."""
    labels = dict(ctx.get(workload_labels, proxy))
    pod = pod_of(ctx, proxy)
    entry = entry_of(ctx, proxy) if pod is None else None
    node = proxy.node_name or (pod.spec.node_name if pod else "")
    locality = None
    if entry is not None and entry.spec.locality:
        locality = Locality.parse(entry.spec.locality)
    locality = locality or labelled_locality(labels)
    if locality is None and pod is not None and pod.spec.node_name:
        locality = ctx.get(node_locality, placed(pod.spec.node_name, pod.meta.cluster))
    if not locality:
        is_labelled = any(labels.get(name) for name in WHERE_LABELS)
        locality = Locality() if is_labelled else proxy.locality
    home = ctx.get(home_of, pod.meta.cluster if pod else "")
    network = network_at(ctx, proxy.ips[0], home) if pod else entry.spec.network if entry else ""
    network = network or proxy.network
    clusters = ctx.get(known_clusters, None)
    # Workloads may be labelled with clusters that nothing else is known of; these proxies say it.
    said = "" if clusters.others else proxy.cluster_id
    cluster = said or clusters.name_of(cluster_of_proxy(ctx, proxy))
    return with_topology(labels, locality, node=node, network=network, cluster=cluster)


@query
def targets(ctx: Ctx, proxy: Proxy) -> tuple[Target, ...]:
    """Return the service ports a workload serves, the oldest service first (LS-14)."""
    labels = dict(ctx.get(workload_labels, proxy))
    pod = pod_of(ctx, proxy)
    found: dict[object, Service] = {}
    for service in _selecting(ctx, proxy, labels):
        found[service.key] = service
    for service in _listing(ctx, proxy):
        found.setdefault(service.key, service)
    result = []
    for service in sorted(found.values(), key=lambda s: (s.age_order, s.key)):
        for port in service.ports:
            number = _target_number(ctx, proxy, pod, service, port)
            if port.protocol is not Protocol.UDP and number:
                result.append(Target(service=service, port=port, number=number))
    if not result and proxy.registration is not None and proxy.registration.group:
        ctx.report(_serves_nothing(proxy.namespace, proxy.registration.group))
    return tuple(result)


def _serves_nothing(namespace: str, group: str) -> Finding:
    return Finding(
        Severity.INFO,
        "GroupServesNothing",
        ConfigRef("WorkloadGroup", namespace, group, "spec.metadata.labels"),
        "No service selects a workload that is registered in the group.",
        "Give the group the labels that a Service or ServiceEntry of its namespace selects.",
    )


def _selecting(ctx: Ctx, proxy: Proxy, labels: dict[str, str]) -> Iterator[Service]:
    cluster = cluster_of_proxy(ctx, proxy)
    for row in ctx.where(SERVICES, "namespace", placed(proxy.namespace, cluster)):
        if row.spec.selector and selects(row.spec.selector, labels):
            service = service_in_cluster(ctx, row.meta.key)
            if service is not None:
                yield service
    for entry in ctx.where(SERVICE_ENTRIES, "namespace", proxy.namespace):
        selector = entry.spec.workload_selector
        if selector and selector.labels and selects(selector.labels, labels):
            yield from ctx.get_or_none(entry_services, entry.meta.key) or ()


def _listing(ctx: Ctx, proxy: Proxy) -> Iterator[Service]:
    # A service that lists the proxy's address itself, by slice, Endpoints or inline endpoint.
    names: set[ObjectKey] = set()
    cluster = cluster_of_proxy(ctx, proxy)
    for ip in proxy.ips:
        place = placed(ip, cluster)
        for row in ctx.where(ENDPOINT_SLICES, "address", place):
            owner = service_of_slice(row)
            if owner:
                names.add(ObjectKey(row.meta.namespace, owner, cluster))
        names.update(row.meta.key for row in ctx.where(ENDPOINTS, "address", place))
        for entry in ctx.where(SERVICE_ENTRIES, "address", ip):
            yield from ctx.get_or_none(entry_services, entry.meta.key) or ()
    for key in sorted(names):
        service = service_in_cluster(ctx, key)
        if service is not None:
            yield service


def _target_number(
    ctx: Ctx, proxy: Proxy, pod: Pod | None, service: Service, port: Port
) -> int | None:
    listed = _listed_number(ctx, proxy, service, port)
    if listed:
        return listed
    if isinstance(port.target, str):
        if pod is None:
            # Without the pod only an entry, and the proxy itself, know ports by name (WE-06,
            # K8-04, NM-10).
            entry = entry_of(ctx, proxy)
            named = entry.spec.ports if entry else {}
            return named.get(port.target) or dict(proxy.ports).get(port.target)
        return next(
            (
                p.container_port
                for container in pod.spec.containers
                for p in container.ports
                if p.name == port.target
            ),
            None,
        )
    return port.target or port.number


def _listed_number(ctx: Ctx, proxy: Proxy, service: Service, port: Port) -> int | None:
    owner = ObjectKey(service.namespace, service.key.name)
    for ip in proxy.ips:
        if service.is_kubernetes:
            place = placed(ip, cluster_of_proxy(ctx, proxy))
            for row in ctx.where(ENDPOINT_SLICES, "address", place):
                if service_of_slice(row) != owner.name:
                    continue
                for listed in row.ports or ():
                    if (listed.name or "") == port.name and row.meta.namespace == owner.namespace:
                        return listed.port
            continue
        entry = ctx.row(SERVICE_ENTRIES, owner)
        for endpoint in entry.spec.endpoints if entry else ():
            if endpoint.address == ip and port.name in endpoint.ports:
                return endpoint.ports[port.name]
    for ip in proxy.ips:
        for workload in ctx.where(WORKLOAD_ENTRIES, "address", ip):
            if workload.meta.namespace == proxy.namespace and port.name in workload.spec.ports:
                return workload.spec.ports[port.name]
    return None
