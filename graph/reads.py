"""
What a running query reads through; every read becomes a dependency of its node.

Writes down what was read and what was reported; when a query runs is decided by
`pilothouse.graph.core`.
"""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pilothouse.errors import QueryFailed
from pilothouse.graph.findings import Finding
from pilothouse.graph.nodes import ItemRead, Node, Query
from pilothouse.graph.tables import ALL, KEYS, CellKey, Table

if TYPE_CHECKING:
    from pilothouse.graph.core import Graph

K = TypeVar("K", bound=Hashable)
Item = TypeVar("Item", bound=Hashable)
V = TypeVar("V")


class Ctx:
    """See the module docstring; `deps`, `items` and `findings` are what came of a run."""

    __slots__ = ("_graph", "deps", "findings", "items")

    def __init__(self, graph: "Graph") -> None:
        """Start with nothing read."""
        self._graph = graph
        # True: read whole; False: only the entries in `items`.
        self.deps: dict[Node, bool] = {}
        self.items: list[ItemRead] = []
        self.findings: list[Finding] = []

    def get(self, query: Query[K, V], key: K) -> V:
        """
        Return the value of another query.

        Raises: QueryFailed: It has none, not even an old one.
        """
        node = self._graph.read(query, key)
        self.deps[node] = True
        if node.error is not None:
            raise QueryFailed(f"{query.name} failed") from node.error
        return cast("V", node.value)

    def item(self, query: Query[K, Mapping[Item, V]], key: K, item: Item) -> V | None:
        """
        Return one entry of a mapping that another query gives, None if it has none.

        Depends on that entry only: for a mapping that many read and few changes concern.
        Raises: QueryFailed: The query has no value.
        """
        node = self._graph.read(query, key)
        self.deps.setdefault(node, False)
        if node.error is not None:
            self.deps[node] = True
            raise QueryFailed(f"{query.name} failed") from node.error
        found = node.value.get(item)
        self.items.append(ItemRead(node, item, found))
        return cast("V | None", found)

    def get_or_none(self, query: Query[K, V], key: K) -> V | None:
        """Return the value of another query, or None where it failed (it has said so itself)."""
        node = self._graph.read(query, key)
        self.deps[node] = True
        return None if node.error is not None else cast("V", node.value)

    def row(self, table: Table[K, V], key: K) -> V | None:
        """Return the row at `key`, None if absent."""
        return cast("V | None", self._read(table, ("row", key)))

    def rows(self, table: Table[K, V]) -> tuple[V, ...]:
        """Return all rows by key order. Depends on every row: prefer `where`."""
        return cast("tuple[V, ...]", self._read(table, ALL))

    def keys(self, table: Table[K, V]) -> tuple[K, ...]:
        """Return all keys in order. Depends on which rows there are, not on what they say."""
        return cast("tuple[K, ...]", self._read(table, KEYS))

    def where(self, table: Table[K, V], index: str, value: Hashable) -> tuple[V, ...]:
        """Return the rows found under `value` of an index, by key order."""
        return cast("tuple[V, ...]", self._read(table, (f"in:{index}", value)))

    def index_values(self, table: Table[K, V], index: str) -> frozenset[Hashable]:
        """Return the values an index has rows under."""
        return cast("frozenset[Hashable]", self._read(table, (f"names:{index}", None)))

    def report(self, finding: Finding) -> None:
        """Say something about the config that was read."""
        self.findings.append(finding)

    def _read(self, table: Table[Any, Any], cell: CellKey) -> Any:
        node = self._graph.cell(table, cell)
        self.deps[node] = True
        return node.value
