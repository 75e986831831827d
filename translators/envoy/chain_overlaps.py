"""
Chains of one listener made disjoint: Envoy refuses a listener where two could take one connection.

The first to claim a name on a range keeps it; a later one keeps the rest of what it wanted, and
whoever wrote it is told. Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from pilothouse.graph.findings import Finding, Severity
from pilothouse.translators.envoy.tcp_routes import TcpChain

_ALL = ""
"""Every name, or every address."""


def told_apart(chains: Iterable[TcpChain], report: Callable[[Finding], None]) -> Iterator[TcpChain]:
    """Yield the chains without what an earlier one takes; one may come out as several."""
    taken: set[tuple[str, str]] = set()
    for chain in chains:
        ranges = tuple(dict.fromkeys(_network(cidr) for cidr in chain.cidrs)) or (_ALL,)
        names = tuple(dict.fromkeys(_folded(name) for name in chain.sni)) or (_ALL,)
        free: dict[tuple[str, ...], list[str]] = {}
        lost = []
        for name in names:
            left = tuple(each for each in ranges if (name, each) not in taken)
            if left != ranges:
                lost.append(name)
            if left:
                free.setdefault(left, []).append(name)
        if lost and chain.routed_by is not None:
            report(_shadowed(chain, lost))
        for left, own in free.items():
            taken.update((name, each) for name in own for each in left)
            yield replace(
                chain,
                sni=tuple(name for name in own if name != _ALL),
                cidrs=tuple(each for each in left if each != _ALL),
            )


def _folded(name: str) -> str:
    return _ALL if name == "*" else name.lower()


def _network(cidr: str) -> str:
    return str(ip_network(cidr, strict=False))


def _shadowed(chain: TcpChain, lost: list[str]) -> Finding:
    shown = ", ".join(name or "connections" for name in lost)
    source = chain.routed_by or chain.source
    return Finding(
        Severity.WARNING,
        "ShadowedMatch",
        source.ref,
        f"An earlier rule on the same port takes {shown} already; this one never sees them.",
        "Remove the name or address range from one of the two.",
    )
