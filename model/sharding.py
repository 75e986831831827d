"""
Shards: a large collection in pieces that stay the same when its other pieces change.

A query that gathers thousands of values would gather them all again for one that changed. Split by
the hash of a key, only the piece that holds the changed one is gathered again. The hash is the same
in every process, as the order of what is served depends on it.
"""

from collections.abc import Callable, Collection
from typing import Final, TypeVar
from zlib import crc32

Member = TypeVar("Member")

SHARD_SIZE: Final = 32
"""How many members a shard has at most on average; the gathering of shards grows with 1/32."""


def shard_count(members: int) -> int:
    """Return into how many shards so many members are split: a power of two."""
    return 1 << max(0, (members - 1) // SHARD_SIZE).bit_length()


def shard_of(key: str, count: int) -> int:
    """Return the shard of a key among `count`, a power of two."""
    return crc32(key.encode()) & (count - 1)


def sharded(
    members: Collection[Member], key_of: Callable[[Member], str]
) -> dict[int, tuple[Member, ...]]:
    """Return every shard of some members by number, each in their order."""
    count = shard_count(len(members))
    shards: list[list[Member]] = [[] for _ in range(count)]
    for member in members:
        shards[shard_of(key_of(member), count)].append(member)
    return {number: tuple(shard) for number, shard in enumerate(shards)}
