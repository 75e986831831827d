"""
Pools of addresses for ServiceEntry hosts that bring none (traffic.md 3.13).

A slot is a number that stands for one IPv4 and one IPv6 address. Which slots a host may get follows
from its names alone, so that addresses survive restarts without being written down; who gets which
is decided in `pilothouse.model.service_addresses`. Functions of values only.
"""

from collections.abc import Hashable, Iterator
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from pilothouse.api.meta import ObjectKey
from pilothouse.api.names import is_address
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.model.hosts import is_wildcard

IPV4_POOL: Final = IPv4Network("240.240.0.0/16")
IPV6_POOL: Final = IPv6Network("2001:2::/48")
BLOCK_SIZE: Final = 64
"""Slots per block. A host's block is fixed; only hosts of one block can ask for the same slot."""
LAST_SLOT: Final = IPV4_POOL.num_addresses - 2
"""Slots count from 1: neither the network's address nor the last one is given to a host."""


def addresses_of_slot(slot: int) -> tuple[str, str]:
    """Return the IPv4 and the IPv6 address of a slot."""
    return (str(IPV4_POOL[slot]), str(IPV6_POOL[slot]))


def slot_of_address(text: str) -> int | None:
    """Return the slot an address belongs to, None if it is in no pool or no address at all."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address not in (IPV4_POOL if address.version == 4 else IPV6_POOL):
        return None
    first = IPV4_POOL if address.version == 4 else IPV6_POOL
    slot = int(address) - int(first.network_address)
    return slot if 0 < slot <= LAST_SLOT else None


@lru_cache(maxsize=65536)
def preferred_slot(entry: ObjectKey, host: str) -> int:
    """Return the slot a host of an entry asks for first, which also says its block."""
    text = f"{entry.namespace}/{entry.name}/{host}"
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % LAST_SLOT + 1


def block_of(slot: int) -> int:
    """Return the block of a slot."""
    return slot // BLOCK_SIZE


def slots_from(slot: int) -> Iterator[int]:
    """Yield the slots of a block in the order they are tried: `slot`, then the next ones around."""
    first = slot - slot % BLOCK_SIZE
    for step in range(BLOCK_SIZE):
        tried = first + (slot - first + step) % BLOCK_SIZE
        if 0 < tried <= LAST_SLOT:
            yield tried


def allocated_hosts(row: ServiceEntry) -> tuple[str, ...]:
    """Return the hosts of an entry that get addresses of the pools, in lower case."""
    if not row.finds_addresses:
        return ()
    is_dynamic = row.spec.resolution == "DYNAMIC_DNS"
    hosts = dict.fromkeys(host.lower() for host in row.spec.hosts)
    return tuple(host for host in hosts if is_dynamic or not is_wildcard(host))


def assigned_addresses(row: ServiceEntry, host: str) -> tuple[str, ...]:
    """Return what the status says was assigned to a host, IPv4 first (SE-12)."""
    listed = row.status.addresses if row.status else ()
    found = [each.value for each in listed if each.host.lower() == host and is_address(each.value)]
    return tuple(sorted(dict.fromkeys(found), key=lambda text: ":" in text))


def taken_slots(row: ServiceEntry) -> frozenset[int]:
    """Return the slots whose addresses the user, or another allocator, already gave an entry."""
    addresses = list(row.spec.addresses)
    for host in allocated_hosts(row):
        addresses.extend(assigned_addresses(row, host))
    slots = (slot_of_address(address) for address in addresses)
    return frozenset(slot for slot in slots if slot is not None)


def block_index(key: ObjectKey, row: ServiceEntry) -> Iterator[Hashable]:
    """Yield the blocks in which an entry asks for slots or has some."""
    yield from map(block_of, taken_slots(row))
    for host in allocated_hosts(row):
        yield block_of(preferred_slot(key, host))
