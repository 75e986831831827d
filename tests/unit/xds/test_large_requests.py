"""What one client asks for must not keep the others waiting, nor fill memory."""

import asyncio

import pytest
from fake_proxy import NODE_ID, node
from xds_catalog import Catalog

from pilothouse.model.resource import CDS, ECDS, EDS, RDS, SDS
from pilothouse.xds.node import read_proxy
from pilothouse.xds.publisher import MANY_NAMES, Publisher
from pilothouse.xds.requests import DeltaRequest, InvalidRequest, SotwRequest, Variant
from pilothouse.xds.subscription import MAX_CHARACTERS, MAX_NAME_LENGTH, most_names


class Ticking:
    """A clock that goes on by a millisecond whenever somebody looks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 0.001
        return self.seconds


def joined(variant=Variant.DELTA):
    catalog = Catalog()
    publisher = Publisher(catalog.graph, catalog, Ticking())
    return catalog.graph, publisher.join(read_proxy(node(NODE_ID)), variant, lambda: None)


@pytest.mark.parametrize("variant", list(Variant))
async def test_others_run_while_thousands_of_names_are_looked_at(variant):
    """Names that nobody knows cost as much as others: 100,000 of them took 5 to 40 seconds."""
    graph, member = joined(variant)
    names = tuple(map(str, range(2_000)))
    request = (
        DeltaRequest(type_url=RDS, subscribe=names)
        if variant is Variant.DELTA
        else SotwRequest(type_url=RDS, names=names)
    )
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    await member.look_ahead(request)
    running.cancel()
    assert turns > 100
    run_before = graph.stats.total
    member.receive(request, 0.0)
    assert graph.stats.total == run_before, "nothing is left to evaluate"
    await member.look_ahead(request)
    assert graph.stats.total == run_before


async def test_two_large_requests_take_turns():
    """The slices of all of them together are no longer than those of one."""
    graph, member = joined()
    names = [tuple(f"{who}-{n}" for n in range(500)) for who in range(3)]
    running = [
        asyncio.create_task(member.look_ahead(DeltaRequest(type_url=EDS, subscribe=each)))
        for each in names
    ]
    most, before = 0, graph.stats.total
    while not all(task.done() for task in running):
        await asyncio.sleep(0)
        now = graph.stats.total
        most, before = max(most, now - before), now
    assert 0 < most <= 10, "five milliseconds of this clock are five names"


async def test_small_requests_cost_nothing_more():
    """Most ask for a few names."""
    graph, member = joined()
    before = graph.stats.total
    names = tuple(map(str, range(MANY_NAMES)))
    await member.look_ahead(DeltaRequest(type_url=RDS, subscribe=names))
    assert graph.stats.total == before


@pytest.mark.parametrize("type_url", [EDS, RDS, SDS, ECDS, CDS, "of nobody"])
def test_names_are_bounded_by_type(type_url):
    """As many as a mesh may have; of secrets fewer; of types that nobody serves hardly any."""
    _, member = joined()
    most = most_names(type_url)
    names = tuple(map(str, range(most)))
    member.receive(DeltaRequest(type_url=type_url, subscribe=names), 0.0)
    with pytest.raises(InvalidRequest, match=f"more than {most} resource names"):
        member.receive(DeltaRequest(type_url=type_url, subscribe=("one more",)), 0.0)
    _, member = joined()
    versions = dict.fromkeys((*names, "one more"), "1")
    with pytest.raises(InvalidRequest, match=f"more than {most} resource names"):
        member.receive(DeltaRequest(type_url=type_url, initial_versions=versions), 0.0)
    _, member = joined(Variant.SOTW)
    with pytest.raises(InvalidRequest, match=f"more than {most} resource names"):
        member.receive(SotwRequest(type_url=type_url, names=(*names, "one more")), 0.0)
    assert most_names("of nobody") < most_names(SDS) < most_names(EDS)


def test_names_are_bounded_together():
    """A hundred thousand of the longest names would be 200 MB for each type of each stream."""
    few = MAX_CHARACTERS // MAX_NAME_LENGTH
    _, member = joined()
    for start in range(0, few, 1_000):
        names = tuple(f"{n:0{MAX_NAME_LENGTH}}" for n in range(start, min(few, start + 1_000)))
        member.receive(DeltaRequest(type_url=EDS, subscribe=names), 0.0)
    gone = f"{0:0{MAX_NAME_LENGTH}}"
    another = "x" * MAX_NAME_LENGTH
    with pytest.raises(InvalidRequest, match="too long, all together"):
        member.receive(DeltaRequest(type_url=EDS, subscribe=(another,)), 0.0)
    _, member = joined()
    for start in range(0, few, 1_000):
        names = tuple(f"{n:0{MAX_NAME_LENGTH}}" for n in range(start, min(few, start + 1_000)))
        member.receive(DeltaRequest(type_url=EDS, subscribe=names), 0.0)
    member.receive(DeltaRequest(type_url=EDS, subscribe=(another,), unsubscribe=(gone,)), 0.0)
    _, member = joined(Variant.SOTW)
    names = tuple(f"{n:0{MAX_NAME_LENGTH}}" for n in range(few + 1))
    with pytest.raises(InvalidRequest, match="too long, all together"):
        member.receive(SotwRequest(type_url=EDS, names=names), 0.0)
