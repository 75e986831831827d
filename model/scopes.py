"""
Who sees what: exportTo, one service per host, and Sidecar scopes (traffic.md 3.1, 3.3).

A `Scope` is a client namespace and the Sidecar that shapes it; proxies of one scope see the same
services, so everything downstream is keyed by scope and not by proxy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pilothouse.api.meta import ObjectKey, selects
from pilothouse.api.sidecar import EgressListener as SidecarEgress
from pilothouse.api.sidecar import Sidecar
from pilothouse.graph.core import Ctx, query
from pilothouse.model.hosts import matches
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.mesh import mesh_config
from pilothouse.model.protocols import Protocol, declared_protocol
from pilothouse.model.services import Resolution, Service, catalog

EVERYWHERE: Final = "*"
OWN_NAMESPACE: Final = "."
NOWHERE: Final = "~"


class Scope(NamedTuple):
    """A client namespace, and the Sidecar (if any) that limits what its proxies see."""

    namespace: str
    sidecar: ObjectKey | None = None


class SidecarQuestion(NamedTuple):
    """A workload of a namespace with these labels (sorted pairs) asks for its Sidecar."""

    namespace: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressListener:
    """
    Services a scope may call through one egress listener.

    `port` None is the catch-all. `bind` "" is the default; `is_captured` False means that the
    listener binds to its port itself.
    """

    services: tuple[Service, ...]
    port: int | None = None
    protocol: Protocol = Protocol.AUTO
    bind: str = ""
    is_captured: bool = True
    path: str = ""


def is_exported(export_to: tuple[str, ...], owner: str, client: str) -> bool:
    """Tell whether an object of namespace `owner` is visible to namespace `client`."""
    for entry in export_to:
        if entry in (EVERYWHERE, client) or (entry == OWN_NAMESPACE and owner == client):
            return True
    return False


@query
def visible_services(ctx: Ctx, namespace: str) -> tuple[Service, ...]:
    """
    Return the services a namespace may see, the oldest first, one per host.

    Of several with one host: the namespace's own, else a Kubernetes Service, else the oldest
    (traffic.md 3.1); within one namespace a Kubernetes Service wins (SE-13).
    """
    best: dict[str, Service] = {}
    for service in ctx.get(catalog, None):
        if not is_exported(service.export_to, service.namespace, namespace):
            continue
        rival = best.get(service.host)
        if rival is None or _rank(service, namespace) > _rank(rival, namespace):
            best[service.host] = service
    return tuple(sorted(best.values(), key=lambda s: (s.age_order, s.key)))


def _rank(service: Service, namespace: str) -> tuple[bool, bool]:
    return (service.namespace == namespace, service.is_kubernetes)


@query
def sidecar_for(ctx: Ctx, asked: SidecarQuestion) -> ObjectKey | None:
    """Return the Sidecar of a workload: selected, else its namespace's, else the root's (SC-01)."""
    labels = dict(asked.labels)
    rows = sorted(
        ctx.where(SIDECARS, "namespace", asked.namespace), key=lambda row: row.meta.age_order
    )
    for row in rows:
        selector = row.spec.workload_selector
        if selector and selector.labels and selects(selector.labels, labels):
            return row.meta.key
    for row in rows:
        if _is_for_all(row):
            return row.meta.key
    root = ctx.get(mesh_config, None).root_namespace
    if root != asked.namespace:
        shared = sorted(ctx.where(SIDECARS, "namespace", root), key=lambda row: row.meta.age_order)
        for row in shared:
            if _is_for_all(row):
                return row.meta.key
    return None


def _is_for_all(row: Sidecar) -> bool:
    return row.spec.workload_selector is None or not row.spec.workload_selector.labels


@query
def egress_listeners(ctx: Ctx, scope: Scope) -> tuple[EgressListener, ...]:
    """Return the egress listeners of a scope in order; without a Sidecar, one catch-all (SC-02)."""
    services = ctx.get(visible_services, scope.namespace)
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is None or not row.spec.egress:
        return (EgressListener(services=services),)
    return tuple(
        _egress_listener(listener, services, scope.namespace, f"spec.egress[{index}]")
        for index, listener in enumerate(row.spec.egress)
    )


def _egress_listener(
    listener: SidecarEgress, services: tuple[Service, ...], namespace: str, path: str
) -> EgressListener:
    chosen = tuple(
        service
        for service in services
        if any(_imports(entry, service, namespace) for entry in listener.hosts)
        and not any(
            entry.startswith(NOWHERE) and _imports(entry[1:], service, namespace)
            for entry in listener.hosts
        )
    )
    port = listener.port
    if port is not None:
        chosen = tuple(s for s in chosen if s.port(port.number) is not None)
    return EgressListener(
        services=chosen,
        port=port.number if port else None,
        protocol=declared_protocol(port.protocol) if port else Protocol.AUTO,
        bind=listener.bind,
        is_captured=listener.capture_mode != "NONE",
        path=path,
    )


def _imports(entry: str, service: Service, namespace: str) -> bool:
    owner, _, pattern = entry.partition("/")
    if owner == OWN_NAMESPACE:
        owner = namespace
    return owner in (EVERYWHERE, service.namespace) and matches(pattern, service.host)


@query
def scope_services(ctx: Ctx, scope: Scope) -> tuple[Service, ...]:
    """Return every service some egress listener of the scope carries, the oldest first."""
    listeners = ctx.get(egress_listeners, scope)
    if len(listeners) == 1:
        return listeners[0].services
    chosen = {service.key: service for listener in listeners for service in listener.services}
    return tuple(sorted(chosen.values(), key=lambda s: (s.age_order, s.key)))


class HostQuestion(NamedTuple):
    """A host as one scope sees it."""

    scope: Scope
    host: str


@query
def scope_hosts(ctx: Ctx, scope: Scope) -> dict[str, Service]:
    """Return the services of a scope by host."""
    return {service.host: service for service in ctx.get(scope_services, scope)}


@query
def service_for_host(ctx: Ctx, asked: HostQuestion) -> Service | None:
    """Return the service a scope reaches by a host, through one ExternalName at most (K8-05)."""
    return reached(ctx.get(scope_hosts, asked.scope), asked.host)


def reached(hosts: Mapping[str, Service], host: str) -> Service | None:
    """Return what `service_for_host` says, for a query that ends the wave of changes itself."""
    found = hosts.get(host)
    if found is not None and found.resolution is Resolution.ALIAS:
        return hosts.get(found.alias_of)
    return found


@query
def aliases_of(ctx: Ctx, asked: HostQuestion) -> tuple[str, ...]:
    """Return the hosts of ExternalName services that stand for a host, the oldest first (K8-05)."""
    return tuple(
        service.host
        for service in ctx.get(scope_services, asked.scope)
        if service.resolution is Resolution.ALIAS and service.alias_of == asked.host
    )
