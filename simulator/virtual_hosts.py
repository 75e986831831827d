"""
Which virtual host of a route configuration a request's host belongs to.

The whole name first, then the longest ``*suffix``, then the longest ``prefix*``, then ``*``; names
are compared in lower case. Source: envoyproxy/envoy, docs of route.v3.VirtualHost.domains.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import VirtualHost
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse.graph.findings import ConfigRef
from pilothouse.simulator.choice import Loss, Mismatch, Reason, Step, Taken
from pilothouse.simulator.http_request import HttpRequest, port_start
from pilothouse.simulator.provenance import made_by

ANY: Final = "*"

_Rank = tuple[int, int]
_EXACT, _SUFFIX, _PREFIX, _ANY = 3, 2, 1, 0


class ChosenVirtualHost(NamedTuple):
    """The virtual host of a request (None: 404), and the choice."""

    host: VirtualHost | None
    taken: Taken | None
    losses: tuple[Loss, ...]


def choose_virtual_host(
    configuration: RouteConfiguration, request: HttpRequest
) -> ChosenVirtualHost:
    """Choose among the virtual hosts of a route configuration."""
    name = _matched_name(configuration, request)
    fits = [_best_domain(each, name) for each in configuration.virtual_hosts]
    ranked = [(rank, -index) for index, (rank, _) in enumerate(fits) if rank is not None]
    best = -max(ranked)[1] if ranked else None
    losses = []
    for index, each in enumerate(configuration.virtual_hosts):
        if index != best:
            rank, domain = fits[index]
            winner = fits[best][1] if best is not None else ""
            losses.append(
                Loss(
                    step=Step.VIRTUAL_HOST,
                    candidate=each.name,
                    index=index,
                    mismatches=(_mismatch(each, name, rank, domain, winner),),
                    made_by=_made_by(each),
                )
            )
    if best is None:
        return ChosenVirtualHost(None, None, tuple(losses))
    host = configuration.virtual_hosts[best]
    why = f"domain {fits[best][1]!r} fits {name!r} best"
    taken = Taken(name=host.name, index=best, why=why, made_by=_made_by(host))
    return ChosenVirtualHost(host, taken, tuple(losses))


def _made_by(host: VirtualHost) -> tuple[ConfigRef, ...]:
    """Return a virtual host's objects; where it names none, those of its routes, whole."""
    return made_by(host.metadata) or tuple(
        dict.fromkeys(ref.at("") for route in host.routes for ref in made_by(route.metadata))
    )


def _matched_name(configuration: RouteConfiguration, request: HttpRequest) -> str:
    name = request.host
    if configuration.vhost_header:
        name = request.header(configuration.vhost_header) or ""
    if configuration.ignore_port_in_host_matching:
        name = name[: port_start(name)]
    return name.lower()


def _best_domain(host: VirtualHost, name: str) -> tuple[_Rank | None, str]:
    found: tuple[_Rank | None, str] = (None, "")
    for domain in host.domains:
        rank = _rank(domain.lower(), name)
        if rank is not None and (found[0] is None or rank > found[0]):
            found = (rank, domain)
    return found


def _rank(domain: str, name: str) -> _Rank | None:
    if domain == ANY:
        return (_ANY, 0)
    fixed = len(domain) - 1
    if domain.startswith(ANY):
        return (_SUFFIX, fixed) if len(name) > fixed and name.endswith(domain[1:]) else None
    if domain.endswith(ANY):
        return (_PREFIX, fixed) if len(name) > fixed and name.startswith(domain[:-1]) else None
    return (_EXACT, 0) if domain == name else None


def _mismatch(
    host: VirtualHost, name: str, rank: _Rank | None, domain: str, winner: str
) -> Mismatch:
    if rank is not None:
        text = f"domain {domain!r} fits {name!r}, but {winner!r} fits better"
        return Mismatch(Reason.LESS_SPECIFIC, text)
    shown = ", ".join(host.domains[:4]) + (", ..." if len(host.domains) > 4 else "")
    return Mismatch(Reason.DOMAIN, f"{name!r} is none of its domains ({shown})")
