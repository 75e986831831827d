"""
Questions about the graph: which inputs made a value, and is it right.

Reads nodes and never changes them, but for `mismatches`, which builds a second graph of its own.
"""

from collections.abc import Iterator
from typing import Any

from pilothouse.errors import QueryFailed
from pilothouse.graph.core import Graph, Node, Query
from pilothouse.graph.tables import CellKey


def inputs_of(graph: Graph, query: Query[Any, Any], key: Any) -> frozenset[tuple[str, CellKey]]:
    """Return the input cells (table name, cell) that a value rests on."""
    return frozenset(node.key for node in _ancestors(graph.fresh(query, key)) if not node.query)


def _ancestors(root: Node) -> Iterator[Node]:
    seen = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        for dep in node.deps:
            if dep not in seen:
                seen.add(dep)
                stack.append(dep)


def mismatches(graph: Graph) -> list[str]:
    """
    Rebuild every pinned root from the inputs alone and name those that differ.

    Roots that hold a last good value after a failure rest on history and are skipped.
    """
    scratch = Graph()
    scratch.commit(
        (store.table, key, row) for store in graph.tables() for key, row in store.rows.items()
    )
    held = _resting_on_history(graph)
    wrong = []
    for node in list(graph.pinned()):
        if node.query is None:
            continue
        current = graph.fresh(node.query, node.key)
        if node in held or current.error is not None:
            continue
        try:
            if scratch.value(node.query, node.key) != current.value:
                wrong.append(f"{node.query}({node.key!r})")
        except QueryFailed as failure:
            wrong.append(f"{node.query}({node.key!r}): {failure}")
    return wrong


def misranked(graph: Graph) -> list[str]:
    """Name the firewalls that rest on one of their own rank or a higher: they may run twice."""
    above: dict[Node, int] = {}
    for root in graph.pinned():
        _rank_above(root, above)
    return sorted(
        f"{node.query} of rank {node.query.rank} at {node.key!r} rests on rank {rank}"
        for node, rank in above.items()
        if node.query is not None and 0 < node.query.rank <= rank
    )


def _rank_above(node: Node, known: dict[Node, int]) -> int:
    """Return the highest rank that a node rests on, noting it for all nodes on the way."""
    found = known.get(node)
    if found is None:
        ranks = (max(dep.query.rank, _rank_above(dep, known)) for dep in node.deps if dep.query)
        found = known[node] = max(ranks, default=0)
    return found


def _resting_on_history(graph: Graph) -> set[Node]:
    # What failed keeps its last good value, and so does whatever was computed from it.
    held = set(graph.failing())
    stack = list(held)
    while stack:
        for dependent in stack.pop().rdeps:
            if dependent not in held:
                held.add(dependent)
                stack.append(dependent)
    return held
