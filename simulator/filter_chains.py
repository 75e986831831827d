"""
Which filter chain of a listener serves a connection.

Nine criteria in a fixed order; each leaves only the chains that match most specifically, and there
is no way back: a chain that lost at one criterion does not return when the winner fails a later
one. If none is left the default chain serves. Source: envoyproxy/envoy, docs of
listener.v3.FilterChainMatch and FilterChainManagerImpl.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Final, NamedTuple, TypeAlias

from pilothouse._pb.envoy.config.core.v3.address_pb2 import CidrRange
from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import (
    FilterChain,
    FilterChainMatch,
)
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse.simulator.choice import Loss, Mismatch, Reason, Step, Taken
from pilothouse.simulator.inspection import Connection
from pilothouse.simulator.provenance import made_by
from pilothouse.simulator.request import IpAddress

UNSET: Final = -1
"""Rank of a chain that does not ask; any match is better."""

_EXACT: Final = 1 << 16

Rank: TypeAlias = Callable[[FilterChainMatch, Connection], int | None]
"""How specifically a chain matches; None if it does not."""


class ChosenChain(NamedTuple):
    """The chain that serves a connection (None: it is closed), and the choice."""

    chain: FilterChain | None
    taken: Taken | None
    losses: tuple[Loss, ...]


class _Criterion(NamedTuple):
    name: str
    reason: Reason
    rank: Rank
    wanted: Callable[[FilterChainMatch], str]
    seen: Callable[[Connection], str]


def choose_filter_chain(listener: Listener, connection: Connection) -> ChosenChain:
    """Choose among a listener's chains; it must not use a `filter_chain_matcher`."""
    left = list(enumerate(listener.filter_chains))
    lost: dict[int, Mismatch] = {}
    decided = "it is the only one"
    for criterion in _CRITERIA:
        ranks = {i: criterion.rank(chain.filter_chain_match, connection) for i, chain in left}
        known = [rank for rank in ranks.values() if rank is not None]
        best = max(known, default=None)
        for index, chain in left:
            if ranks[index] is None or ranks[index] != best:
                lost[index] = _mismatch(criterion, chain, connection, ranks[index])
        if len(left) > 1 and best not in (None, UNSET):
            decided = f"its {criterion.name} matches best"
        left = [(index, chain) for index, chain in left if index not in lost]
    for index, _ in left[1:]:
        lost[index] = Mismatch(Reason.DUPLICATE, "an earlier chain has the same match")
    losses = [
        Loss(
            step=Step.FILTER_CHAIN,
            candidate=chain_name(listener, index),
            index=index,
            mismatches=(lost[index],),
            made_by=made_by(listener.filter_chains[index].metadata),
        )
        for index in sorted(lost)
    ]
    if left:
        index, chain = left[0]
        if len(listener.filter_chains) > 1 and decided == "it is the only one":
            decided = "all others ask for something else"
        if listener.HasField("default_filter_chain"):
            losses.append(_default_lost(listener))
        return ChosenChain(chain, _taken(listener, index, decided), tuple(losses))
    if listener.HasField("default_filter_chain"):
        taken = _taken(listener, UNSET, "no other chain matches")
        return ChosenChain(listener.default_filter_chain, taken, tuple(losses))
    return ChosenChain(None, None, tuple(losses))


def chain_name(listener: Listener, index: int) -> str:
    """Return a chain's name, or its place where it has none; -1 is the default chain."""
    if index == UNSET:
        return listener.default_filter_chain.name or "default filter chain"
    return listener.filter_chains[index].name or f"filter_chains[{index}]"


def _taken(listener: Listener, index: int, why: str) -> Taken:
    chain = listener.default_filter_chain if index == UNSET else listener.filter_chains[index]
    name = chain_name(listener, index)
    return Taken(name=name, index=index, why=why, made_by=made_by(chain.metadata))


def _default_lost(listener: Listener) -> Loss:
    return Loss(
        step=Step.FILTER_CHAIN,
        candidate=chain_name(listener, UNSET),
        index=UNSET,
        mismatches=(Mismatch(Reason.FALLBACK, "it serves only what no other chain matches"),),
        made_by=made_by(listener.default_filter_chain.metadata),
    )


def _mismatch(
    criterion: _Criterion, chain: FilterChain, connection: Connection, rank: int | None
) -> Mismatch:
    wanted = criterion.wanted(chain.filter_chain_match) or "anything"
    seen = criterion.seen(connection) or "none"
    if rank is None:
        text = f"it wants {criterion.name} {wanted}; the connection has {seen}"
        return Mismatch(criterion.reason, text)
    text = f"another chain's {criterion.name} fits {seen} better than its {wanted}"
    return Mismatch(Reason.LESS_SPECIFIC, text)


def _port(match: FilterChainMatch, connection: Connection) -> int | None:
    if not match.HasField("destination_port"):
        return UNSET
    return 1 if match.destination_port.value == connection.port else None


def _longest(ranges: Iterable[CidrRange], address: IpAddress) -> int | None:
    networks = [
        ip_network(f"{each.address_prefix}/{each.prefix_len.value}", strict=False)
        for each in ranges
    ]
    if not networks:
        return UNSET
    return max((net.prefixlen for net in networks if address in net), default=None)


def _address(match: FilterChainMatch, connection: Connection) -> int | None:
    return _longest(match.prefix_ranges, connection.address)


def _server_name(match: FilterChainMatch, connection: Connection) -> int | None:
    if not match.server_names:
        return UNSET
    ranks = (_name_rank(each.lower(), connection.server_name) for each in match.server_names)
    return max((rank for rank in ranks if rank is not None), default=None)


def _name_rank(wanted: str, seen: str) -> int | None:
    if wanted == seen:
        return _EXACT
    if wanted.startswith("*.") and seen.endswith(wanted[1:]) and len(seen) > len(wanted) - 1:
        return len(wanted)
    return None


def _transport(match: FilterChainMatch, connection: Connection) -> int | None:
    if not match.transport_protocol:
        return UNSET
    return 1 if match.transport_protocol == connection.transport else None


def _alpn(match: FilterChainMatch, connection: Connection) -> int | None:
    if not match.application_protocols:
        return UNSET
    places = [i for i, name in enumerate(connection.alpn) if name in match.application_protocols]
    return _EXACT - places[0] if places else None  # the client's order counts


def _direct_source(match: FilterChainMatch, connection: Connection) -> int | None:
    return _longest(match.direct_source_prefix_ranges, connection.source)


def _source_type(match: FilterChainMatch, connection: Connection) -> int | None:
    if match.source_type == FilterChainMatch.ANY:
        return UNSET
    is_local = connection.source.is_loopback or connection.source == connection.address
    return 1 if is_local == (match.source_type == FilterChainMatch.SAME_IP_OR_LOOPBACK) else None


def _source(match: FilterChainMatch, connection: Connection) -> int | None:
    return _longest(match.source_prefix_ranges, connection.source)


def _source_port(match: FilterChainMatch, connection: Connection) -> int | None:
    if not match.source_ports:
        return UNSET
    return 1 if connection.source_port in match.source_ports else None


def _ranges(ranges: Iterable[CidrRange]) -> str:
    return ", ".join(f"{each.address_prefix}/{each.prefix_len.value}" for each in ranges)


_CRITERIA: Final = (
    _Criterion(
        "destination port",
        Reason.PORT,
        _port,
        lambda m: str(m.destination_port.value or ""),
        lambda c: str(c.port),
    ),
    _Criterion(
        "destination address",
        Reason.ADDRESS,
        _address,
        lambda m: _ranges(m.prefix_ranges),
        lambda c: str(c.address),
    ),
    _Criterion(
        "server name",
        Reason.SERVER_NAME,
        _server_name,
        lambda m: ", ".join(m.server_names),
        lambda c: c.server_name,
    ),
    _Criterion(
        "transport protocol",
        Reason.TRANSPORT,
        _transport,
        lambda m: m.transport_protocol,
        lambda c: c.transport,
    ),
    _Criterion(
        "application protocol",
        Reason.APPLICATION_PROTOCOL,
        _alpn,
        lambda m: ", ".join(m.application_protocols),
        lambda c: ", ".join(c.alpn),
    ),
    _Criterion(
        "direct source address",
        Reason.SOURCE,
        _direct_source,
        lambda m: _ranges(m.direct_source_prefix_ranges),
        lambda c: str(c.source),
    ),
    _Criterion(
        "source type",
        Reason.SOURCE,
        _source_type,
        lambda m: FilterChainMatch.ConnectionSourceType.Name(m.source_type),
        lambda c: str(c.source),
    ),
    _Criterion(
        "source address",
        Reason.SOURCE,
        _source,
        lambda m: _ranges(m.source_prefix_ranges),
        lambda c: str(c.source),
    ),
    _Criterion(
        "source port",
        Reason.SOURCE,
        _source_port,
        lambda m: ", ".join(map(str, m.source_ports)),
        lambda c: str(c.source_port),
    ),
)
"""In Envoy's order."""
