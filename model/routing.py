"""
Routing rules: which VirtualServices shape a host for clients (traffic.md VS-01, VS-50, 3.3).

Works on summaries (`Routing`) and answers with keys, so that an edit inside a VirtualService stops
at what it shapes and does not wake those who only ask which one it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.api.virtual_service import Destination, HttpRoute, VirtualService
from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.delegation import Rule, http_rules
from pilothouse.model.hosts import is_wildcard, matches, resolve_short_name, specificity
from pilothouse.model.imports import EVERYTHING, Imports
from pilothouse.model.inputs import VIRTUAL_SERVICES, host_index
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.visibility import is_discovered, is_exported, reach

MESH_GATEWAY = "mesh"


class Need(NamedTuple):
    """
    A host that rules send requests to.

    `port` 0 stands for all its ports. `clients` are the namespaces the rule is for, empty for all.
    """

    host: str
    port: int
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """
    What others than its own virtual hosts need to know of a VirtualService for sidecars.

    `hosts` are full names. `is_certain`: every client gets a route from its HTTP rules on every
    port, so that a second VirtualService for a host is never looked at.
    """

    ref: ConfigRef
    age_order: tuple[str, str, str]
    hosts: tuple[str, ...]
    export_to: tuple[str, ...]
    has_http: bool
    has_connections: bool
    is_certain: bool
    is_for_sidecars_only: bool

    @property
    def key(self) -> ObjectKey:
        """The VirtualService."""
        return ObjectKey(self.ref.namespace, self.ref.name)


class Clients(NamedTuple):
    """Clients of a namespace, and what their egress listener imports."""

    namespace: str
    imports: Imports = EVERYTHING


class RoutingQuestion(NamedTuple):
    """Which VirtualServices shape a host for these clients."""

    clients: Clients
    host: str


@query
def virtual_service(ctx: Ctx, key: ObjectKey) -> VirtualService | None:
    """Return one VirtualService as written."""
    return ctx.row(VIRTUAL_SERVICES, key)


@firewall(1)
def routing(ctx: Ctx, key: ObjectKey) -> Routing | None:
    """Return the summary of a VirtualService; None if it is not for sidecars."""
    row = ctx.row(VIRTUAL_SERVICES, key)
    if row is None or not row.spec.hosts or not is_for_mesh(row):
        return None
    if not is_discovered(ctx, key.namespace):
        return None
    suffix = ctx.get(domain, None)
    rules = ctx.get(http_rules, key)
    hosts = (resolve_short_name(host, key.namespace, suffix) for host in row.spec.hosts)
    return Routing(
        ref=row.meta.ref(),
        age_order=row.meta.age_order,
        hosts=tuple(dict.fromkeys(hosts)),
        export_to=row.spec.export_to
        or ctx.get(mesh_config, None).default_virtual_service_export_to,
        has_http=bool(rules),
        has_connections=bool(row.spec.tls or row.spec.tcp),
        is_certain=any(_is_certain(rule.http) for rule in rules),
        is_for_sidecars_only=set(row.spec.gateways) <= {MESH_GATEWAY},
    )


@firewall(1)
def needs(ctx: Ctx, key: ObjectKey) -> tuple[Need, ...]:
    """Return what a VirtualService sends to, by full hosts."""
    row = ctx.row(VIRTUAL_SERVICES, key)
    if row is None:
        return ()
    suffix = ctx.get(domain, None)
    found = (
        each._replace(host=resolve_short_name(each.host, key.namespace, suffix))
        for each in _needs(row, ctx.get(http_rules, key))
    )
    return tuple(dict.fromkeys(found))


def is_for_mesh(row: VirtualService) -> bool:
    """Tell whether a VirtualService is for sidecars (VS-02)."""
    return not row.spec.gateways or MESH_GATEWAY in row.spec.gateways


def _is_certain(http: HttpRoute) -> bool:
    return not http.match or any(
        match.is_for_all or (MESH_GATEWAY in match.gateways and not match.port)
        for match in http.match
    )


def _needs(row: VirtualService, rules: tuple[Rule, ...]) -> Iterator[Need]:
    for rule in rules:
        http = rule.http
        sources = [match.source_namespace for match in http.match]
        clients = () if "" in sources else tuple(dict.fromkeys(sources))
        mirrors = [http.mirror] if http.mirror else []
        mirrors.extend(each.destination for each in http.mirrors)
        for to in (*(each.destination for each in http.route), *mirrors):
            yield _need(to, clients)
    connections = (*(tls.route for tls in row.spec.tls), *(tcp.route for tcp in row.spec.tcp))
    for destinations in connections:
        for each in destinations:
            yield _need(each.destination, ())


def _need(to: Destination, clients: tuple[str, ...]) -> Need:
    return Need(to.host, to.port.number if to.port else 0, clients)


@firewall(2)
def routings(ctx: Ctx, _key: None) -> tuple[Routing, ...]:
    """Return the summaries of all VirtualServices for sidecars, the oldest first."""
    found = (ctx.get_or_none(routing, key) for key in ctx.keys(VIRTUAL_SERVICES))
    return tuple(sorted((each for each in found if each), key=lambda each: each.age_order))


@firewall(2)
def routings_for(ctx: Ctx, host: str) -> tuple[Routing, ...]:
    """Return the VirtualServices for sidecars that name or cover a host, the oldest first."""
    keys = {row.meta.key: None for row in ctx.where(VIRTUAL_SERVICES, "host", host)}
    suffix = f".svc.{ctx.get(domain, None)}"
    if host.endswith(suffix):
        name, _, namespace = host.removesuffix(suffix).partition(".")
        for row in ctx.where(VIRTUAL_SERVICES, "host", host_index(name, namespace)):
            keys[row.meta.key] = None
    for row in ctx.where(VIRTUAL_SERVICES, "wildcard", True):
        if any(is_wildcard(each) and matches(each.lower(), host) for each in row.spec.hosts):
            keys[row.meta.key] = None
    found = (ctx.get_or_none(routing, key) for key in keys)
    return tuple(sorted((each for each in found if each), key=lambda each: each.age_order))


def http_virtual_services(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    """Return what `_http_candidates` says, without a node for each client of an unrouted host."""
    return ctx.get(_http_candidates, asked) if ctx.get(routings_for, asked.host) else ()


def connection_virtual_services(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    """Return what `_connection_candidates` says, without a node for each client likewise."""
    return ctx.get(_connection_candidates, asked) if ctx.get(routings_for, asked.host) else ()


@firewall(3)
def _http_candidates(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    """
    Return the VirtualServices whose HTTP rules may shape a host, the first choice first (VS-50).

    The first that has a route for the port and client takes the virtual host, alone. Those that
    name the host come before all wildcards, of which only the most specific counts; among equals
    one exported to the own namespace only, then one exported by name, then a public one; then the
    oldest.
    """
    found = [each for each in _in_order(ctx, asked) if each.has_http]
    named = [each for each in found if asked.host in each.hosts]
    if not named:
        found.sort(key=lambda each: _best_match(each, asked.host), reverse=True)
        return tuple(each.key for each in found[:1])
    first = next((i for i, each in enumerate(named) if each.is_certain), len(named) - 1)
    winner = named[first]
    client = asked.clients.namespace
    for loser in named[first + 1 :]:
        # One that is more widely visible still serves the others: being overridden is its point.
        if reach(loser.export_to, client) == reach(winner.export_to, client):
            ctx.report(_shadowed(winner, loser, asked.host))
    return tuple(each.key for each in named[: first + 1])


@firewall(3)
def _connection_candidates(ctx: Ctx, asked: RoutingQuestion) -> tuple[ObjectKey, ...]:
    """Return the VirtualServices with TLS or TCP rules for a host; all of them apply, in order."""
    return tuple(each.key for each in _in_order(ctx, asked) if each.has_connections)


def _in_order(ctx: Ctx, asked: RoutingQuestion) -> list[Routing]:
    seen = [each for each in ctx.get(routings_for, asked.host) if _is_seen(each, asked.clients)]
    return sorted(seen, key=lambda each: reach(each.export_to, asked.clients.namespace))


def _is_seen(each: Routing, clients: Clients) -> bool:
    return is_exported(each.export_to, each.key.namespace, clients.namespace) and (
        clients.imports == EVERYTHING or clients.imports.has_rules(each.key.namespace, each.hosts)
    )


def _best_match(each: Routing, host: str) -> tuple[int, int]:
    return max(specificity(pattern) for pattern in each.hosts if matches(pattern, host))


def _shadowed(winner: Routing, loser: Routing, host: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "ShadowedVirtualService",
        loser.ref.at("spec.hosts"),
        f"VirtualService {winner.ref.object_name} already routes {host}; "
        "sidecars use only that one.",
        "Merge the two, or make one a delegate of the other.",
    )


@firewall(3)
def routed_hosts(ctx: Ctx, clients: Clients) -> tuple[str, ...]:
    """
    Return the hosts with HTTP rules that these clients see, in full, sorted.

    These get virtual hosts on port 80 even where no registry knows them (VS-01).
    """
    hosts: set[str] = set()
    for each in ctx.get(routings, None):
        if each.has_http and _is_seen(each, clients):
            hosts.update(each.hosts)
    return tuple(sorted(hosts))


@firewall(3)
def routings_with_needs(ctx: Ctx, _key: None) -> tuple[tuple[Routing, tuple[Need, ...]], ...]:
    """Return the summaries of VirtualServices for sidecars with what they send to."""
    return tuple((each, ctx.get_or_none(needs, each.key) or ()) for each in ctx.get(routings, None))


@firewall(4)
def needed_hosts(ctx: Ctx, clients: Clients) -> dict[str, tuple[int, ...]]:
    """Return the hosts that rules these clients see send to, with ports; 0 stands for all (3.3)."""
    needed: dict[str, dict[int, None]] = {}
    for each, wanted in ctx.get(routings_with_needs, None):
        if _is_seen(each, clients):
            for need in wanted:
                if not need.clients or clients.namespace in need.clients:
                    needed.setdefault(need.host, {})[need.port] = None
    return {host: tuple(ports) for host, ports in needed.items()}
