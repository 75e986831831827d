"""The right of way of pushes: while one is under way it is closed, but never for long."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from virtual_time import run

from pilothouse.certs.precedence import BREAK_SECONDS, LONGEST_SECONDS, Precedence, RightOfWay

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end"]),
        st.one_of(st.floats(0, 0.3), st.sampled_from([0.0, 0.001, 0.1, 0.025, 0.125])),
    ),
    max_size=40,
)


def test_closed_from_the_beginning_to_the_end_of_a_push() -> None:
    way = RightOfWay()
    way.begin(10)
    assert way.is_closed
    way.begin(10.01)  # the commit, after the notice
    way.look(10.04)
    assert way.is_closed
    way.end(10.05)
    assert not way.is_closed
    assert way.look_at() is None


def test_a_long_push_leaves_breaks() -> None:
    way = RightOfWay(longest_seconds=0.1, break_seconds=0.025)
    way.begin(0)
    assert way.look_at() == 0.1
    way.look(0.1)
    assert not way.is_closed
    assert way.look_at() == 0.125
    way.look(0.1249)
    assert not way.is_closed
    way.look(0.1250001)
    assert way.is_closed


def test_an_end_does_not_give_credit_back_at_once() -> None:
    """Pushes that follow each other without a pause are one long push."""
    way = RightOfWay(longest_seconds=0.1, break_seconds=0.025)
    for step in range(10):
        way.begin(step * 0.01)
        way.end(step * 0.01 + 0.01)
    way.begin(0.1)
    assert not way.is_closed


def _timeline(steps: list[tuple[str, float]]) -> list[tuple[float, float, bool]]:
    """Return (from, to, closed) stretches, looked at whenever the rule asks for it."""
    way, now, found = RightOfWay(), 0.0, []
    for action, pause in steps:
        (way.begin if action == "begin" else way.end)(now)
        until = now + pause
        while now < until:
            at = way.look_at()
            stop = until if at is None else min(until, max(at, now))
            found.append((now, stop, way.is_closed))
            now = stop
            way.look(now)
    return found


@given(STEPS)
def test_open_for_its_share_of_any_stretch(steps: list[tuple[str, float]]) -> None:
    """Whatever is pushed: within any time T, open for (T - longest) * break / (longest + break)."""
    stretches = _timeline(steps)
    share = BREAK_SECONDS / (LONGEST_SECONDS + BREAK_SECONDS)
    for first in range(len(stretches)):
        opened = 0.0
        for begin, end, is_closed in stretches[first:]:
            opened += 0.0 if is_closed else end - begin
            length = end - stretches[first][0]
            assert opened >= (length - LONGEST_SECONDS) * share - 1e-6


@given(STEPS)
def test_open_whenever_nothing_is_pushed(steps: list[tuple[str, float]]) -> None:
    way, now = RightOfWay(), 0.0
    for action, pause in steps:
        (way.begin if action == "begin" else way.end)(now)
        if action == "end":
            assert not way.is_closed
            assert way.look_at() is None
        now += pause


def test_whoever_heeds_it_is_told_of_breaks() -> None:
    """Told once per change, also when nothing happens but time."""
    told: list[tuple[float, bool]] = []

    async def push() -> None:
        loop = asyncio.get_running_loop()
        precedence = Precedence(RightOfWay(longest_seconds=0.1, break_seconds=0.025))
        precedence.heed(lambda is_closed: told.append((round(loop.time(), 6), is_closed)))
        precedence.begin()
        precedence.begin()
        await asyncio.sleep(0.2)
        precedence.end()
        precedence.end()
        await asyncio.sleep(1)

    run(push())
    assert told == [(0.0, True), (0.1, False), (0.125, True), (0.2, False)]
