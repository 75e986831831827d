"""
Laws of the incremental graph, on random graphs under random edits.

Each node sums some inputs and other nodes and rounds the sum, so that many changes stop on the way.
Which other nodes it reads depends on what it read first, as it does in a mesh.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.graph.core import SWEEP_AFTER_COMMITS, Ctx, Graph, Node, Query, firewall
from pilothouse.graph.explain import inputs_of, mismatches, misranked
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.graph.tables import Table

# Drawing a graph takes long on a busy machine, and is no fault of the graph's.
law = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
INPUTS = 5
NODES = 9
FAULTS = Table[int, bool]("faults")
NUMBERS = Table[int, int]("numbers", {"parity": lambda _key, row: (row % 2,)})


class Shape(NamedTuple):
    """
    What a node reads: inputs, nodes before it, more nodes if the sum so far is odd.

    Some are firewalls, and some read entries of a mapping that is one.
    """

    inputs: tuple[int, ...]
    nodes: tuple[int, ...]
    nodes_if_odd: tuple[int, ...]
    counts_parity: bool
    divisor: int
    is_firewall: bool
    entries: tuple[int, ...]


Edit = dict[int, int | None]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Shape, ...]:
    """Draw a graph; node n reads only nodes below n."""
    made = []
    for number in range(NODES):
        earlier = st.lists(st.integers(0, number - 1), max_size=3) if number else st.just([])
        made.append(
            Shape(
                tuple(draw(st.lists(st.integers(0, INPUTS - 1), max_size=2))),
                tuple(draw(earlier)),
                tuple(draw(earlier)),
                draw(st.booleans()),
                draw(st.sampled_from([1, 1, 2, 5])),
                draw(st.booleans()),
                tuple(draw(st.lists(st.integers(0, INPUTS - 1), max_size=2))),
            )
        )
    return tuple(made)


edits = st.dictionaries(
    st.integers(0, INPUTS - 1), st.none() | st.integers(0, 20), min_size=1, max_size=3
)
scripts = st.lists(edits, min_size=1, max_size=6)


@firewall(1)
def halves(ctx: Ctx, _key: None) -> dict[int, int]:
    """Return half of every number; nobody needs to know of more than its own."""
    return {key: (ctx.row(NUMBERS, key) or 0) // 2 for key in range(INPUTS)}


class Queries:
    """The queries of a graph, one for each node: a firewall's rank grows with its number."""

    def __init__(self, shape: tuple[Shape, ...], ran: list[int], *, has_ranks: bool = True) -> None:
        """Make them; each run is noted in `ran`. Without ranks all firewalls have the same."""
        self.shape = shape
        self.ran = ran
        self.by_number: list[Query[int, int]] = []
        for number, own in enumerate(shape):
            rank = (number + 2 if has_ranks else 1) if own.is_firewall else 0
            made = Query[int, int](self.rounded_sum, rank)
            made.name = f"node{number}"
            self.by_number.append(made)

    def __getitem__(self, number: int) -> Query[int, int]:
        """Return the query of a node."""
        return self.by_number[number]

    def rounded_sum(self, ctx: Ctx, number: int) -> int:
        """Compute a node."""
        self.ran.append(number)
        own = self.shape[number]
        total = sum(ctx.row(NUMBERS, key) or 0 for key in own.inputs)
        total += sum(ctx.get(self[each], each) for each in own.nodes)
        total += sum(ctx.item(halves, None, each) or 0 for each in own.entries)
        if own.counts_parity:
            total += len(ctx.where(NUMBERS, "parity", 1))
        if total % 2:
            total += sum(ctx.get(self[each], each) for each in own.nodes_if_odd)
        if total % 7 == 3:
            ref = ConfigRef("Node", "", str(number))
            ctx.report(Finding(Severity.INFO, "Lucky", ref, f"{total} it is."))
        return total // own.divisor


def commit(graph: Graph, edit: Edit) -> None:
    graph.commit((NUMBERS, key, row) for key, row in edit.items())


def from_scratch(shape: tuple[Shape, ...], rows: Edit) -> tuple[list[int], tuple[Finding, ...]]:
    """Evaluate everything anew."""
    graph = Graph()
    commit(graph, {key: row for key, row in rows.items() if row is not None})
    queries = Queries(shape, [])
    return [graph.value(queries[number], number) for number in range(NODES)], graph.findings()


@law
@given(shapes(), scripts)
def test_incremental_equals_from_scratch(shape: tuple[Shape, ...], script: list[Edit]) -> None:
    """Values and findings, after every edit."""
    graph, rows = Graph(), dict[int, int | None]()
    queries = Queries(shape, [])
    for number in range(NODES):
        graph.pin(queries[number], number)
    for edit in script:
        rows.update(edit)
        commit(graph, edit)
        values = [graph.value(queries[number], number) for number in range(NODES)]
        assert (values, graph.findings()) == from_scratch(shape, rows)
        assert mismatches(graph) == []
        assert misranked(graph) == []


@law
@given(shapes(), scripts)
def test_firewalls_out_of_order_cost_work_but_no_truth(
    shape: tuple[Shape, ...], script: list[Edit]
) -> None:
    """Firewalls that rest on each other at one rank: after every edit all is as from scratch."""
    graph, rows = Graph(), dict[int, int | None]()
    queries = Queries(shape, [], has_ranks=False)
    seen = {number: graph.pin(queries[number], number).value for number in range(NODES)}
    for edit in script:
        rows.update(edit)
        commit(graph, edit)
        for node in graph.take_dirty():
            seen[node.key] = graph.fresh(queries[node.key], node.key).value
        assert ([*seen.values()], graph.findings()) == from_scratch(shape, rows)
        assert mismatches(graph) == []


@law
@given(shapes(), scripts, st.integers(0, NODES), st.integers(0, NODES - 1))
def test_who_reads_while_waves_wait_sees_the_truth(
    shape: tuple[Shape, ...], script: list[Edit], settled: int, asked: int
) -> None:
    """Firewalls are settled in slices; a reader in between finishes them first."""
    graph, rows = Graph(), dict[int, int | None]()
    queries = Queries(shape, [])
    for number in range(NODES):
        graph.pin(queries[number], number)
    for edit in script:
        rows.update(edit)
        before = graph.moment
        commit(graph, edit)
        slices = graph.settle_firewalls()
        for _ in zip(range(settled), slices, strict=False):
            pass
        assert graph.value(queries[asked], asked) == from_scratch(shape, rows)[0][asked]
        assert list(slices) == []
        dirty = {node.key for node in graph.take_dirty()}
        values = [graph.value(queries[number], number) for number in range(NODES)]
        assert values == from_scratch(shape, rows)[0]
        changed = {node.key for node in graph.pinned() if node.changed_at > before}
        assert changed <= dirty


@law
@given(shapes(), scripts)
def test_a_wave_marks_nothing_behind_what_stays_the_same(
    shape: tuple[Shape, ...], script: list[Edit]
) -> None:
    """Nodes that are looked at have, without a firewall between, something that did change."""
    graph = Graph()
    queries = Queries(shape, [])
    nodes = [graph.pin(queries[number], number) for number in range(NODES)]
    for edit in script:
        had = {node: {dep: dep.value for dep in node.deps} for node in nodes}
        commit(graph, edit)
        reached = {node.key for node in graph.take_dirty()}
        may: set[Node] = set()
        for node in nodes:
            for dep, value in had[node].items():
                is_open = dep.query is not None and not dep.query.rank
                if differs(shape[node.key], dep, value) or (is_open and dep in may):
                    may.add(node)
        assert reached <= {node.key for node in may}


def differs(reader: Shape, dep: Node, before: Any) -> bool:
    """Tell whether what a node has read of another is not what it was."""
    if dep.query is not halves:
        return bool(dep.value != before)
    return any(dep.value.get(each) != before.get(each) for each in reader.entries)


@law
@given(shapes(), scripts)
def test_only_what_read_something_changed_runs_and_once(
    shape: tuple[Shape, ...], script: list[Edit]
) -> None:
    """Early cut-off: a node runs if and only if a value it read last time is another now."""
    graph, ran = Graph(), list[int]()
    queries = Queries(shape, ran)
    nodes = [graph.pin(queries[number], number) for number in range(NODES)]
    for edit in script:
        had = {node: {dep: dep.value for dep in node.deps} for node in nodes}
        ran.clear()
        commit(graph, edit)
        for node in nodes:
            graph.fresh(queries[node.key], node.key)
        affected = [
            node.key
            for node, deps in had.items()
            if any(differs(shape[node.key], dep, value) for dep, value in deps.items())
        ]
        assert sorted(ran) == sorted(affected)
        assert graph.stats.total == len(affected) + graph.stats.recomputed.get(halves.name, 0)


@law
@given(shapes(), scripts)
def test_every_root_whose_value_changed_is_reported_dirty(
    shape: tuple[Shape, ...], script: list[Edit]
) -> None:
    """A listener who only looks at dirty roots misses nothing."""
    graph = Graph()
    queries = Queries(shape, [])
    seen = {number: graph.pin(queries[number], number).value for number in range(NODES)}
    for edit in script:
        commit(graph, edit)
        for node in graph.take_dirty():
            seen[node.key] = graph.fresh(queries[node.key], node.key).value
        assert seen == {number: graph.value(queries[number], number) for number in range(NODES)}
        assert graph.take_dirty() == ()


@law
@given(shapes(), scripts, st.sets(st.integers(0, NODES - 1)))
def test_sweep_leaves_only_what_roots_need(
    shape: tuple[Shape, ...], script: list[Edit], kept: set[int]
) -> None:
    """Unpinned roots go with all that only they needed, findings and input cells included."""
    graph = Graph()
    queries = Queries(shape, [])
    for number in range(NODES):
        graph.pin(queries[number], number)
    for edit in script:
        commit(graph, edit)
        for number in range(NODES):
            graph.value(queries[number], number)
    for number in set(range(NODES)) - kept:
        graph.unpin(queries[number], number)
    for _ in range(SWEEP_AFTER_COMMITS + 1):
        commit(graph, {})
    needed = {node for number in kept for node in closure(graph.fresh(queries[number], number))}
    assert graph.node_count() == sum(node.query is not None for node in needed)
    assert set(held_cells(graph)) == {node for node in needed if node.query is None}
    said = {finding for node in needed for finding in node.findings}
    assert set(graph.findings()) == said


@law
@given(shapes(), scripts)
def test_inputs_of_names_what_a_value_rests_on(
    shape: tuple[Shape, ...], script: list[Edit]
) -> None:
    """Provenance: a change of any other input leaves the value as it is."""
    graph, rows = Graph(), dict[int, int | None]()
    queries = Queries(shape, [])
    for edit in script:
        rows.update(edit)
        commit(graph, edit)
    for number in range(NODES):
        value = graph.value(queries[number], number)
        cells = inputs_of(graph, queries[number], number)
        if any(cell[0].startswith("in:") for _, cell in cells):
            continue  # it rests on a property of all rows
        read = {cell[1] for _, cell in cells}
        others = {key: 19 for key in range(INPUTS) if key not in read}
        assert from_scratch(shape, {**rows, **others})[0][number] == value


@law
@given(shapes(), scripts, st.integers(0, NODES - 1))
def test_a_failing_node_keeps_its_last_good_value(
    shape: tuple[Shape, ...], script: list[Edit], fragile: int
) -> None:
    """A query that raises says so and spoils nobody; when it works again, nothing remains."""
    graph, rows = Graph(), dict[int, int | None]()
    queries = Queries(shape, [])
    query = queries[fragile]
    compute: Callable[[Ctx, int], int] = query.compute

    def sometimes(ctx: Ctx, number: int) -> int:
        if number == fragile and ctx.row(FAULTS, number):
            raise ArithmeticError
        return compute(ctx, number)

    query.compute = sometimes
    nodes = [graph.pin(queries[number], number) for number in range(NODES)]
    for step, edit in enumerate(script):
        rows.update(edit)
        last_good = graph.value(queries[fragile], fragile)
        is_broken = step % 2 == 0
        graph.commit([(FAULTS, fragile, is_broken)])
        commit(graph, edit)
        values = [graph.value(queries[number], number) for number in range(NODES)]
        assert [node.key for node in graph.failing()] == [fragile] * is_broken
        assert all(node.error is None for node in nodes)
        if is_broken:
            assert values[fragile] == last_good
        else:
            assert (values, graph.findings()) == from_scratch(shape, rows)
        assert mismatches(graph) == []


def closure(root: Node) -> Iterator[Node]:
    """Yield a node and all it rests on."""
    seen = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        for dep in node.deps:
            if dep not in seen:
                seen.add(dep)
                stack.append(dep)


def held_cells(graph: Graph) -> Iterator[Any]:
    """Yield the input cells a graph still holds."""
    for cells in graph._cells.values():
        yield from cells.values()
