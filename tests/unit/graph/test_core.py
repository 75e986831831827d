"""The engine in small: what is read, when it runs, what it says."""

import pytest

from pilothouse.errors import QueryFailed
from pilothouse.graph.core import SWEEP_AFTER_COMMITS, Ctx, Graph, query
from pilothouse.graph.explain import inputs_of
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.graph.tables import Table

COLOURS = Table[str, str]("colours", {"initial": lambda _key, row: (row[0],)})
REF = ConfigRef("Colour", "", "sky")


@query
def colour(ctx: Ctx, key: str) -> str | None:
    """Return a row."""
    row = ctx.row(COLOURS, key)
    if row == "grey":
        ctx.report(Finding(Severity.WARNING, "Dull", REF, "The sky is grey."))
    return row


@query
def length(ctx: Ctx, key: str) -> int:
    """Return a property of a row that many rows share."""
    return len(ctx.get(colour, key) or "")


@query
def doubled(ctx: Ctx, key: str) -> int:
    """Return something that rests on the property only."""
    return 2 * ctx.get(length, key)


@query
def painted(ctx: Ctx, key: str) -> str:
    """Return a colour by way of the one that the key names at present."""
    name = ctx.row(COLOURS, key) or ""
    return f"{name}:{ctx.get(colour, name)}"


@query
def fragile(ctx: Ctx, key: str) -> int:
    """Fail for a colour that is no colour."""
    if ctx.row(COLOURS, key) == "loud":
        raise ValueError(key)
    return len(ctx.row(COLOURS, key) or "")


@query
def leaning(ctx: Ctx, key: str) -> int:
    """Rest on something fragile."""
    return ctx.get(fragile, key) + 1


@query
def circular(ctx: Ctx, key: str) -> int:
    """Ask for itself."""
    return ctx.get(circular, key)


@pytest.fixture
def graph() -> Graph:
    made = Graph()
    made.commit([(COLOURS, "sky", "blue"), (COLOURS, "sea", "green"), (COLOURS, "sun", "gold")])
    return made


def test_an_equal_value_stops_the_wave(graph: Graph) -> None:
    assert graph.value(doubled, "sky") == 8
    graph.pin(doubled, "sky")
    graph.commit([(COLOURS, "sky", "grey")])
    assert graph.value(doubled, "sky") == 8
    assert sorted(graph.stats.recomputed.values()) == [1, 1]  # not `doubled`


def test_a_row_put_again_is_no_change(graph: Graph) -> None:
    graph.pin(doubled, "sky")
    assert graph.commit([(COLOURS, "sky", "blue")]) == 0
    assert graph.take_dirty() == ()


def test_other_rows_do_not_wake_a_reader(graph: Graph) -> None:
    graph.pin(doubled, "sky")
    graph.commit([(COLOURS, "sea", "black"), (COLOURS, "sand", "yellow")])
    assert graph.take_dirty() == ()


def test_a_row_that_appears_wakes_who_missed_it(graph: Graph) -> None:
    assert graph.value(colour, "grass") is None
    graph.pin(colour, "grass")
    graph.commit([(COLOURS, "grass", "green")])
    assert [node.key for node in graph.take_dirty()] == ["grass"]
    assert graph.value(colour, "grass") == "green"


def test_dependencies_are_those_of_the_last_run(graph: Graph) -> None:
    graph.commit([(COLOURS, "wall", "sky")])
    assert graph.value(painted, "wall") == "sky:blue"
    graph.pin(painted, "wall")
    graph.commit([(COLOURS, "wall", "sea")])
    assert graph.value(painted, "wall") == "sea:green"
    graph.take_dirty()
    graph.commit([(COLOURS, "sky", "red")])
    assert graph.take_dirty() == ()


def test_indexes_follow_their_rows(graph: Graph) -> None:
    @query
    def with_g(ctx: Ctx, _key: None) -> tuple[str, ...]:
        return ctx.where(COLOURS, "initial", "g")

    @query
    def initials(ctx: Ctx, _key: None) -> frozenset[object]:
        return ctx.index_values(COLOURS, "initial")

    assert graph.value(with_g, None) == ("green", "gold")
    assert graph.value(initials, None) == {"b", "g"}
    graph.commit([(COLOURS, "sea", None), (COLOURS, "sky", "gold")])
    assert graph.value(with_g, None) == ("gold", "gold")
    assert graph.value(initials, None) == {"g"}


def test_findings_go_with_what_nobody_needs_any_more(graph: Graph) -> None:
    """At once, not when the node is swept; and they are back when it is needed again."""
    graph.commit([(COLOURS, "wall", "sky"), (COLOURS, "sky", "grey")])
    graph.pin(painted, "wall")
    assert [each.code for each in graph.findings()] == ["Dull"]
    graph.commit([(COLOURS, "wall", "sea")])
    graph.value(painted, "wall")
    assert graph.findings() == ()
    graph.commit([(COLOURS, "wall", "sky")])
    graph.value(painted, "wall")
    assert [each.code for each in graph.findings()] == ["Dull"]
    graph.unpin(painted, "wall")
    assert graph.findings() == ()


def test_findings_of_what_was_asked_once_last_until_the_sweep(graph: Graph) -> None:
    graph.commit([(COLOURS, "sky", "grey")])
    graph.value(doubled, "sky")
    assert [each.code for each in graph.findings()] == ["Dull"]
    for _ in range(SWEEP_AFTER_COMMITS + 1):
        graph.commit([])
    assert graph.findings() == ()
    assert graph.node_count() == 0


def test_a_failure_is_a_finding_and_the_last_good_value_stays(graph: Graph) -> None:
    graph.pin(leaning, "sky")
    graph.commit([(COLOURS, "sky", "loud")])
    assert graph.value(leaning, "sky") == 5
    assert [each.code for each in graph.findings()] == ["InternalError"]
    graph.commit([(COLOURS, "sky", "cyan!")])
    assert graph.value(leaning, "sky") == 6
    assert graph.findings() == ()


def test_a_failure_without_an_old_value_reaches_the_reader(graph: Graph) -> None:
    graph.commit([(COLOURS, "sky", "loud")])
    with pytest.raises(QueryFailed):
        graph.value(leaning, "sky")

    @query
    def careful(ctx: Ctx, key: str) -> int | None:
        return ctx.get_or_none(fragile, key)

    assert graph.value(careful, "sky") is None
    graph.commit([(COLOURS, "sky", "blue")])
    assert graph.value(leaning, "sky") == 5
    assert graph.value(careful, "sky") == 4


def test_a_query_that_asks_for_itself_fails(graph: Graph) -> None:
    with pytest.raises(QueryFailed):
        graph.value(circular, "sky")


def test_provenance_names_the_rows(graph: Graph) -> None:
    assert inputs_of(graph, doubled, "sky") == {("colours", ("row", "sky"))}


def test_pins_are_counted(graph: Graph) -> None:
    graph.pin(length, "sky")
    graph.pin(length, "sky")
    graph.unpin(length, "sky")
    graph.commit([(COLOURS, "sky", "violet")])
    assert [node.key for node in graph.take_dirty()] == ["sky"]
    graph.value(length, "sky")
    graph.unpin(length, "sky")
    graph.commit([(COLOURS, "sky", "red")])
    assert graph.take_dirty() == ()


@query
def palette(ctx: Ctx, _key: None) -> dict[str, str]:
    """Return all colours by name."""
    return {name: ctx.get(colour, name) or "" for name in ctx.keys(COLOURS)}


def test_an_entry_of_a_mapping_wakes_only_its_readers() -> None:
    """Who reads one entry does not run again when another changes, comes or goes."""
    runs: list[str] = []

    @query
    def shade(ctx: Ctx, key: str) -> str:
        runs.append(key)
        return f"dark {ctx.item(palette, None, key)}"

    graph = Graph()
    graph.commit([(COLOURS, "sky", "blue"), (COLOURS, "sea", "green")])
    for name in ("sky", "sea", "sun"):
        graph.pin(shade, name)
    runs.clear()
    graph.commit([(COLOURS, "sea", "grey"), (COLOURS, "sun", "red")])
    assert [graph.value(shade, name) for name in ("sky", "sea", "sun")] == [
        "dark blue",
        "dark grey",
        "dark red",
    ]
    assert sorted(runs) == ["sea", "sun"]
    runs.clear()
    graph.commit([(COLOURS, "sun", None)])
    assert graph.value(shade, "sun") == "dark None"
    assert graph.value(shade, "sky") == "dark blue"
    assert runs == ["sun"]


def test_a_mapping_read_whole_is_a_dependency_whole() -> None:
    """Reading one entry does not hide that the rest was read too."""

    @query
    def summary(ctx: Ctx, key: str) -> str:
        return f"{ctx.item(palette, None, key)} of {len(ctx.get(palette, None))}"

    graph = Graph()
    graph.commit([(COLOURS, "sky", "blue")])
    graph.pin(summary, "sky")
    graph.commit([(COLOURS, "sun", "red")])
    assert graph.value(summary, "sky") == "blue of 2"
