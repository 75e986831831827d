"""
Where outbound listeners listen: which addresses an opaque port of a service has for a view.

Follows the address families of the proxy and what the service's addresses are (traffic.md LS-04,
LS-07, LS-08, LS-19, 3.14, 3.15). Which claims on one address go together is decided in
`pilothouse.translators.envoy.listener_plan`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilothouse.api.names import is_address
from pilothouse.graph.core import Ctx
from pilothouse.model.classes import View
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.service_addresses import service_addresses
from pilothouse.model.services import Port, Service


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


def binds_ports(view: View) -> bool:
    """Tell whether listeners bind their ports themselves, because nothing is redirected."""
    return view.mode is InterceptionMode.NONE


def default_bind(view: View) -> str:
    """Return the address that services share."""
    return view.localhost if binds_ports(view) else view.wildcard


def places_of(ctx: Ctx, view: View, service: Service, port: Port) -> Iterator[Place]:
    """Yield where an opaque port of a service listens; nowhere if no address suits the proxy."""
    if binds_ports(view):
        yield shared_place(view, service, view.localhost)._replace(more_binds=view.more_localhosts)
        return
    if service.is_headless:
        found = ctx.get(endpoints, EndpointsKey(service.key, port.number))
        ips = {each.address for each in found if is_address(each.address)} - set(view.own_ips)
        for ip in sorted(ips):
            if _is_family(view, ip):
                yield Place(ip, is_own=True)
        return
    addresses = service_addresses(ctx, service, dns_capture=view.dns_capture, cluster=view.cluster)
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


def shared_place(view: View, service: Service, bind: str) -> Place:
    """Return the place of a service on an address that all share."""
    # One that has an address elsewhere needs no SNI here (LS-07).
    ranges = tuple(vip for vip in service.vips if "/" in vip)
    is_own = service.is_headless or (bool(service.vips) and not ranges)
    return Place(bind, is_own=is_own, ranges=ranges if bind == view.wildcard else ())


def _is_family(view: View, address: str) -> bool:
    return view.ipv6 if ":" in address else view.ipv4
