"""
Shards: a large collection in pieces that stay the same when its other pieces change.

A query that gathers thousands of values would gather them all again for one that changed. Split by
the hash of a key, only the piece that holds the changed one is gathered again. The hash is the same
in every process, as the order of what is served depends on it.
"""

from typing import Final
from zlib import crc32

SHARD_SIZE: Final = 32
"""How many members a shard has at most on average; the gathering of shards grows with 1/32."""


def shard_count(members: int) -> int:
    """Return into how many shards so many members are split: a power of two."""
    return 1 << max(0, (members - 1) // SHARD_SIZE).bit_length()


def shard_of(key: str, count: int) -> int:
    """Return the shard of a key among `count`, a power of two."""
    return crc32(key.encode()) & (count - 1)
