"""Turns at the authority: how many at once, how fast, in which order, and who is sent away."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from pilothouse.certs.gate import Gate
from pilothouse.certs.precedence import Precedence, RightOfWay
from pilothouse.certs.refusals import SigningOverloaded

HERE = "10.0.0.1"


def test_no_more_than_so_many_at_once() -> None:
    gate = Gate(at_once=3, interval_seconds=0)
    inside = most = 0

    async def visit() -> None:
        nonlocal inside, most
        await gate.turn(HERE)
        async with gate:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1

    async def main() -> None:
        await asyncio.gather(*(visit() for _ in range(50)))

    run(main())
    assert most == 3
    assert gate.waiting_count == 0


def test_turns_follow_each_other_at_intervals() -> None:
    """A storm takes its time, however fast the signing; who comes alone does not wait."""
    entered: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(at_once=100, interval_seconds=0.01)

        async def visit() -> None:
            await gate.turn(HERE)
            async with gate:
                entered.append(loop.time())

        await asyncio.gather(*(visit() for _ in range(8)))
        await asyncio.sleep(1)
        await visit()

    run(main())
    assert entered == pytest.approx([0.01 * turn for turn in range(8)] + [1.07])


def test_addresses_take_turns() -> None:
    """Strangers wait in the same line, so whoever sends thousands of calls delays only itself."""
    turns: list[str] = []

    async def main() -> None:
        gate = Gate(interval_seconds=0.002)

        async def visit(address: str) -> None:
            await gate.turn(address)
            turns.append(address)

        greedy = [asyncio.create_task(visit("greedy")) for _ in range(500)]
        await asyncio.sleep(0)
        await asyncio.gather(*(visit(f"modest {n}") for n in range(5)))
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)
        assert gate.waiting_count == 0

    run(main())
    assert len(turns) <= 8
    assert {f"modest {n}" for n in range(5)} < set(turns)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=60))
@settings(max_examples=50)
def test_no_address_waits_for_many_turns_of_another(calls: list[tuple[int, int]]) -> None:
    """Whoever comes when: who waits sees each other address once, and a turn that was under way."""
    waiting: Counter[str] = Counter()
    since_turn: dict[str, Counter[str]] = {}

    async def main() -> None:
        gate = Gate(interval_seconds=0.002)

        async def visit(address: str, after_ms: int) -> None:
            await asyncio.sleep(after_ms / 1000)
            if not waiting[address]:
                since_turn[address] = Counter()
            waiting[address] += 1
            await gate.turn(address)
            waiting[address] -= 1
            for other, had in since_turn.items():
                if other != address and waiting[other]:
                    had[address] += 1
                    assert had[address] <= 2
            since_turn[address] = Counter()

        await asyncio.gather(*(visit(f"{who}", after) for who, after in calls))
        assert gate.waiting_count == 0

    run(main())


def test_who_has_had_a_turn_goes_before_those_who_have_not() -> None:
    """And nobody has one while somebody is at the door: what is looked at gets done."""

    async def main() -> None:
        gate = Gate(at_once=1, interval_seconds=0)
        await gate.turn("b")
        async with gate:
            at_door = asyncio.create_task(gate.__aenter__())
            newcomer = asyncio.create_task(gate.turn("c"))
            await asyncio.sleep(1)
            assert not at_door.done()
        await at_door
        await asyncio.sleep(1)
        assert not newcomer.done()
        await gate.__aexit__(None, None, None)
        await newcomer

    run(main())


def test_slow_senders_hold_no_place() -> None:
    """Between its turn and its message a call costs nobody anything."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        gate = Gate(at_once=2, interval_seconds=0.002)
        for _ in range(100):
            await gate.turn("slow")
        began = loop.time()
        await gate.turn(HERE)
        async with gate:
            return loop.time() - began

    assert run(main()) <= 0.004


def test_nobody_enters_while_config_is_pushed() -> None:
    """Issue 4: counted, in a storm of 5,000, with pushes of 20 ms after every 50 ms."""
    inside_wave: list[float] = []
    passed: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        precedence = Precedence()
        gate = Gate(precedence=precedence, interval_seconds=0.002)

        async def ask() -> None:
            while True:
                await gate.turn(HERE)
                if precedence.is_closed:
                    inside_wave.append(loop.time())
                async with gate:
                    if precedence.is_closed:
                        inside_wave.append(loop.time())
                    passed.append(loop.time())
                    await asyncio.sleep(0.001)

        asking = [asyncio.create_task(ask()) for _ in range(5_000)]
        for _ in range(10):
            await asyncio.sleep(0.05)
            precedence.begin()
            await asyncio.sleep(0.02)
            assert precedence.is_closed
            precedence.end()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    run(main())
    assert inside_wave == []
    assert len(passed) > 200


@pytest.mark.parametrize(("longest", "pause"), [(0.1, 0.025), (0.05, 0.01)])
def test_constant_pushes_do_not_starve_it(longest: float, pause: float) -> None:
    """At least one enters in each break, and so many as fit its pace."""
    passed: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        precedence = Precedence(RightOfWay(longest, pause))
        gate = Gate(precedence=precedence, interval_seconds=0.002)

        async def ask() -> None:
            await gate.turn(HERE)
            async with gate:
                passed.append(loop.time())

        asking = [asyncio.create_task(ask()) for _ in range(500)]
        while loop.time() < 2:
            precedence.begin()
            await asyncio.sleep(0.003)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    run(main())
    gaps = [later - earlier for earlier, later in pairwise(passed)]
    assert max(gaps) <= longest + 0.01
    assert len(passed) >= 2 / (longest + pause) * (pause / 0.002) * 0.7


def test_a_full_line_sends_away_but_one_of_each_address() -> None:
    async def main() -> None:
        gate = Gate(at_once=1, max_waiting=2, interval_seconds=0)
        async with gate:
            waiting = [asyncio.create_task(gate.turn("a")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(SigningOverloaded):
                await gate.turn("a")
            waiting += [asyncio.create_task(gate.turn(address)) for address in "bc"]
            await asyncio.sleep(0)
            with pytest.raises(SigningOverloaded):
                await gate.turn("d")
        await asyncio.gather(*waiting)
        assert gate.waiting_count == 0

    run(main())


def test_a_full_door_sends_away() -> None:
    async def main() -> None:
        gate = Gate(at_once=1, max_waiting=1, interval_seconds=0)
        async with gate:
            waiting = asyncio.create_task(gate.__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(SigningOverloaded):
                await gate.__aenter__()
        assert await waiting is gate

    run(main())


@pytest.mark.parametrize("turn_has_come", [False, True])
def test_who_gives_up_blocks_nobody(turn_has_come: bool) -> None:
    """Also if the turn came in the very moment of giving up."""

    async def main() -> None:
        gate = Gate(at_once=1, interval_seconds=0)
        await gate.__aenter__()
        quitter = asyncio.create_task(gate.__aenter__())
        patient = asyncio.create_task(gate.__aenter__())
        await asyncio.sleep(0)
        if turn_has_come:
            await gate.__aexit__(None, None, None)
            quitter.cancel()
        else:
            quitter.cancel()
            await gate.__aexit__(None, None, None)
        async with asyncio.timeout(5):
            assert await patient is gate
        with pytest.raises(asyncio.CancelledError):
            await quitter

    run(main())


def test_who_gives_up_in_the_line_leaves_no_gap() -> None:
    async def main() -> None:
        gate = Gate(interval_seconds=0.01)
        await gate.turn("a")
        quitters = [asyncio.create_task(gate.turn(address)) for address in "abab"]
        patient = asyncio.create_task(gate.turn("c"))
        await asyncio.sleep(0)
        for task in quitters:
            task.cancel()
        await patient
        assert asyncio.get_running_loop().time() == pytest.approx(0.01)
        assert gate.waiting_count == 0

    run(main())
