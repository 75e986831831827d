"""Which half-open connections are kept when there are too many."""

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.certs.front.half_open import HalfOpens


def fill(kept: HalfOpens, address: str, count: int, now: float, dropped: list[str]) -> None:
    for number in range(count):
        assert kept.enter(address, now, lambda n=number: dropped.append(f"{address}/{n}"))


def test_the_oldest_of_the_own_address_makes_room() -> None:
    """Who connects and says nothing is dropped for the next of the same address."""
    kept, dropped = HalfOpens(total=100, by_address=3, grace_seconds=1.0), []
    fill(kept, "a", 3, 0.0, dropped)
    assert kept.enter("a", 2.0, lambda: None)
    assert dropped == ["a/0"]
    assert len(kept) == 3


def test_a_fresh_storm_is_not_torn_down() -> None:
    """While all are within the grace, newcomers are refused instead."""
    kept, dropped = HalfOpens(total=100, by_address=3, grace_seconds=1.0), []
    fill(kept, "a", 3, 0.0, dropped)
    assert kept.enter("a", 0.5, lambda: None) is None
    assert dropped == []
    assert kept.enter("b", 0.5, lambda: None)


def test_the_address_with_most_makes_room_for_others() -> None:
    """When all places are taken, an honest newcomer is not the one who suffers."""
    kept, dropped = HalfOpens(total=10, by_address=8, grace_seconds=1.0), []
    fill(kept, "honest", 2, 0.0, dropped)
    fill(kept, "greedy", 8, 1.0, dropped)
    assert kept.enter("third", 3.0, lambda: None)
    assert dropped == ["greedy/0"]


def test_leaving_twice_counts_once() -> None:
    kept = HalfOpens(total=10, by_address=8, grace_seconds=1.0)
    entry = kept.enter("a", 0.0, lambda: None)
    assert entry is not None
    kept.leave(entry)
    kept.leave(entry)
    assert len(kept) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 3), st.booleans()), max_size=80))
def test_limits_always_hold(events: list[tuple[str, float, bool]]) -> None:
    """Never more than the limits, whatever comes and goes; what was dropped is gone."""
    kept = HalfOpens(total=9, by_address=4, grace_seconds=1.0)
    alive: dict[object, str] = {}
    now = 0.0
    for address, later, leaves in events:
        now += later
        if leaves and alive:
            entry = next(iter(alive))
            del alive[entry]
            kept.leave(entry)  # type: ignore[arg-type]
            continue
        holder: list[object] = []
        entry = kept.enter(address, now, lambda holder=holder: alive.pop(holder[0]))
        if entry is not None:
            holder.append(entry)
            alive[entry] = address
        assert len(kept) == len(alive) <= 9
        assert all(list(alive.values()).count(each) <= 4 for each in "abcdef")
