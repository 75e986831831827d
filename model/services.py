"""
Services: what can be called, whether a Kubernetes Service or a ServiceEntry declared it.

One `Service` per host and declaring object; a name in several clusters is one. Who may see it, and
which of several wins a host, is the business of `pilothouse.model.scopes`; where it runs, of
`pilothouse.model.endpoints`.
"""

from dataclasses import replace
from typing import Final, NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.sessions import session_of
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.entry_visibility import capped
from pilothouse.model.inputs import SERVICE_ENTRIES, SERVICES
from pilothouse.model.kubernetes_services import kubernetes_service
from pilothouse.model.mesh import mesh_config
from pilothouse.model.protocols import declared_protocol
from pilothouse.model.provenance import Source
from pilothouse.model.service import Port, Registry, Resolution, Service, ServiceKey
from pilothouse.model.topology import distribution
from pilothouse.model.visibility import is_discovered

__all__ = [
    "Port",
    "Registry",
    "Resolution",
    "Service",
    "ServiceKey",
    "catalog",
    "entries_of_host",
    "entry_services",
    "kubernetes_service",
    "merged_entries",
    "service",
]

_RESOLUTIONS: Final = {
    "": Resolution.ORIGINAL_DESTINATION,
    "NONE": Resolution.ORIGINAL_DESTINATION,
    "STATIC": Resolution.ENDPOINTS,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.DYNAMIC_DNS,
}


@query
def entry_services(ctx: Ctx, key: ObjectKey) -> tuple[Service, ...]:
    """Return the services a ServiceEntry declares, one per host (SE-01 to SE-10)."""
    row = ctx.row(SERVICE_ENTRIES, key)
    if row is None or not is_discovered(ctx, key.namespace):
        return ()
    spec = row.spec
    resolution = _RESOLUTIONS[spec.resolution]
    selector = spec.workload_selector
    preferred = distribution(ctx, row.meta)
    wanted = spec.export_to or ctx.get(mesh_config, None).default_service_export_to
    export_to = capped(ctx, Source.of(row.meta), wanted)
    return tuple(
        Service(
            key=ServiceKey(Registry.EXTERNAL, key.namespace, key.name, host.lower()),
            ports=_entry_ports(row),
            resolution=resolution,
            vips=tuple(_without_full_mask(address) for address in spec.addresses),
            export_to=export_to,
            age_order=row.meta.age_order,
            source=Source.of(row.meta),
            selector=tuple(sorted(selector.labels.items())) if selector else None,
            is_mesh_external=spec.location != "MESH_INTERNAL",
            labels=tuple(sorted(row.meta.labels.items())),
            distribution=preferred,
            session=session_of(row.meta.labels),
        )
        for host in dict.fromkeys(spec.hosts)
    )


def _without_full_mask(address: str) -> str:
    # A range of one address is that address (SE-03).
    for mask in ("/32", "/128"):
        if address.endswith(mask) and (":" in address) == (mask == "/128"):
            return address.removesuffix(mask)
    return address


def _entry_ports(row: ServiceEntry) -> tuple[Port, ...]:
    return tuple(
        Port(
            number=port.number,
            name=port.name,
            protocol=declared_protocol(port.protocol),
            target=port.target_port or None,
        )
        for port in row.spec.ports
    )


class HostKey(NamedTuple):
    """A host as ServiceEntries of one namespace declare it."""

    namespace: str
    host: str


@query
def merged_entries(ctx: Ctx, key: HostKey) -> tuple[Service, ...]:
    """
    Return what the ServiceEntries of a namespace make of one host, the oldest first.

    Entries that agree on all but their ports are one service with the ports of all (traffic.md
    3.1, model/sidecar:canMergeServices); of several others clients see the first.
    """
    found: list[Service] = []
    for row in ctx.where(SERVICE_ENTRIES, "host", key.host):
        if row.meta.namespace == key.namespace:
            declared = ctx.get_or_none(entry_services, row.meta.key) or ()
            found.extend(each for each in declared if each.host == key.host)
    found.sort(key=lambda each: (each.age_order, each.key))
    merged: list[Service] = []
    for each in found:
        first = next((i for i, other in enumerate(merged) if _agree(other, each)), None)
        if first is not None:
            merged[first] = _with_ports(merged[first], each.ports)
            continue
        if merged:
            ctx.report(_shadowed(each, merged[0]))
        merged.append(each)
    return tuple(merged)


def _agree(one: Service, other: Service) -> bool:
    return (one.resolution, one.labels, one.selector, set(one.export_to)) == (
        other.resolution,
        other.labels,
        other.selector,
        set(other.export_to),
    )


def _with_ports(owner: Service, ports: tuple[Port, ...]) -> Service:
    added = tuple(port for port in ports if owner.port(port.number) is None)
    return replace(owner, ports=(*owner.ports, *added))


def _shadowed(loser: Service, winner: Service) -> Finding:
    return Finding(
        Severity.WARNING,
        "ShadowedServiceEntry",
        loser.source.at("spec.hosts").ref,
        f"{winner.source.ref} already declares {loser.host}; only endpoints for ports of the same "
        "name are added to it.",
        "Use one entry per host, or the same resolution, labels, workloadSelector and exportTo.",
    )


def entries_of_host(ctx: Ctx, namespace: str, host: str) -> list[ServiceEntry]:
    """Return the ServiceEntries of a namespace that name a host, the oldest first."""
    rows = ctx.where(SERVICE_ENTRIES, "host", host)
    return sorted(
        (row for row in rows if row.meta.namespace == namespace), key=lambda row: row.meta.age_order
    )


@query
def service(ctx: Ctx, key: ServiceKey) -> Service | None:
    """Return one service."""
    owner = ObjectKey(key.namespace, key.name)
    if key.registry == Registry.KUBERNETES:
        return ctx.get(kubernetes_service, owner)
    if len(entries_of_host(ctx, key.namespace, key.host)) > 1:
        declared = ctx.get(merged_entries, HostKey(key.namespace, key.host))
    else:
        declared = ctx.get(entry_services, owner)
    return next((s for s in declared if s.key == key), None)


@query
def catalog(ctx: Ctx, _key: None) -> tuple[Service, ...]:
    """Return every service, the oldest first (traffic.md 3.1)."""
    found: list[Service] = []
    # A name in several clusters is one service.
    names = dict.fromkeys(k._replace(cluster="") if k.cluster else k for k in ctx.keys(SERVICES))
    for key in names:
        kube = ctx.get_or_none(kubernetes_service, key)
        if kube is not None:
            found.append(kube)
    by_host: dict[HostKey, list[Service]] = {}
    for key in ctx.keys(SERVICE_ENTRIES):
        for each in ctx.get_or_none(entry_services, key) or ():
            by_host.setdefault(HostKey(each.namespace, each.host), []).append(each)
    for host, declared in by_host.items():
        found.extend(declared if len(declared) == 1 else ctx.get(merged_entries, host))
    resolved = _with_final_targets(ctx, found)
    return tuple(sorted(resolved, key=lambda s: (s.age_order, s.key)))


def _with_final_targets(ctx: Ctx, services: list[Service]) -> list[Service]:
    # An ExternalName may name another; each then stands for the end of the chain (K8-05).
    targets = {each.host: each.alias_of for each in services if each.alias_of}
    if not targets:
        return services
    resolved = []
    for each in services:
        if each.alias_of in targets:
            each = replace(each, alias_of=_end_of_chain(each.host, targets))  # noqa: PLW2901
            if not each.alias_of:
                ctx.report(_loop(each))
        resolved.append(each)
    return resolved


def _end_of_chain(host: str, targets: dict[str, str]) -> str:
    seen: set[str] = set()
    while host in targets:
        if host in seen:
            return ""
        seen.add(host)
        host = targets[host]
    return host


def _loop(alias: Service) -> Finding:
    return Finding(
        Severity.WARNING,
        "AliasLoop",
        alias.source.at("spec.externalName").ref,
        f"{alias.host} stands for a service that in the end stands for {alias.host}; it is not "
        "served.",
        "Name a service that is no ExternalName.",
    )
