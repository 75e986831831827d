"""Turns at the authority: how many at once, how fast, and who is sent away."""

import asyncio

import pytest

from pilothouse.certs.gate import Gate
from pilothouse.certs.refusals import SigningOverloaded


async def test_no_more_than_so_many_at_once() -> None:
    gate = Gate(at_once=3, interval_seconds=0)
    inside = most = 0

    async def visit() -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(visit() for _ in range(50)))
    assert most == 3
    assert gate.waiting_count == 0


async def test_they_follow_each_other_at_intervals() -> None:
    """A storm takes its time, however fast the signing."""
    loop = asyncio.get_running_loop()
    gate = Gate(at_once=100, interval_seconds=0.01)
    entered: list[float] = []

    async def visit() -> None:
        async with gate:
            entered.append(loop.time())

    await asyncio.gather(*(visit() for _ in range(8)))
    assert entered == sorted(entered)
    assert entered[-1] - entered[0] >= 7 * 0.01 * 0.9


async def test_a_full_line_sends_away() -> None:
    gate = Gate(at_once=1, max_waiting=1, interval_seconds=0)
    async with gate:
        waiting = asyncio.create_task(gate.__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(SigningOverloaded):
            await gate.__aenter__()
    assert await waiting is gate


@pytest.mark.parametrize("turn_has_come", [False, True])
async def test_who_gives_up_blocks_nobody(turn_has_come: bool) -> None:
    """Also if the turn came in the very moment of giving up."""
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
