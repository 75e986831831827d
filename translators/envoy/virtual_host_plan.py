"""
Which virtual hosts a route configuration has, and by which domains (traffic.md 3.2).

A plan is values without protobuf, so that an edit which changes no host or domain encodes nothing;
`pilothouse.translators.envoy.route_configurations` splices what it names.
"""

from dataclasses import replace
from typing import NamedTuple

from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.classes import View
from pilothouse.model.domains import service_domains
from pilothouse.model.hosts import is_wildcard, matches
from pilothouse.model.names import ANY_DOMAIN, RouteName, VirtualHostName
from pilothouse.model.policies import RuleQuestion, governing_rule
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import CertificateSource, Profile
from pilothouse.model.proxy_settings import RouteHeaders
from pilothouse.model.routing import (
    Clients,
    RoutingQuestion,
    http_virtual_services,
    routed_hosts,
    routing,
)
from pilothouse.model.scopes import EgressListener, Scope, egress_listeners
from pilothouse.model.service_addresses import service_addresses
from pilothouse.model.services import Registry, Resolution, Service, ServiceKey
from pilothouse.model.unserved_hosts import unserved_hosts
from pilothouse.translators.envoy.virtual_hosts import VirtualHostKey

PLAIN_HTTP_PORT = 80


class RouteView(NamedTuple):
    """
    What a scope's routes depend on.

    With `tells_protocol` routes say what mutual TLS carries, where a cluster cannot (D-1).
    """

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    domain_suffix: str
    dns_capture: bool = False
    headers: RouteHeaders = RouteHeaders()
    tells_protocol: bool = False
    cluster: str = ""

    @staticmethod
    def of(view: View) -> "RouteView":
        """Return the part of a view that routes depend on."""
        return RouteView(
            view.scope,
            view.labels,
            view.domain_suffix,
            view.dns_capture,
            view.settings.on_routes,
            tells_protocol=_tells_protocol(view),
            cluster=view.cluster,
        )


def _tells_protocol(view: View) -> bool:
    # Istio's own build has a filter for it; without certificates there is no TLS to say it in.
    has_certificates = view.certificates is not CertificateSource.NONE
    return has_certificates and view.profile is Profile.ENVOY


class RouteQuestion(NamedTuple):
    """A route configuration by name, as a scope sees it."""

    view: RouteView
    name: str


@query
def virtual_host_plan(ctx: Ctx, asked: RouteQuestion) -> tuple[VirtualHostKey, ...] | None:
    """
    Return the virtual hosts of a route configuration by name, each domain in one of them only.

    VirtualService-backed hosts claim domains first, then services in their order (3.2).
    """
    try:
        name = RouteName.parse(asked.name)
    except ValueError:
        return None
    listener = _listener(ctx, asked.view.scope, name)
    if listener is None:
        return None
    is_one = bool(name.host) and not listener.has_all_ports
    served = [
        (service, port.number)
        for service in listener.services
        if service.resolution is not Resolution.ALIAS and (not is_one or service.host == name.host)
        for port in service.ports
        if (port.number == name.port or listener.has_all_ports)
        and (port.protocol.is_http or port.protocol is Protocol.AUTO)
    ]
    if is_one and not served:
        return None
    aliases: dict[str, list[str]] = {}
    for service in listener.services:
        if service.resolution is Resolution.ALIAS:
            aliases.setdefault(service.alias_of, []).append(service.host)
    at = _Listener(asked.view, Clients(asked.view.scope.namespace, listener.imports), name.port)
    keys = [
        _service_key(ctx, at._replace(port=port), service, tuple(aliases.get(service.host, ())))
        for service, port in served
    ]
    if is_one:
        return (keys[0]._replace(domains=(ANY_DOMAIN,)),)
    if listener.has_all_ports:
        keys = [key._replace(domains=_with_port(key)) for key in keys]
    else:
        keys.extend(_unregistered(ctx, at, keys))
    keys.sort(key=lambda key: not key.virtual_services)
    return tuple(sorted(_without_repeats(ctx, keys), key=lambda key: str(key.name)))


def _listener(ctx: Ctx, scope: Scope, name: RouteName) -> EgressListener | None:
    listeners = ctx.get(egress_listeners, scope)
    if name.is_http_proxy:
        catch_all = next((each for each in listeners if each.port is None), None)
        return replace(catch_all or EgressListener(services=()), has_all_ports=True)
    if name.pipe:
        return next((each for each in listeners if each.bind == name.pipe), None)
    own = next((each for each in listeners if each.port == name.port), None)
    return own or next((each for each in listeners if each.port is None), None)


def _with_port(key: VirtualHostKey) -> tuple[str, ...]:
    # Where clients name the port, no port means the one of plain HTTP (3.2).
    domains = tuple(f"{domain}:{key.name.port}" for domain in key.domains)
    return (*key.domains, *domains) if key.name.port == PLAIN_HTTP_PORT else domains


class _Listener(NamedTuple):
    """Whose requests arrive at which port."""

    view: RouteView
    clients: Clients
    port: int


def _service_key(
    ctx: Ctx, at: _Listener, service: Service, aliases: tuple[str, ...]
) -> VirtualHostKey:
    view = at.view
    namespace = view.scope.namespace
    candidates = http_virtual_services(ctx, RoutingQuestion(at.clients, service.host))
    asked = RuleQuestion(namespace, view.labels, service.host, service.namespace)
    return VirtualHostKey(
        name=VirtualHostName(service.host, at.port),
        domains=service_domains(
            service,
            aliases,
            namespace,
            view.domain_suffix,
            service_addresses(ctx, service, dns_capture=view.dns_capture, cluster=view.cluster),
        ),
        service=service.key,
        rule=governing_rule(ctx, asked),
        virtual_services=candidates,
        scope=view.scope if candidates else None,
        labels=view.labels if candidates else (),
        headers=view.headers,
        tells_protocol=view.tells_protocol,
        session=service.session,
    )


def _unregistered(ctx: Ctx, at: _Listener, served: list[VirtualHostKey]) -> list[VirtualHostKey]:
    """
    Return virtual hosts for hosts only VirtualServices know (VS-01).

    They are on port 80, and on ports where another host of the VirtualService is served.
    """
    known = {key.name.host for key in served}
    used = dict.fromkeys(each for key in served for each in key.virtual_services)
    found = (ctx.get(routing, each) for each in used)
    hosts = dict.fromkeys(host for each in found if each for host in each.hosts)
    if at.port == PLAIN_HTTP_PORT:
        ctx.get(unserved_hosts, None)
        hosts.update(dict.fromkeys(ctx.get(routed_hosts, at.clients)))
    keys = []
    for host in sorted(hosts):
        if host in known or (is_wildcard(host) and any(matches(host, each) for each in known)):
            continue
        candidates = http_virtual_services(ctx, RoutingQuestion(at.clients, host))
        if at.port != PLAIN_HTTP_PORT:
            candidates = tuple(each for each in candidates if each in used)
        if candidates:
            keys.append(
                VirtualHostKey(
                    name=VirtualHostName(host, at.port),
                    domains=(host,),
                    service=None,
                    rule=None,
                    virtual_services=candidates,
                    scope=at.view.scope,
                    labels=at.view.labels,
                    headers=at.view.headers,
                    tells_protocol=at.view.tells_protocol,
                )
            )
    return keys


def _without_repeats(ctx: Ctx, keys: list[VirtualHostKey]) -> list[VirtualHostKey]:
    # Envoy refuses a whole route configuration for one repeated domain.
    full_names = {key.name.host.lower() for key in keys}
    taken: dict[str, VirtualHostKey] = {}
    kept = []
    for key in keys:
        domains = []
        for domain in key.domains:
            folded = domain.lower()
            is_anothers = folded != key.name.host.lower() and folded in full_names
            if folded not in taken and not is_anothers:
                taken[folded] = key
                domains.append(domain)
            elif key.service is not None:
                ctx.report(_repeated(key.service, domain, taken.get(folded)))
        if domains:
            kept.append(key._replace(domains=tuple(domains)))
    return kept


def _repeated(loser: ServiceKey, domain: str, winner: VirtualHostKey | None) -> Finding:
    kind = "Service" if loser.registry == Registry.KUBERNETES else "ServiceEntry"
    first = winner.name.host if winner else domain
    return Finding(
        Severity.INFO,
        "DomainTaken",
        ConfigRef(kind, loser.namespace, loser.name),
        f"Requests for {domain} go to {first}, which has the name first, and not to {loser.host}.",
        "Give one of the two another name or address.",
    )
