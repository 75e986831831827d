"""
Addresses of services: written ones, and those found for hosts that bring none (traffic.md 3.13).

The second kind is only for proxies whose agent answers DNS with them. A host's address depends on
the few entries of its block, not on all: an edit wakes nobody else, and a new entry moves no older.
"""

from typing import NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.address_pools import (
    addresses_of_slot,
    allocated_hosts,
    assigned_addresses,
    block_of,
    preferred_slot,
    slots_from,
    taken_slots,
)
from pilothouse.model.inputs import SERVICE_ENTRIES
from pilothouse.model.services import Service


class Claim(NamedTuple):
    """A host of a ServiceEntry that is to get addresses; `host` is in lower case."""

    entry: ObjectKey
    host: str


@query
def block_owners(ctx: Ctx, block: int) -> dict[Claim, int]:
    """Return the slot of each host of a block: the older entry chooses first."""
    rows = ctx.where(SERVICE_ENTRIES, "address_block", block)
    taken = {slot for row in rows for slot in taken_slots(row)}
    owners: dict[Claim, int] = {}
    for row in sorted(rows, key=lambda row: row.meta.age_order):
        for host in allocated_hosts(row):
            preferred = preferred_slot(row.meta.key, host)
            if block_of(preferred) != block or assigned_addresses(row, host):
                continue
            slot = next((each for each in slots_from(preferred) if each not in taken), None)
            if slot is not None:
                taken.add(slot)
                owners[Claim(row.meta.key, host)] = slot
    return owners


@query
def auto_addresses(ctx: Ctx, claim: Claim) -> tuple[str, ...]:
    """
    Return the addresses a host got, IPv4 first: its status wins, else a free slot of its block.

    Source: traffic.md SE-12, 3.13 (ipallocate:IPAllocate).
    """
    row = ctx.row(SERVICE_ENTRIES, claim.entry)
    if row is None or claim.host not in allocated_hosts(row):
        return ()
    assigned = assigned_addresses(row, claim.host)
    if assigned:
        return assigned
    slot = ctx.get(block_owners, block_of(preferred_slot(*claim))).get(claim)
    if slot is not None:
        return addresses_of_slot(slot)
    ctx.report(
        Finding(
            Severity.WARNING,
            "NoAddressLeft",
            row.meta.ref("spec.hosts"),
            f"No address of the pool was free for {claim.host}; TCP to it shares the wildcard "
            "listener.",
            "Set addresses by hand.",
        )
    )
    return ()


def service_addresses(
    ctx: Ctx, service: Service, *, dns_capture: bool, cluster: str = ""
) -> tuple[str, ...]:
    """Return a service's addresses and ranges as proxies of a cluster see them (K8-20)."""
    if service.vips or service.is_kubernetes or not dns_capture:
        return service.vips_in(cluster)
    owner = ObjectKey(service.namespace, service.key.name)
    return ctx.get(auto_addresses, Claim(owner, service.host))
