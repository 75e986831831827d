"""Laws of the addresses found for ServiceEntry hosts (traffic.md 3.13, SE-02, SE-12)."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.service_entry import (
    OPT_OUT_LABEL,
    AssignedAddress,
    ServiceEntry,
    ServiceEntrySpec,
    ServiceEntryStatus,
)
from pilothouse.graph.core import Graph
from pilothouse.model.address_pools import (
    BLOCK_SIZE,
    IPV4_POOL,
    IPV6_POOL,
    LAST_SLOT,
    addresses_of_slot,
    block_of,
    preferred_slot,
    slot_of_address,
    slots_from,
)
from pilothouse.model.inputs import SERVICE_ENTRIES
from pilothouse.model.service_addresses import Claim, auto_addresses


def entry(
    number: int,
    *,
    age: int | None = None,
    resolution: str = "STATIC",
    addresses: tuple[str, ...] = (),
    assigned: tuple[AssignedAddress, ...] = (),
    labels: dict[str, str] | None = None,
) -> ServiceEntry:
    """Make an entry of one host; its age is a number of seconds, by default its own number."""
    return ServiceEntry(
        meta=ObjectMeta(
            kind="ServiceEntry",
            name=f"e{number}",
            namespace="default",
            created=f"2026-01-01T00:00:{age if age is not None else number:05}Z",
            labels=labels or {},
        ),
        spec=ServiceEntrySpec(
            hosts=(f"h{number}.example",),
            resolution=resolution,  # type: ignore[arg-type]
            addresses=addresses,
        ),
        status=ServiceEntryStatus(addresses=assigned) if assigned else None,
    )


def claim_of(row: ServiceEntry) -> Claim:
    return Claim(row.meta.key, row.spec.hosts[0])


def graph_of(*rows: ServiceEntry) -> Graph:
    graph = Graph()
    graph.commit((SERVICE_ENTRIES, row.meta.key, row) for row in rows)
    return graph


def neighbours(count: int) -> list[int]:
    """Return numbers of entries that all fall into one block."""
    wanted = block_of(preferred_slot(ObjectKey("default", "e0"), "h0.example"))
    found: list[int] = []
    number = 0
    while len(found) < count:
        slot = preferred_slot(ObjectKey("default", f"e{number}"), f"h{number}.example")
        if block_of(slot) == wanted:
            found.append(number)
        number += 1
    return found


CROWD = neighbours(12)


@given(st.lists(st.sampled_from(CROWD), unique=True), st.randoms(use_true_random=False))
def test_addresses_are_unique_of_both_pools_and_do_not_depend_on_the_order(
    numbers: list[int], random: object
) -> None:
    """SE-02, 3.13: one address of each family per host, whatever came first."""
    rows = [entry(number) for number in numbers]
    graph = graph_of(*rows)
    got = {claim_of(row): graph.value(auto_addresses, claim_of(row)) for row in rows}
    assert len(set(got.values())) == len(rows)
    for four, six in got.values():
        assert ip_address(four) in IPV4_POOL
        assert ip_address(six) in IPV6_POOL
    other = Graph()
    random.shuffle(rows)  # type: ignore[attr-defined]
    for row in rows:
        other.commit([(SERVICE_ENTRIES, row.meta.key, row)])
    assert got == {claim: other.value(auto_addresses, claim) for claim in got}


@given(st.lists(st.sampled_from(CROWD), unique=True, min_size=2))
def test_a_younger_entry_moves_no_older_one(numbers: list[int]) -> None:
    rows = [entry(number, age=age) for age, number in enumerate(numbers)]
    graph = graph_of(*rows[:-1])
    before = [graph.value(auto_addresses, claim_of(row)) for row in rows[:-1]]
    graph.commit([(SERVICE_ENTRIES, rows[-1].meta.key, rows[-1])])
    assert before == [graph.value(auto_addresses, claim_of(row)) for row in rows[:-1]]
    assert graph.value(auto_addresses, claim_of(rows[-1]))


def test_addresses_given_by_the_user_or_another_allocator_are_left_to_them() -> None:
    """SE-12, 3.13: what the status or a spec says is neither changed nor given to another."""
    first = entry(1)
    alone = graph_of(first).value(auto_addresses, claim_of(first))
    written = entry(2, addresses=(alone[0],))
    moved = graph_of(first, written).value(auto_addresses, claim_of(first))
    assert moved
    assert set(moved).isdisjoint(alone)

    listed = AssignedAddress(value=alone[1], host="h3.example")
    assigned = entry(3, assigned=(listed,))
    graph = graph_of(first, assigned)
    assert graph.value(auto_addresses, claim_of(assigned)) == (alone[1],)
    assert graph.value(auto_addresses, claim_of(first)) == moved


def test_a_full_block_is_said_and_nobody_shares() -> None:
    rows = [entry(number, age=age) for age, number in enumerate(neighbours(BLOCK_SIZE + 1))]
    graph = graph_of(*rows)
    got = [graph.value(auto_addresses, claim_of(row)) for row in rows]
    given_away = [addresses for addresses in got if addresses]
    assert len(set(given_away)) == len(given_away) >= BLOCK_SIZE - 2
    assert got[-1] == ()
    assert [each.code for each in graph.findings()].count("NoAddressLeft") == got.count(())


def test_hosts_without_a_use_for_an_address_get_none() -> None:
    """3.13: own addresses, resolution NONE, an opt-out label; wildcards are in the golden story."""
    for row in (
        entry(1, addresses=("192.0.2.1",)),
        entry(1, resolution="NONE"),
        entry(1, labels={OPT_OUT_LABEL: "False"}),
    ):
        assert graph_of(row).value(auto_addresses, claim_of(row)) == ()


@given(st.integers(min_value=1, max_value=LAST_SLOT))
def test_slots_and_addresses_name_each_other(slot: int) -> None:
    for address in addresses_of_slot(slot):
        assert slot_of_address(address) == slot
    tried = list(slots_from(slot))
    assert tried[0] == slot
    assert len(set(tried)) == len(tried)
    assert {block_of(each) for each in tried} == {block_of(slot)}


def test_what_is_in_no_pool_has_no_slot() -> None:
    for text in ("240.240.0.0", "240.240.255.255", "10.0.0.1", "2001:2:0:1::", "198.51.100.0/24"):
        assert slot_of_address(text) is None
