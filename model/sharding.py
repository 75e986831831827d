"""
Shards: a large collection in pieces that stay the same when its other pieces change.

A query that gathers thousands of values would gather them all again for one that changed. In shards
only the piece that holds the changed one is gathered again. Hosts of one domain go together, so
that clients who import the same namespace have the same shards of it, whatever else they import;
hashes divide what is large. They are the same in every process, as what is served depends on them.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, ref
from zlib import crc32

Member = TypeVar("Member")

SHARD_SIZE: Final = 32
"""How many members a shard has at most on average; the gathering of shards grows with 1/32."""


class Place(NamedTuple):
    """A shard: the bucket of its hosts' domains, and which part of the bucket."""

    bucket: int
    part: int


def shard_count(members: int) -> int:
    """Return into how many shards so many members are split: a power of two."""
    return 1 << max(0, (members - 1) // SHARD_SIZE).bit_length()


class Sharding:
    """Where hosts belong: a bucket for their domain, and if that is large one of its parts."""

    __slots__ = ("_parts",)

    def __init__(self, hosts: Collection[str]) -> None:
        """Lay out shards for some hosts; each number of shards is a power of two."""
        members = [0] * shard_count(len(hosts))
        for host in hosts:
            members[_bucket(host, len(members))] += 1
        self._parts = tuple(map(shard_count, members))

    def place(self, host: str) -> Place:
        """Return the shard of a host, for any text."""
        bucket = _bucket(host, len(self._parts))
        return Place(bucket, crc32(host.encode()) & (self._parts[bucket] - 1))


def _bucket(host: str, count: int) -> int:
    domain = host.partition(".")[2] or host
    return crc32(domain.encode()) & (count - 1)


class Sharded(dict[Place, tuple[Member, ...]]):
    """The shards of a collection that are not empty; never changed."""

    __slots__ = ("sharding",)

    def __init__(self, members: Collection[Member], host_of: Callable[[Member], str]) -> None:
        """Split members by their hosts, each shard in their order."""
        hosts = [host_of(member) for member in members]
        self.sharding = Sharding(hosts)
        shards: dict[Place, list[Member]] = {}
        for member, host in zip(members, hosts, strict=True):
            shards.setdefault(self.sharding.place(host), []).append(member)
        super().__init__((place, tuple(shards[place])) for place in sorted(shards))


class Shared(Generic[Member]):
    """Members in order that are held once, however many have worked them out, and hashed once."""

    __slots__ = ("__weakref__", "_hash", "members")

    def __init__(self, members: tuple[Member, ...]) -> None:
        """Hold members; `shared` returns the one that others hold already."""
        self.members = members
        self._hash = hash(members)

    def __hash__(self) -> int:
        """Hash by content."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return self is other or (
            isinstance(other, Shared)
            and self._hash == other._hash
            and bool(self.members == other.members)
        )


_KNOWN: Final[WeakKeyDictionary[Shared[Any], "ref[Shared[Any]]"]] = WeakKeyDictionary()


def shared(members: Iterable[Member]) -> Shared[Member]:
    """Return the one holder of these members; it goes when nobody needs it any more."""
    made = Shared(tuple(members))
    known = _KNOWN.get(made)
    found = known() if known is not None else None
    if found is None:
        found = _KNOWN.setdefault(made, ref(made))()
    return found or made
