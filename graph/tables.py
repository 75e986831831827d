"""
Input tables: the rows that come from outside, and their indexes.

A row is read by key, by an index value, or all together; each way of reading is a cell that
queries depend on, so that a change wakes only the readers of what changed. A table is a
declaration; its rows live in a `TableStore` that belongs to one graph.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

CellKey = tuple[str, Hashable]
"""What of a table is read: a way ("row", "all", "keys", "names:<index>", "in:<index>"), a value."""

ALL: Final[CellKey] = ("all", None)
KEYS: Final[CellKey] = ("keys", None)

FEW_KEYS: Final = 8


class Table(Generic[K, V]):
    """
    A kind of input: rows of type V under keys of type K.

    `indexes` maps an index name to a function from (key, row) to the values it is found under.
    """

    __slots__ = ("indexes", "name")

    def __init__(
        self, name: str, indexes: Mapping[str, Callable[[K, V], Iterable[Hashable]]] | None = None
    ) -> None:
        """Declare the table; it holds no rows itself."""
        self.name = name
        self.indexes = dict(indexes or {})

    def __repr__(self) -> str:
        """Show the name, for error texts."""
        return f"Table({self.name})"


class TableStore:
    """The rows of one table in one graph, with its indexes kept up to date."""

    __slots__ = ("_buckets", "_sorted", "rows", "table")

    def __init__(self, table: Table[Any, Any]) -> None:
        """Start empty."""
        self.table = table
        self.rows: dict[Any, Any] = {}
        # A bucket is a tuple until it is large: most hold one key, and there are thousands.
        self._buckets: dict[str, dict[Hashable, tuple[Any, ...] | dict[Any, None]]] = {
            name: {} for name in table.indexes
        }
        self._sorted: dict[CellKey, tuple[Any, ...]] = {}

    def put(self, key: Any, row: Any | None) -> set[CellKey]:
        """Set or (None) remove a row; return the cells whose value may have changed."""
        old = self.rows.get(key)
        if row == old:
            return set()
        if row is None:
            del self.rows[key]
        else:
            self.rows[key] = row
        touched: set[CellKey] = {("row", key), ALL}
        if old is None or row is None:
            touched.add(KEYS)
        for name, values_of in self.table.indexes.items():
            before = set(values_of(key, old)) if old is not None else set()
            after = set(values_of(key, row)) if row is not None else set()
            self._reindex(name, key, before, after, touched)
        for cell in touched:
            self._sorted.pop(cell, None)
        return touched

    def _reindex(
        self,
        name: str,
        key: Any,
        before: set[Hashable],
        after: set[Hashable],
        touched: set[CellKey],
    ) -> None:
        buckets = self._buckets[name]
        for value in before - after:
            bucket = buckets[value]
            if isinstance(bucket, dict):
                del bucket[key]
            else:
                bucket = buckets[value] = tuple(other for other in bucket if other != key)
            if not bucket:
                del buckets[value]
                touched.add((f"names:{name}", None))
        for value in after - before:
            bucket = buckets.get(value, ())
            if not bucket:
                touched.add((f"names:{name}", None))
            if isinstance(bucket, dict):
                bucket[key] = None
            else:
                more = (*bucket, key)
                buckets[value] = more if len(more) <= FEW_KEYS else dict.fromkeys(more)
        touched.update((f"in:{name}", value) for value in before | after)

    def read(self, cell: CellKey) -> Any:
        """Return a cell's value: a row or None, a tuple of rows by key, or a frozenset."""
        how, what = cell
        if how == "row":
            return self.rows.get(what)
        if how.startswith("names:"):
            return frozenset(self._buckets[how[6:]])
        found = self._sorted.get(cell)
        if found is None and how == "keys":
            found = self._sorted[cell] = tuple(sorted(self.rows))
        elif found is None:
            keys: Iterable[Any] = (
                self.rows if how == "all" else self._buckets[how[3:]].get(what, ())
            )
            found = tuple(self.rows[key] for key in sorted(keys))
            self._sorted[cell] = found
        return found
