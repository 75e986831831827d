"""
Which listener gets a connection.

A captured connection reaches the listener that traffic is redirected to. If that one hands
connections off (`use_original_dst`), the listener of the original address gets it, else the
wildcard listener of the port, else it stays. An uncaptured one reaches what is bound there.
Source: envoyproxy/envoy, docs of listener.v3.Listener.use_original_dst and ConnectionHandlerImpl.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3.address_pb2 import Address, SocketAddress
from pilothouse._pb.envoy.config.core.v3.base_pb2 import INBOUND, OUTBOUND
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.filters.listener.original_dst.v3.original_dst_pb2 import (
    OriginalDst,
)
from pilothouse.simulator.choice import Loss, Mismatch, Reason, Step, Taken
from pilothouse.simulator.provenance import made_by
from pilothouse.simulator.request import Direction, IpAddress, Request
from pilothouse.simulator.served import unpacked

_TRAFFIC: Final = {Direction.OUTBOUND: OUTBOUND, Direction.INBOUND: INBOUND}


class Place(NamedTuple):
    """Where a listener listens."""

    address: IpAddress
    port: int

    def __str__(self) -> str:
        """Render as ``address:port``."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class ChosenListener(NamedTuple):
    """The listener that serves a connection (None: nobody does), and the choice."""

    listener: Listener | None
    taken: Taken | None
    losses: tuple[Loss, ...]


def choose_listener(listeners: tuple[Listener, ...], request: Request) -> ChosenListener:
    """Choose among a proxy's listeners."""
    tcp = [(index, each) for index, each in enumerate(listeners) if next(_places(each), None)]
    entry = next((i for i, each in tcp if _captures(each, request)), None)
    if entry is None:
        bound = [(index, each) for index, each in tcp if _is_bound(each)]
        best, why = _best(bound, request)
    elif not listeners[entry].use_original_dst.value:
        best, why = entry, "traffic is redirected to it, and it keeps what it gets"
    else:
        best, why = _best(tcp, request)
        if best is None:
            best, why = entry, "no listener is for the original destination"
    wanted = Place(request.destination, request.port)
    winner = None if best is None else listeners[best]
    entered = None if entry is None else listeners[entry]
    losses = tuple(
        Loss(
            step=Step.LISTENER,
            candidate=each.name,
            index=index,
            mismatches=(_why_not(each, wanted, winner, entered),),
            made_by=made_by(each.metadata),
        )
        for index, each in enumerate(listeners)
        if index != best
    )
    if best is None or winner is None:
        return ChosenListener(None, None, losses)
    taken = Taken(name=winner.name, index=best, why=why, made_by=made_by(winner.metadata))
    return ChosenListener(winner, taken, losses)


def _captures(listener: Listener, request: Request) -> bool:
    """Tell whether redirected connections of the request's direction come here first."""
    if not request.is_captured or not _is_bound(listener):
        return False
    if listener.traffic_direction != _TRAFFIC[request.direction]:
        return False
    return listener.use_original_dst.value or any(
        unpacked(each.typed_config, OriginalDst) is not None for each in listener.listener_filters
    )


def _is_bound(listener: Listener) -> bool:
    if listener.HasField("bind_to_port"):
        return listener.bind_to_port.value
    old = listener.deprecated_v1
    return not old.HasField("bind_to_port") or old.bind_to_port.value


def _best(candidates: list[tuple[int, Listener]], request: Request) -> tuple[int | None, str]:
    wanted = Place(request.destination, request.port)
    for index, listener in candidates:
        if wanted in _places(listener):
            return index, f"it listens on {wanted}"
    for index, listener in candidates:
        for place in _places(listener):
            if place.port == wanted.port and _is_wildcard_for(place.address, wanted.address):
                return index, f"it listens on {place}, and none on {wanted}"
    return None, ""


def _is_wildcard_for(address: IpAddress, wanted: IpAddress) -> bool:
    return address.is_unspecified and address.version == wanted.version


def _places(listener: Listener) -> Iterator[Place]:
    """Yield where a listener takes TCP connections; nothing for pipes, UDP and internal ones."""
    for address in _addresses(listener):
        socket = address.socket_address
        if address.WhichOneof("address") != "socket_address":
            continue
        if socket.protocol != SocketAddress.TCP:
            continue
        try:
            ip = ip_address(socket.address)
        except ValueError:
            continue
        yield Place(ip, socket.port_value)
        if ip.version == 6 and ip.is_unspecified and socket.ipv4_compat:
            yield Place(ip_address("0.0.0.0"), socket.port_value)  # noqa: S104 (a description)


def _addresses(listener: Listener) -> Iterator[Address]:
    yield listener.address
    yield from (each.address for each in listener.additional_addresses)


def _why_not(
    listener: Listener, wanted: Place, winner: Listener | None, entered: Listener | None
) -> Mismatch:
    places = tuple(_places(listener))
    shown = ", ".join(map(str, places)) or "no TCP address"
    if listener is entered:
        return Mismatch(Reason.HANDED_OFF, f"it hands connections to {wanted} to their listener")
    if all(place.port != wanted.port for place in places):
        text = f"it listens on {shown}; the connection is to port {wanted.port}"
        return Mismatch(Reason.PORT, text)
    if not any(
        place == wanted
        or (place.port == wanted.port and _is_wildcard_for(place.address, wanted.address))
        for place in places
    ):
        return Mismatch(Reason.ADDRESS, f"it listens on {shown}; the connection is to {wanted}")
    if entered is None and not _is_bound(listener):
        return Mismatch(Reason.NOT_BOUND, f"it does not bind {shown}, so no client can reach it")
    if winner is not None and winner is entered:
        text = f"traffic is redirected to {winner.name}, which keeps it"
        return Mismatch(Reason.CAPTURED, text)
    if wanted not in places:
        return Mismatch(Reason.LESS_SPECIFIC, f"it listens on {shown}; another on {wanted} itself")
    return Mismatch(Reason.DUPLICATE, f"another listener comes first for {wanted}")
