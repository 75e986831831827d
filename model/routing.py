"""
Routing rules: which VirtualService shapes a host for a scope (traffic.md VS-01, VS-50, 3.3).

The answer is a key, not the object, so that an edit inside a VirtualService stops at the virtual
hosts it shapes and does not wake those who only ask which one it is.
"""

from typing import NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.api.virtual_service import VirtualService
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.hosts import is_wildcard, matches, resolve_short_name, specificity
from pilothouse.model.inputs import VIRTUAL_SERVICES, host_index
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.scopes import EVERYWHERE, Scope, is_exported

MESH_GATEWAY = "mesh"


class RoutingQuestion(NamedTuple):
    """Clients of a namespace ask which VirtualService shapes a host."""

    namespace: str
    host: str


@query
def virtual_services_for(ctx: Ctx, host: str) -> tuple[VirtualService, ...]:
    """Return the mesh VirtualServices that name or cover a host, the oldest first."""
    found = {row.meta.key: row for row in ctx.where(VIRTUAL_SERVICES, "host", host)}
    suffix = f".svc.{ctx.get(domain, None)}"
    if host.endswith(suffix):
        name, _, namespace = host.removesuffix(suffix).partition(".")
        for row in ctx.where(VIRTUAL_SERVICES, "host", host_index(name, namespace)):
            found[row.meta.key] = row
    for row in ctx.where(VIRTUAL_SERVICES, "wildcard", True):
        if any(is_wildcard(h) and matches(h.lower(), host) for h in row.spec.hosts):
            found[row.meta.key] = row
    mesh_rows = (row for row in found.values() if is_for_mesh(row))
    return tuple(sorted(mesh_rows, key=lambda row: row.meta.age_order))


def is_for_mesh(row: VirtualService) -> bool:
    """Tell whether a VirtualService is for sidecars (VS-02)."""
    return not row.spec.gateways or MESH_GATEWAY in row.spec.gateways


def governing_virtual_service(ctx: Ctx, asked: RoutingQuestion) -> ObjectKey | None:
    """Return what `virtual_service_for` says, without a node per namespace for unrouted hosts."""
    return (
        ctx.get(virtual_service_for, asked) if ctx.get(virtual_services_for, asked.host) else None
    )


@query
def virtual_service_for(ctx: Ctx, asked: RoutingQuestion) -> ObjectKey | None:
    """
    Return the one VirtualService that owns a host for a namespace (VS-50).

    The most specific host wins; then one visible only to its own namespace, one exported by name,
    a public one; then the oldest.
    """
    default_export = ctx.get(mesh_config, None).default_virtual_service_export_to
    suffix = ctx.get(domain, None)
    ranked: list[tuple[tuple[int, int], int, VirtualService]] = []
    for row in ctx.get(virtual_services_for, asked.host):
        export_to = row.spec.export_to or default_export
        if not is_exported(export_to, row.meta.namespace, asked.namespace):
            continue
        hosts = (resolve_short_name(h, row.meta.namespace, suffix) for h in row.spec.hosts)
        best = max(specificity(host) for host in hosts if matches(host, asked.host))
        ranked.append((best, _reach(export_to, asked.namespace), row))
    if not ranked:
        return None
    ranked.sort(key=lambda item: (-item[0][0], -item[0][1], item[1], item[2].meta.age_order))
    _, reach, winner = ranked[0]
    for _, other_reach, loser in ranked[1:]:
        # One that is more widely visible still serves the others: being overridden is its point.
        if reach == other_reach and loser.spec.http and winner.spec.http and ranked[0][0][0]:
            _report_shadowed(ctx, winner, loser, asked.host)
    return winner.meta.key


def _reach(export_to: tuple[str, ...], namespace: str) -> int:
    if EVERYWHERE in export_to:
        return 2
    return 1 if namespace in export_to else 0


def _report_shadowed(ctx: Ctx, winner: VirtualService, loser: VirtualService, host: str) -> None:
    if any(is_wildcard(h) for h in loser.spec.hosts):
        return  # a wildcard is meant to be overridden
    ctx.report(
        Finding(
            Severity.WARNING,
            "ShadowedVirtualService",
            loser.meta.ref("spec.hosts"),
            f"VirtualService {winner.meta.ref().object_name} already routes {host}; "
            "sidecars use only that one.",
            "Merge the two, or make one a delegate of the other.",
        )
    )


@query
def virtual_service(ctx: Ctx, key: ObjectKey) -> VirtualService | None:
    """Return one VirtualService."""
    return ctx.row(VIRTUAL_SERVICES, key)


@query
def routed_hosts(ctx: Ctx, scope: Scope) -> tuple[str, ...]:
    """
    Return the hosts that VirtualServices visible to a scope name, in full, sorted.

    These get virtual hosts on port 80 even where no registry knows them (VS-01).
    """
    default_export = ctx.get(mesh_config, None).default_virtual_service_export_to
    suffix = ctx.get(domain, None)
    hosts: set[str] = set()
    for row in ctx.rows(VIRTUAL_SERVICES):
        export_to = row.spec.export_to or default_export
        if (
            row.spec.http
            and is_for_mesh(row)
            and is_exported(export_to, row.meta.namespace, scope.namespace)
        ):
            hosts.update(resolve_short_name(h, row.meta.namespace, suffix) for h in row.spec.hosts)
    return tuple(sorted(hosts))
