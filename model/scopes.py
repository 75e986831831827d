"""
Scopes: which services proxies see (traffic.md 3.1, 3.3).

A `Scope` is a client namespace and the Sidecar that shapes it; proxies of one scope see the same
services, so everything downstream is keyed by scope and not by proxy.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from pilothouse.api.meta import ObjectKey, selects
from pilothouse.api.sidecar import EgressListener as SidecarEgress
from pilothouse.api.sidecar import Sidecar, SidecarPort
from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.imports import EVERYTHING, Imports
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.mesh import mesh_config
from pilothouse.model.protocols import Protocol, declared_protocol
from pilothouse.model.routing import Clients, needed_hosts
from pilothouse.model.services import Resolution, Service, catalog
from pilothouse.model.sharding import Sharded
from pilothouse.model.visibility import EVERYWHERE, is_discovered, is_exported

EXPLICIT_PROXY = "HTTP_PROXY"
"""Protocol of an egress listener that serves every port, for clients that name host and port."""
UNIX = "unix://"


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

    `port` None is the catch-all. `bind` "" is the default; a path is a Unix socket, whose `port` is
    0. `is_captured` False means that the listener binds to its port itself. A listener with a port
    has services with that port only, unless it `has_all_ports`: an explicit proxy or a Unix socket,
    where clients name host and port.
    """

    services: tuple[Service, ...]
    imports: Imports = EVERYTHING
    port: int | None = None
    protocol: Protocol = Protocol.AUTO
    bind: str = ""
    is_captured: bool = True
    has_all_ports: bool = False
    path: str = ""


@query
def exported_services(ctx: Ctx, namespace: str) -> tuple[Service, ...]:
    """Return the services exported to a namespace, the oldest first; hosts may repeat."""
    return tuple(
        service
        for service in ctx.get(catalog, None)
        if is_exported(service.export_to, service.namespace, namespace)
    )


@query
def visible_services(ctx: Ctx, namespace: str) -> tuple[Service, ...]:
    """Return the services a namespace sees without a Sidecar, the oldest first, one per host."""
    return _one_per_host(ctx.get(exported_services, namespace), namespace)


def _one_per_host(services: tuple[Service, ...], namespace: str) -> tuple[Service, ...]:
    # The namespace's own, else a Kubernetes Service, else the oldest (traffic.md 3.1); within one
    # namespace a Kubernetes Service wins (SE-13).
    best: dict[str, Service] = {}
    for service in services:
        rival = best.get(service.host)
        if rival is None or _rank(service, namespace) > _rank(rival, namespace):
            best[service.host] = service
    if len(best) == len(services):
        return services
    return _sorted(best.values())


def _rank(service: Service, namespace: str) -> tuple[bool, bool]:
    return (service.namespace == namespace, service.is_kubernetes)


def _sorted(services: Iterable[Service]) -> tuple[Service, ...]:
    return tuple(sorted(services, key=lambda s: (s.age_order, s.key)))


@query
def sidecar_for(ctx: Ctx, asked: SidecarQuestion) -> ObjectKey | None:
    """Return the Sidecar of a workload: selected, else its namespace's, else the root's (SC-01)."""
    labels = dict(asked.labels)
    rows = _sidecars(ctx, asked.namespace)
    choices = [[row for row in rows if _selects(row, labels)], [r for r in rows if _is_for_all(r)]]
    root = ctx.get(mesh_config, None).root_namespace
    if root != asked.namespace and not any(choices):
        choices.append([row for row in _sidecars(ctx, root) if _is_for_all(row)])
    for chosen in choices:
        if chosen:
            for later in chosen[1:]:
                ctx.report(_ignored(later, chosen[0]))
            return chosen[0].meta.key
    return None


def _ignored(later: Sidecar, oldest: Sidecar) -> Finding:
    return Finding(
        Severity.WARNING,
        "SidecarIgnored",
        later.meta.ref("spec"),
        f"Sidecar {oldest.meta.ref().object_name} is older and is for some of the same workloads, "
        "which obey it alone.",
        "Join the two into one, or give them selectors that do not overlap.",
    )


def _selects(row: Sidecar, labels: dict[str, str]) -> bool:
    selector = row.spec.workload_selector
    return bool(selector and selector.labels and selects(selector.labels, labels))


def _sidecars(ctx: Ctx, namespace: str) -> list[Sidecar]:
    rows = ctx.where(SIDECARS, "namespace", namespace)
    if not rows or not is_discovered(ctx, namespace):
        return []
    return sorted(rows, key=lambda row: row.meta.age_order)


def _is_for_all(row: Sidecar) -> bool:
    return row.spec.workload_selector is None or not row.spec.workload_selector.labels


@query
def egress_listeners(ctx: Ctx, scope: Scope) -> tuple[EgressListener, ...]:
    """Return the egress listeners of a scope in order; without a Sidecar, one catch-all (SC-02)."""
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is None or not row.spec.egress:
        return (EgressListener(services=ctx.get(visible_services, scope.namespace)),)
    services = ctx.get(exported_services, scope.namespace)
    return tuple(
        _egress_listener(listener, services, scope.namespace, f"spec.egress[{index}]")
        for index, listener in enumerate(row.spec.egress)
    )


def _egress_listener(
    listener: SidecarEgress, services: tuple[Service, ...], namespace: str, path: str
) -> EgressListener:
    imports = Imports.parse(listener.hosts, namespace)
    owners = imports.namespaces
    imported = (
        each
        for each in services
        if (each.namespace in owners or EVERYWHERE in owners)
        and imports.has_service(each.namespace, each.host)
    )
    chosen = _one_per_host(tuple(imported), namespace)
    port = listener.port
    bind = listener.bind.removeprefix(UNIX)
    is_pipe = bind != listener.bind
    has_all_ports = _has_all_ports(listener)
    if port is not None and not has_all_ports:
        chosen = tuple(_with_ports(chosen, (port.number,)))
    return EgressListener(
        services=chosen,
        imports=imports,
        port=0 if is_pipe else port.number if port else None,
        protocol=_protocol(port),
        bind=bind,
        is_captured=listener.capture_mode != "NONE",
        has_all_ports=has_all_ports,
        path=path,
    )


def _has_all_ports(listener: SidecarEgress) -> bool:
    is_proxy = listener.port is not None and listener.port.protocol.upper() == EXPLICIT_PROXY
    return is_proxy or listener.bind.startswith(UNIX)


def clients_name_ports(ctx: Ctx, scope: Scope, port: int, bind: str) -> bool:
    """Tell whether requests on a port, or on a Unix socket, may be for services on any port."""
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    return any(
        _has_all_ports(each)
        and (each.bind == f"{UNIX}{bind}" if bind else bool(each.port and each.port.number == port))
        for each in (row.spec.egress if row else ())
    )


def _protocol(port: SidecarPort | None) -> Protocol:
    if port is None:
        return Protocol.AUTO
    is_proxy = port.protocol.upper() == EXPLICIT_PROXY
    return Protocol.HTTP if is_proxy else declared_protocol(port.protocol)


def _with_ports(services: Iterable[Service], numbers: tuple[int, ...]) -> Iterator[Service]:
    """Yield the services that have any of these ports, with these ports only; 0 stands for all."""
    for service in services:
        ports = tuple(port for port in service.ports if port.number in numbers)
        if 0 in numbers or len(ports) == len(service.ports):
            yield service
        elif ports:
            yield replace(service, ports=ports)


class PortQuestion(NamedTuple):
    """A port as clients of a scope call it."""

    scope: Scope
    port: int


@query
def clients_at_port(ctx: Ctx, asked: PortQuestion) -> Clients:
    """Return the clients of a scope with what the egress listener of a port imports."""
    scope, port = asked
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is None or not row.spec.egress:
        return Clients(scope.namespace)
    listeners = row.spec.egress
    own = next((each for each in listeners if each.port and each.port.number == port), None)
    own = own or next((each for each in listeners if each.port is None), None)
    return Clients(scope.namespace, Imports.parse(own.hosts if own else (), scope.namespace))


@firewall(5)
def scope_services(ctx: Ctx, scope: Scope) -> tuple[Service, ...]:
    """
    Return every service some egress listener of the scope carries, the oldest first.

    And what the VirtualServices they import send to, though nothing else calls it (3.3).
    """
    listeners = ctx.get(egress_listeners, scope)
    if listeners[0].port is None and listeners[0].imports == EVERYTHING:
        return listeners[0].services
    chosen: dict[str, Service] = {}
    for listener in listeners:
        for service in (*listener.services, *_needed(ctx, scope, listener)):
            first = chosen.setdefault(service.host, service)
            if first.key == service.key and first is not service:
                chosen[service.host] = _with_more_ports(first, service)
    return _sorted(chosen.values())


def _needed(ctx: Ctx, scope: Scope, listener: EgressListener) -> Iterator[Service]:
    wanted = ctx.get(needed_hosts, Clients(scope.namespace, listener.imports))
    if not wanted:
        return
    only = (listener.port,) if listener.port and not listener.has_all_ports else ()
    for host, ports in wanted.items():
        for found in _visible(ctx, scope.namespace, host):
            yield from _with_ports((found,), only or ports)
            if found.resolution is Resolution.ALIAS:
                yield from _with_ports(
                    _visible(ctx, scope.namespace, found.alias_of), only or ports
                )


@query
def services_by_host(ctx: Ctx, _key: None) -> dict[str, tuple[Service, ...]]:
    """Return the services of each host, the oldest first."""
    found: dict[str, tuple[Service, ...]] = {}
    for service in ctx.get(catalog, None):
        found[service.host] = (*found.get(service.host, ()), service)
    return found


def _visible(ctx: Ctx, namespace: str, host: str) -> tuple[Service, ...]:
    """Return the service of a host in `visible_services`, if there is one, without reading all."""
    exported = (
        service
        for service in ctx.item(services_by_host, None, host) or ()
        if is_exported(service.export_to, service.namespace, namespace)
    )
    return _one_per_host(tuple(exported), namespace)


def _with_more_ports(service: Service, other: Service) -> Service:
    if set(service.ports) <= set(other.ports):
        return other
    more = tuple(port for port in other.ports if port not in service.ports)
    return replace(service, ports=(*service.ports, *more)) if more else service


@query
def service_shards(ctx: Ctx, scope: Scope) -> Sharded[Service]:
    """Return the services of a scope in shards by host, each in the order of all."""
    return Sharded(ctx.get(scope_services, scope), lambda service: service.host)


class HostQuestion(NamedTuple):
    """A host as one scope sees it."""

    scope: Scope
    host: str


@firewall(6)
def scope_hosts(ctx: Ctx, scope: Scope) -> dict[str, Service]:
    """Return the services of a scope by host."""
    return {service.host: service for service in ctx.get(scope_services, scope)}


@query
def service_for_host(ctx: Ctx, asked: HostQuestion) -> Service | None:
    """Return the service a scope reaches by a host, through one ExternalName at most (K8-05)."""
    return reached(ctx, asked.scope, asked.host)


def reached(ctx: Ctx, scope: Scope, host: str) -> Service | None:
    """Return what `service_for_host` says, without a node of its own."""
    found = ctx.item(scope_hosts, scope, host)
    if found is not None and found.resolution is Resolution.ALIAS:
        return ctx.item(scope_hosts, scope, found.alias_of)
    return found


@query
def aliases_of(ctx: Ctx, asked: HostQuestion) -> tuple[str, ...]:
    """Return the hosts of ExternalName services that stand for a host, the oldest first (K8-05)."""
    return tuple(
        service.host
        for service in ctx.get(scope_services, asked.scope)
        if service.resolution is Resolution.ALIAS and service.alias_of == asked.host
    )
