"""
Rules across the fields of a VirtualService, as Istio publishes them.

HTTP rules are in `http_route_check`.
"""

from collections.abc import Iterator, Sequence

from pilothouse.api import names, paths
from pilothouse.api.destination_check import check_destination, check_gateways, check_weights
from pilothouse.api.http_route_check import check_route
from pilothouse.api.problem import Problem, export_to, hosts, port, selector, warning
from pilothouse.api.virtual_service import (
    L4Match,
    RouteDestination,
    TlsMatch,
    VirtualService,
)

MESH_GATEWAY = "mesh"


def check(row: VirtualService) -> Iterator[Problem]:
    """Yield what is wrong with one VirtualService."""
    spec = row.spec
    bound_to_mesh = not spec.gateways or MESH_GATEWAY in spec.gateways
    if not spec.hosts:
        yield from _check_delegate(row)
    yield from hosts(spec.hosts, "spec.hosts")
    for index, host in enumerate(spec.hosts):
        if host == "*" and bound_to_mesh:
            yield Problem(
                paths.item("spec.hosts", index),
                'The host "*" cannot be routed for the whole mesh.',
                "Name the hosts, or bind the rules to a gateway only.",
            )
    yield from check_gateways(spec.gateways, "spec.gateways")
    if not (spec.http or spec.tls or spec.tcp):
        yield Problem("spec", "There are no rules.", "Add http, tls or tcp.")
    for index, http in enumerate(spec.http):
        yield from check_route(http, f"spec.http[{index}]", is_delegate=not spec.hosts)
    for index, tls in enumerate(spec.tls):
        path = f"spec.tls[{index}]"
        if not tls.match:
            yield Problem(f"{path}.match", "A TLS rule needs a match with sniHosts.")
        for number, match in enumerate(tls.match):
            yield from _check_tls_match(match, spec.hosts, f"{path}.match[{number}]")
        yield from _check_destinations(tls.route, path)
    for index, tcp in enumerate(spec.tcp):
        path = f"spec.tcp[{index}]"
        for number, l4_match in enumerate(tcp.match):
            yield from _check_connection_match(l4_match, f"{path}.match[{number}]")
        yield from _check_destinations(tcp.route, path)
    yield from export_to(spec.export_to, "spec.exportTo", row.meta.namespace)


def _check_delegate(row: VirtualService) -> Iterator[Problem]:
    spec = row.spec
    if spec.gateways:
        yield Problem(
            "spec.gateways",
            "Without hosts this is a delegate, and a delegate has no gateways.",
            "Add hosts, or remove the gateways.",
        )
    if spec.tls or spec.tcp:
        yield Problem("spec.hosts", "TLS and TCP rules need hosts.", "Add the hosts they are for.")


def _check_destinations(routes: Sequence[RouteDestination], path: str) -> Iterator[Problem]:
    if not routes:
        yield warning(f"{path}.route", "The rule has no destination and is left out.")
    for index, each in enumerate(routes):
        yield from check_destination(each.destination, f"{path}.route[{index}].destination")
    yield from check_weights([each.weight for each in routes], f"{path}.route")


def _check_tls_match(match: TlsMatch, hosts_of: Sequence[str], path: str) -> Iterator[Problem]:
    if not match.sni_hosts:
        yield Problem(f"{path}.sniHosts", "At least one SNI host must be given.")
    for index, sni in enumerate(match.sni_hosts):
        at = f"{path}.sniHosts[{index}]"
        problem = names.host(sni)
        if problem:
            yield Problem(at, f'The host "{sni}" {problem}.')
        elif not any(_covers(host, sni) for host in hosts_of):
            yield Problem(
                at,
                f'The SNI host "{sni}" is not among the hosts of this VirtualService.',
                "Add it to spec.hosts.",
            )
    yield from _check_connection_match(match, path)


def _check_connection_match(match: TlsMatch | L4Match, path: str) -> Iterator[Problem]:
    for index, subnet in enumerate(match.destination_subnets):
        problem = names.subnet(subnet)
        if problem:
            yield Problem(f"{path}.destinationSubnets[{index}]", f'"{subnet}" {problem}.')
    if isinstance(match, L4Match) and match.source_subnet:
        problem = names.subnet(match.source_subnet)
        if problem:
            yield Problem(f"{path}.sourceSubnet", f'"{match.source_subnet}" {problem}.')
    yield from port(match.port, f"{path}.port", optional=True)
    yield from selector(match.source_labels, f"{path}.sourceLabels")
    yield from check_gateways(match.gateways, f"{path}.gateways")


def _covers(pattern: str, host: str) -> bool:
    if pattern.startswith("*"):
        return host.endswith(pattern[1:])
    return pattern == host
