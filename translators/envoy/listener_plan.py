"""
Which outbound listeners a scope needs, and who shares them (traffic.md LS-03 to LS-10, 3.7).

Services claim listeners, the oldest first; a later claim on the same address is merged, or dropped
with a finding. Plans are values without protobuf: a listener is only encoded again if its plan
changes, which an edit of an HTTP route or of a hidden peer never does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.classes import View
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.names import (
    HTTP_PROXY_ROUTE,
    ClusterName,
    ListenerName,
    RouteName,
    is_pipe,
)
from pilothouse.model.protocols import Protocol
from pilothouse.model.provenance import Source
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.reserved_ports import is_privileged, reserved_ports
from pilothouse.model.scopes import EgressListener, egress_listeners
from pilothouse.model.services import Port, Resolution, Service
from pilothouse.translators.envoy.dynamic_dns import DynamicHost
from pilothouse.translators.envoy.listener_places import (
    Place,
    binds_ports,
    default_bind,
    places_of,
    shared_place,
)
from pilothouse.translators.envoy.tcp_routes import TcpChain, TcpQuestion, tcp_chains

_MESH: Final = ObjectMeta(kind="MeshConfig", name="mesh")
_ANY_SERVICE: Final = ObjectMeta(kind="Service", name="*", namespace="*", api_version="v1")


class Kind(Enum):
    """What a listener carries; decides how a later claim is merged."""

    HTTP = "http"
    TCP = "tcp"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPlan:
    """
    One outbound listener.

    `route` names the route configuration of its HTTP chain (None: no HTTP). `kind` AUTO means that
    HTTP must be told from other traffic. `more_binds` are addresses beside the name's. `lookups`
    are hosts whose names its HTTP chain looks up. With `keeps_sessions` some of its services has
    sessions that stick (K8-11). `source` is who opened it; a shared HTTP listener
    names no single service, since another's coming or going must not drain it.
    """

    name: ListenerName
    kind: Kind
    is_wildcard: bool
    binds_port: bool
    source: Source
    route: str | None = None
    tcp: tuple[TcpChain, ...] = ()
    is_locked: bool = False
    protocol: Protocol = Protocol.AUTO
    more_binds: tuple[str, ...] = ()
    lookups: tuple[DynamicHost, ...] = ()
    keeps_sessions: bool = False


@query
def listener_plans(ctx: Ctx, view: View) -> tuple[ListenerPlan, ...]:
    """Return the outbound listeners of a view by name."""
    plans: dict[ListenerName, ListenerPlan] = {}
    for listener in ctx.get(egress_listeners, view.scope):
        if listener.port is not None:
            for plan in _declared(ctx, view, listener):
                plans.setdefault(plan.name, plan)
    for plan in _http_proxy(ctx, view):
        if plan.name in plans:
            problem = f"A Sidecar has another listener at {plan.name}; no HTTP proxy listens there."
            ctx.report(_dropped(plan.source, problem))
        plans.setdefault(plan.name, plan)
    for listener in ctx.get(egress_listeners, view.scope):
        if listener.port is None:
            for service in listener.services:
                for claim in _claims(ctx, view, service):
                    _merge(ctx, plans, claim)
    return tuple(_without_repeats(plans[name] for name in sorted(plans)))


def _without_repeats(plans: Iterable[ListenerPlan]) -> Iterator[ListenerPlan]:
    # Envoy refuses a listener one of whose addresses another one has.
    plans = tuple(plans)
    taken = {plan.name for plan in plans}
    for plan in plans:
        more = []
        for bind in plan.more_binds:
            name = ListenerName(bind, plan.name.port)
            if name not in taken:
                taken.add(name)
                more.append(bind)
        yield replace(plan, more_binds=tuple(more))


def _declared(ctx: Ctx, view: View, listener: EgressListener) -> Iterator[ListenerPlan]:
    # A port the user opened by hand is locked: the catch-all adds nothing to it (3.7).
    number = listener.port or 0
    is_socket = is_pipe(listener.bind)
    binds = is_socket or not listener.is_captured or view.mode is InterceptionMode.NONE
    bind = listener.bind or (view.localhost if binds else view.wildcard)
    row = ctx.row(SIDECARS, view.scope.sidecar or ObjectKey("", ""))
    if row is None:
        return
    protocol = listener.protocol
    source = Source.of(row.meta, listener.path)
    if is_socket and not protocol.is_http:
        ctx.report(_opaque_pipe(source))
        return
    problem = _unusable(ctx, view, bind, number, binds=binds)
    if problem:
        ctx.report(_dropped(source.at(f"{source.ref.path}.port.number"), problem))
        return
    is_wildcard = bind == view.wildcard and not binds
    tcp: dict[object, TcpChain] = {}
    if not protocol.is_http:
        for service in listener.services:
            for chain in _chains(ctx, view, service, number, shared_place(view, service, bind)):
                tcp.setdefault(chain.match_key, chain)
    if protocol.is_http:
        kind = Kind.AUTO if is_wildcard else Kind.HTTP
    else:
        kind = Kind.AUTO if protocol is Protocol.AUTO else Kind.TCP
    yield ListenerPlan(
        name=ListenerName(bind, number),
        kind=kind,
        is_wildcard=is_wildcard,
        binds_port=binds,
        source=source,
        route=None if kind is Kind.TCP else str(RouteName(number, bind if is_socket else "")),
        tcp=tuple(tcp.values()),
        is_locked=True,
        protocol=protocol,
        more_binds=() if listener.bind else view.more_localhosts if binds else view.more_wildcards,
        lookups=tuple(host for service in listener.services for host in _lookups(view, service)),
        keeps_sessions=any(service.session for service in listener.services),
    )


def _http_proxy(ctx: Ctx, view: View) -> Iterator[ListenerPlan]:
    """Yield the listener at which programs use the proxy as one, if there is to be one (N-24)."""
    port = view.settings.http_proxy_port
    if not port:
        return
    source = Source.of(_MESH, "proxyHttpPort")
    if port in reserved_ports(ctx):
        problem = f"Port {port} belongs to the proxy itself; no HTTP proxy listens there."
        ctx.report(_dropped(source, problem))
        return
    listeners = ctx.get(egress_listeners, view.scope)
    services = next((each.services for each in listeners if each.port is None), ())
    yield ListenerPlan(
        name=ListenerName(view.localhost, port),
        kind=Kind.HTTP,
        is_wildcard=False,
        binds_port=True,
        source=source,
        route=HTTP_PROXY_ROUTE,
        is_locked=True,
        protocol=Protocol.HTTP,
        more_binds=view.more_localhosts,
        lookups=tuple(host for service in services for host in _lookups(view, service)),
        keeps_sessions=any(service.session for service in services),
    )


def _opaque_pipe(source: Source) -> Finding:
    return Finding(
        Severity.WARNING,
        "FieldNotTranslated",
        source.at(f"{source.ref.path}.bind").ref,
        "A Unix socket tells only HTTP requests apart; no listener is made.",
        "Declare the protocol HTTP, or bind to an IP address and port.",
    )


def _chains(
    ctx: Ctx, view: View, service: Service, port: int, place: Place
) -> tuple[TcpChain, ...]:
    asked = TcpQuestion(
        view.scope, view.labels, service.key, port, view.domain_suffix, place.is_own, place.ranges
    )
    chains = ctx.get(tcp_chains, asked)
    for host in _lookups(view, service):
        # A rule may lead somewhere else, where nothing is to be looked up.
        own = str(ClusterName(port, "", service.host))
        chains = tuple(
            replace(chain, lookup=host) if chain.leads_to(own) else chain for chain in chains
        )
    return chains


def _claims(ctx: Ctx, view: View, service: Service) -> Iterator[ListenerPlan]:
    if service.resolution is Resolution.ALIAS:
        return
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        if port.protocol.is_http:
            claims: Iterable[ListenerPlan] = (_http_claim(view, service, port),)
        else:
            claims = _opaque_claims(ctx, view, service, port)
        for claim in claims:
            problem = _unusable(ctx, view, claim.name.bind, port.number, binds=claim.binds_port)
            if problem:
                ctx.report(_dropped(service.source.at(f"spec.ports[port={port.number}]"), problem))
            else:
                yield claim


def _unusable(ctx: Ctx, view: View, bind: str, port: int, *, binds: bool) -> str:
    """Say why no listener can be on a port of an address; empty if one can be (LS-09)."""
    if bind == view.wildcard and port in reserved_ports(ctx):
        return f"Port {port} belongs to the proxy itself; no listener is made."
    if binds and view.is_unprivileged and is_privileged(port):
        return f"A proxy without privileges cannot open port {port}; no listener is made."
    return ""


def _http_claim(view: View, service: Service, port: Port) -> ListenerPlan:
    is_wildcard = not binds_ports(view)
    return ListenerPlan(
        name=ListenerName(default_bind(view), port.number),
        kind=Kind.AUTO if is_wildcard else Kind.HTTP,
        is_wildcard=is_wildcard,
        binds_port=binds_ports(view),
        source=shared_source(port.number),
        route=str(RouteName(port.number)),
        protocol=Protocol.HTTP,
        more_binds=view.more_wildcards if is_wildcard else view.more_localhosts,
        lookups=_lookups(view, service),
        keeps_sessions=service.session is not None,
    )


def _lookups(view: View, service: Service) -> tuple[DynamicHost, ...]:
    if service.resolution is not Resolution.DYNAMIC_DNS:
        return ()
    return (DynamicHost(service.host, view.ipv4, view.ipv6),)


def shared_source(port: int) -> Source:
    """Return the source of what all HTTP services on a port share."""
    return Source.of(_ANY_SERVICE, f"spec.ports[port={port}]")


def _opaque_claims(ctx: Ctx, view: View, service: Service, port: Port) -> Iterator[ListenerPlan]:
    is_auto = port.protocol is Protocol.AUTO
    for place in places_of(ctx, view, service, port):
        is_shared = place.bind == default_bind(view)
        route = RouteName(port.number, "" if is_shared else service.host)
        yield ListenerPlan(
            name=ListenerName(place.bind, port.number),
            kind=Kind.AUTO if is_auto else Kind.TCP,
            is_wildcard=is_shared and not binds_ports(view),
            binds_port=binds_ports(view),
            source=service.source.at(f"spec.ports[port={port.number}]"),
            route=str(route) if is_auto else None,
            tcp=_chains(ctx, view, service, port.number, place),
            protocol=port.protocol,
            more_binds=place.more_binds,
            keeps_sessions=is_auto and service.session is not None,
        )


def _merge(ctx: Ctx, plans: dict[ListenerName, ListenerPlan], claim: ListenerPlan) -> None:
    stored = plans.get(claim.name)
    if stored is None:
        plans[claim.name] = claim
        return
    if stored.is_locked:
        return
    if claim.keeps_sessions and not stored.keeps_sessions:
        stored = replace(stored, keeps_sessions=True)
    elif stored.keeps_sessions and not claim.keeps_sessions:
        claim = replace(claim, keeps_sessions=True)
    speaks_first = stored.protocol.speaks_first or claim.protocol.speaks_first
    if speaks_first and stored.protocol is not claim.protocol:
        ctx.report(_dropped(claim.source, f"{claim.name} already carries another protocol."))
        return
    plans[claim.name] = _merged(ctx, stored, claim)


def _merged(ctx: Ctx, stored: ListenerPlan, claim: ListenerPlan) -> ListenerPlan:
    if claim.kind is Kind.HTTP or (claim.route is not None and not claim.tcp):
        lookups = (*stored.lookups, *claim.lookups)
        if stored.route is not None:
            # The service appears through its route configuration only.
            return replace(stored, lookups=lookups) if claim.lookups else stored
        return replace(stored, kind=Kind.AUTO, route=claim.route, lookups=lookups)
    if claim.kind is Kind.AUTO and stored.kind is Kind.HTTP:
        return replace(claim, lookups=stored.lookups)
    chains = {chain.match_key: chain for chain in stored.tcp}
    for chain in claim.tcp:
        first = chains.setdefault(chain.match_key, chain)
        is_same_rule = chain.routed_by is not None and first.routed_by == chain.routed_by
        if first is not chain and not is_same_rule:
            ctx.report(
                _dropped(
                    claim.source,
                    f"{claim.name} already carries {first.stat_prefix}; connections to it "
                    "cannot be told apart from this service's.",
                )
            )
    kind = stored.kind if stored.kind is claim.kind else Kind.AUTO
    return replace(stored, kind=kind, route=stored.route or claim.route, tcp=tuple(chains.values()))


def _dropped(source: Source, problem: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "ListenerConflict",
        source.ref,
        problem,
        "Use another port, give the service an address of its own, or declare the protocol.",
    )
