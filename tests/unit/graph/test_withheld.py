"""A query may say that it has no fit result: its last good one stays, its own finding is told."""

from pilothouse.graph.core import Graph, query
from pilothouse.graph.explain import mismatches
from pilothouse.graph.findings import ConfigRef, Finding, Severity, Withheld
from pilothouse.graph.tables import Table

NUMBERS = Table("numbers", {})
ODD = Finding(Severity.ERROR, "Odd", ConfigRef("Number", "", "one"), "It is odd.", "Add one.")


@query
def even(ctx, key):
    number = ctx.row(NUMBERS, key)
    if number % 2:
        raise Withheld(ODD)
    return number


@query
def evens(ctx, _):
    return tuple(
        found for key in ctx.keys(NUMBERS) if (found := ctx.get_or_none(even, key)) is not None
    )


def test_the_last_good_result_stays_until_there_is_a_new_one() -> None:
    graph = Graph()
    graph.commit([(NUMBERS, "a", 2), (NUMBERS, "b", 4)])
    assert graph.value(evens, None) == (2, 4)

    graph.commit([(NUMBERS, "a", 3), (NUMBERS, "b", 6)])
    assert graph.value(evens, None) == (2, 6)
    assert graph.findings() == (ODD,)
    assert [node.key for node in graph.failing()] == ["a"]
    assert mismatches(graph) == []

    graph.commit([(NUMBERS, "a", 8)])
    assert graph.value(evens, None) == (8, 6)
    assert graph.findings() == ()
    assert not list(graph.failing())


def test_without_a_good_result_there_is_none() -> None:
    graph = Graph()
    graph.commit([(NUMBERS, "a", 3), (NUMBERS, "b", 4)])
    assert graph.value(evens, None) == (4,)
    assert graph.findings() == (ODD,)


def test_what_is_gone_fails_no_more() -> None:
    graph = Graph()
    graph.commit([(NUMBERS, "a", 3)])
    assert graph.value(evens, None) == ()
    for number in (4, 6, 8, 10):
        graph.commit([(NUMBERS, "a", None), (NUMBERS, "b", number)])
        assert graph.value(evens, None) == (number,)
    assert not list(graph.failing())
