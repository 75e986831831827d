"""
Which half-open connections are kept when there are too many; no I/O.

Who connects and says nothing is dropped in favour of newcomers: the oldest of its own address, or
of the address that has most. A storm of honest clients, all fresh, is not torn down for its own
newcomers; those are refused and come again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_network


class Turn(StrEnum):
    """How a connection came to nothing; the values are labels of metrics."""

    HANDSHAKE = "handshake"
    SLOW = "slow"
    DROPPED = "dropped"
    REFUSED = "refused"
    FULL = "full"
    IDENTITY = "identity"
    BACKEND = "backend"


@dataclass(slots=True, eq=False)
class HalfOpen:
    """A connection that is not let in yet; `drop` ends it."""

    address: str
    since: float
    drop: Callable[[], None]


class HalfOpens:
    """All half-open connections; times are seconds of any one clock."""

    def __init__(self, *, total: int, by_address: int, grace_seconds: float) -> None:
        """Keep at most `total`, and `by_address` of one address."""
        self._total = total
        self._by_address_limit = by_address
        self._grace_seconds = grace_seconds
        self._count = 0
        self._by_address: dict[str, dict[HalfOpen, None]] = {}

    def __len__(self) -> int:
        """Count them."""
        return self._count

    def enter(self, address: str, now: float, drop: Callable[[], None]) -> HalfOpen | None:
        """Take a new connection in, dropping an older one if need be; None if it is refused."""
        own = self._by_address.get(address, {})
        if len(own) >= self._by_address_limit:
            crowd = own
        elif self._count >= self._total:
            crowd = max(self._by_address.values(), key=len)
        else:
            crowd = {}
        if crowd:
            oldest = next(iter(crowd))
            if now - oldest.since < self._grace_seconds:
                return None
            self.leave(oldest)
            oldest.drop()
        entry = HalfOpen(address, now, drop)
        self._by_address.setdefault(address, {})[entry] = None
        self._count += 1
        return entry

    def leave(self, entry: HalfOpen) -> None:
        """Forget a connection, which may have been dropped already."""
        own = self._by_address.get(entry.address)
        if own is None or entry not in own:
            return
        del own[entry]
        self._count -= 1
        if not own:
            del self._by_address[entry.address]


def network(host: str) -> str:
    """Return what counts as one address: of IPv6 the /64, which everybody has whole."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, 64), strict=False))
