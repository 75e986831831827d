"""The debouncer decides when changes are committed (PU-01)."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.runtime.debounce import Debouncer

QUIET = timedelta(milliseconds=100)
LONGEST = timedelta(seconds=10)


def test_first_change_is_due_at_once() -> None:
    """Leading edge: nobody waits for a change that comes alone (issue 2, item 10)."""
    debouncer = Debouncer(QUIET, LONGEST)
    assert debouncer.due is None
    debouncer.changed(5.0)
    assert debouncer.due == 5.0
    assert debouncer.taken(5.0) == 0.0
    assert debouncer.due is None


def test_change_soon_after_another_waits_for_quiet() -> None:
    """What follows closely is held until nothing has come for the quiet time."""
    debouncer = Debouncer(QUIET, LONGEST)
    debouncer.changed(0.0)
    debouncer.taken(0.0)
    debouncer.changed(0.05)
    assert debouncer.due is not None
    assert abs(debouncer.due - 0.15) < 1e-9
    debouncer.changed(0.12)
    assert abs(debouncer.due - 0.22) < 1e-9


def test_endless_changes_are_committed_at_the_cap() -> None:
    """PU-01: a change waits for at most the cap, however many follow it."""
    debouncer = Debouncer(QUIET, LONGEST)
    debouncer.changed(0.0)
    debouncer.taken(0.0)
    for step in range(1, 200):
        debouncer.changed(step * 0.06)
    assert debouncer.due is not None
    assert abs(debouncer.due - 10.06) < 1e-9


def test_change_due_now_stays_due_while_others_join() -> None:
    """A second change in the same moment does not push the leading edge back."""
    debouncer = Debouncer(QUIET, LONGEST)
    debouncer.changed(1.0)
    debouncer.changed(1.0)
    assert debouncer.due == 1.0


def test_quiet_again_means_leading_edge_again() -> None:
    """After a pause of the quiet time the next change is due at once."""
    debouncer = Debouncer(QUIET, LONGEST)
    debouncer.changed(0.0)
    debouncer.taken(0.0)
    debouncer.changed(0.2)
    assert debouncer.due == 0.2


@given(st.lists(st.floats(0, 1), max_size=50))
def test_zero_quiet_never_waits(steps: list[float]) -> None:
    """``--debounce 0`` means no waiting at all."""
    debouncer = Debouncer(timedelta(0), LONGEST)
    now = 0.0
    for step in steps:
        now += step
        debouncer.changed(now)
        assert debouncer.due is not None
        assert debouncer.due <= now


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), min_size=1, max_size=80))
def test_no_change_waits_longer_than_the_cap(script: list[tuple[float, bool]]) -> None:
    """Whatever comes, due is never later than the cap after the first that waits, nor absent."""
    cap = timedelta(seconds=1)
    debouncer = Debouncer(QUIET, cap)
    now, first = 0.0, None
    for step, take in script:
        now += step
        debouncer.changed(now)
        first = now if first is None else first
        assert debouncer.due is not None
        assert debouncer.due <= first + 1.0 + 1e-9
        if take:
            debouncer.taken(now)
            first = None
