"""
Which outbound listeners a scope needs, and who shares them (traffic.md LS-03 to LS-10, 3.7).

Services claim listeners, the oldest first; a later claim on the same address is merged, or dropped
with a finding. Plans are values without protobuf: a listener is only encoded again if its plan
changes, which an edit of an HTTP route or of a hidden peer never does.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.names import is_address
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.classes import View
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.names import ListenerName, RouteName
from pilothouse.model.protocols import Protocol
from pilothouse.model.provenance import Source
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.scopes import EgressListener, egress_listeners
from pilothouse.model.service_addresses import service_addresses
from pilothouse.model.services import Port, Resolution, Service
from pilothouse.translators.envoy.tcp_routes import TcpChain, TcpQuestion, tcp_chains

RESERVED_PORTS: Final = frozenset({15001, 15006, 15020, 15021, 15053, 15090})
"""Ports of the proxy itself, which never get a wildcard listener (LS-09)."""
FIRST_UNPRIVILEGED_PORT: Final = 1024

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
    HTTP must be told from other traffic. `more_binds` are addresses beside the name's. `source` is
    who opened it; a shared HTTP listener names no single service, since another's coming or going
    must not drain it.
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


class Place(NamedTuple):
    """
    Where an opaque port listens.

    `is_own` and `ranges` are as in `TcpQuestion`: no other service has this address; connections
    to other destinations than these ranges are not for the service.
    """

    bind: str
    more_binds: tuple[str, ...] = ()
    is_own: bool = False
    ranges: tuple[str, ...] = ()


@query
def listener_plans(ctx: Ctx, view: View) -> tuple[ListenerPlan, ...]:
    """Return the outbound listeners of a view by name."""
    plans: dict[ListenerName, ListenerPlan] = {}
    for listener in ctx.get(egress_listeners, view.scope):
        if listener.port is not None:
            for plan in _declared(ctx, view, listener):
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
    binds = not listener.is_captured or view.mode is InterceptionMode.NONE
    bind = listener.bind or (view.localhost if binds else view.wildcard)
    row = ctx.row(SIDECARS, view.scope.sidecar or ObjectKey("", ""))
    if row is None or bind.startswith("/"):
        return  # Unix binds are reported as not translated where the Sidecar is read
    protocol = listener.protocol
    source = Source.of(row.meta, listener.path)
    is_wildcard = bind == view.wildcard and not binds
    tcp: dict[object, TcpChain] = {}
    if not protocol.is_http:
        for service in listener.services:
            for chain in _chains(ctx, view, service, number, _shared_place(view, service, bind)):
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
        route=None if kind is Kind.TCP else str(RouteName(number)),
        tcp=tuple(tcp.values()),
        is_locked=True,
        protocol=protocol,
        more_binds=() if listener.bind else view.more_localhosts if binds else view.more_wildcards,
    )


def _chains(
    ctx: Ctx, view: View, service: Service, port: int, place: Place
) -> tuple[TcpChain, ...]:
    asked = TcpQuestion(
        view.scope, view.labels, service.key, port, view.domain_suffix, place.is_own, place.ranges
    )
    return ctx.get(tcp_chains, asked)


def _claims(ctx: Ctx, view: View, service: Service) -> Iterator[ListenerPlan]:
    if service.resolution is Resolution.ALIAS:
        return
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        if port.protocol.is_http:
            claims: Iterable[ListenerPlan] = (_http_claim(view, port),)
        else:
            claims = _opaque_claims(ctx, view, service, port)
        for claim in claims:
            if claim.is_wildcard and port.number in RESERVED_PORTS:
                source = service.source.at(f"spec.ports[port={port.number}]")
                problem = f"Port {port.number} belongs to the proxy itself; no listener is made."
                ctx.report(_dropped(source, problem))
            else:
                yield claim


def _binds(view: View) -> bool:
    return view.mode is InterceptionMode.NONE


def _default_bind(view: View) -> str:
    return view.localhost if _binds(view) else view.wildcard


def _http_claim(view: View, port: Port) -> ListenerPlan:
    is_wildcard = not _binds(view)
    return ListenerPlan(
        name=ListenerName(_default_bind(view), port.number),
        kind=Kind.AUTO if is_wildcard else Kind.HTTP,
        is_wildcard=is_wildcard,
        binds_port=_binds(view),
        source=shared_source(port.number),
        route=str(RouteName(port.number)),
        protocol=Protocol.HTTP,
        more_binds=view.more_wildcards if is_wildcard else view.more_localhosts,
    )


def shared_source(port: int) -> Source:
    """Return the source of what all HTTP services on a port share."""
    return Source.of(_ANY_SERVICE, f"spec.ports[port={port}]")


def _opaque_claims(ctx: Ctx, view: View, service: Service, port: Port) -> Iterator[ListenerPlan]:
    is_auto = port.protocol is Protocol.AUTO
    for place in _places(ctx, view, service, port):
        is_shared = place.bind == _default_bind(view)
        route = RouteName(port.number, "" if is_shared else service.host)
        yield ListenerPlan(
            name=ListenerName(place.bind, port.number),
            kind=Kind.AUTO if is_auto else Kind.TCP,
            is_wildcard=is_shared and not _binds(view),
            binds_port=_binds(view),
            source=service.source.at(f"spec.ports[port={port.number}]"),
            route=str(route) if is_auto else None,
            tcp=_chains(ctx, view, service, port.number, place),
            protocol=port.protocol,
            more_binds=place.more_binds,
        )


def _places(ctx: Ctx, view: View, service: Service, port: Port) -> Iterator[Place]:
    if _binds(view):
        yield _shared_place(view, service, view.localhost)._replace(more_binds=view.more_localhosts)
        return
    if service.is_headless:
        found = ctx.get(endpoints, EndpointsKey(service.key, port.number))
        ips = {each.address for each in found if is_address(each.address)} - set(view.own_ips)
        for ip in sorted(ips):
            if _is_family(view, ip):
                yield Place(ip, is_own=True)
        return
    addresses = service_addresses(ctx, service, dns_capture=view.dns_capture)
    usable = [address for address in addresses if _is_family(view, address)]
    hosts = tuple(address for address in usable if "/" not in address)
    ranges = tuple(address for address in usable if "/" in address)
    is_found = not service.vips  # not written by the user
    if hosts and (is_found or service.is_kubernetes):
        # The addresses of a cluster IP, or those found for a host, are one listener (3.15).
        yield Place(hosts[0], hosts[1:], is_own=True)
        return
    for host in hosts:
        yield Place(host, is_own=True)
    if ranges or is_found:
        yield Place(view.wildcard, view.more_wildcards, ranges=ranges)


def _shared_place(view: View, service: Service, bind: str) -> Place:
    # Where all services share an address, one with an address elsewhere needs no SNI (LS-07).
    ranges = tuple(vip for vip in service.vips if "/" in vip)
    is_own = service.is_headless or (bool(service.vips) and not ranges)
    return Place(bind, is_own=is_own, ranges=ranges if bind == view.wildcard else ())


def _is_family(view: View, address: str) -> bool:
    return view.ipv6 if ":" in address else view.ipv4


def _merge(ctx: Ctx, plans: dict[ListenerName, ListenerPlan], claim: ListenerPlan) -> None:
    stored = plans.get(claim.name)
    if stored is None:
        plans[claim.name] = claim
        return
    if stored.is_locked:
        return
    if Protocol.MONGO in (stored.protocol, claim.protocol) and stored.protocol != claim.protocol:
        ctx.report(_dropped(claim.source, f"{claim.name} already carries another protocol."))
        return
    plans[claim.name] = _merged(ctx, stored, claim)


def _merged(ctx: Ctx, stored: ListenerPlan, claim: ListenerPlan) -> ListenerPlan:
    if claim.kind is Kind.HTTP or (claim.route is not None and not claim.tcp):
        if stored.route is not None:
            return stored  # the service appears through its route configuration only
        return replace(stored, kind=Kind.AUTO, route=claim.route)
    if claim.kind is Kind.AUTO and stored.kind is Kind.HTTP:
        return claim
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
