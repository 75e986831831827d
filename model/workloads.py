"""
Workloads: what a proxy stands in front of.

Finds a proxy's labels and the service ports it serves from the registry, with what the proxy said
of itself as the fallback (traffic.md K8-18, NM-02).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pilothouse.api.kubernetes_core import Pod
from pilothouse.api.meta import ObjectKey, selects
from pilothouse.graph.core import Ctx, query
from pilothouse.model.endpoints import pod_at
from pilothouse.model.inputs import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    SERVICE_ENTRIES,
    SERVICE_LABEL,
    SERVICES,
    WORKLOAD_ENTRIES,
)
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import Proxy
from pilothouse.model.services import (
    Port,
    Service,
    entry_services,
    kubernetes_service,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A service port that a workload serves, and the number it listens on."""

    service: Service
    port: Port
    number: int


@query
def workload_labels(ctx: Ctx, proxy: Proxy) -> tuple[tuple[str, str], ...]:
    """Return a proxy's labels, sorted: the registry's if it knows the workload, else its own."""
    for ip in proxy.ips:
        pod = pod_at(ctx, ip)
        if pod is not None and pod.meta.namespace == proxy.namespace:
            return tuple(sorted(pod.meta.labels.items()))
        for entry in ctx.where(WORKLOAD_ENTRIES, "address", ip):
            if entry.meta.namespace == proxy.namespace:
                return tuple(sorted(entry.all_labels.items()))
    return proxy.labels


@query
def targets(ctx: Ctx, proxy: Proxy) -> tuple[Target, ...]:
    """Return the service ports a workload serves, the oldest service first (LS-14)."""
    labels = dict(ctx.get(workload_labels, proxy))
    pod = next((p for p in (pod_at(ctx, ip) for ip in proxy.ips) if p), None)
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
    return tuple(result)


def _selecting(ctx: Ctx, proxy: Proxy, labels: dict[str, str]) -> Iterator[Service]:
    for row in ctx.where(SERVICES, "namespace", proxy.namespace):
        if row.spec.selector and selects(row.spec.selector, labels):
            service = ctx.get_or_none(kubernetes_service, row.meta.key)
            if service is not None:
                yield service
    for entry in ctx.where(SERVICE_ENTRIES, "namespace", proxy.namespace):
        selector = entry.spec.workload_selector
        if selector and selector.labels and selects(selector.labels, labels):
            yield from ctx.get_or_none(entry_services, entry.meta.key) or ()


def _listing(ctx: Ctx, proxy: Proxy) -> Iterator[Service]:
    # A service that lists the proxy's address itself, by slice, Endpoints or inline endpoint.
    names: set[ObjectKey] = set()
    for ip in proxy.ips:
        for row in ctx.where(ENDPOINT_SLICES, "address", ip):
            owner = row.meta.labels.get(SERVICE_LABEL)
            if owner:
                names.add(ObjectKey(row.meta.namespace, owner))
        names.update(row.meta.key for row in ctx.where(ENDPOINTS, "address", ip))
        for entry in ctx.where(SERVICE_ENTRIES, "address", ip):
            yield from ctx.get_or_none(entry_services, entry.meta.key) or ()
    for key in sorted(names):
        service = ctx.get_or_none(kubernetes_service, key)
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
            return None  # a container port's name says nothing without the pod (K8-04)
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
            for row in ctx.where(ENDPOINT_SLICES, "address", ip):
                if row.meta.labels.get(SERVICE_LABEL) != owner.name:
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
