"""
The incremental engine: push invalidation, pull evaluation, early cut-off.

A query is a pure function of (ctx, key); everything else it knows it reads through ``ctx``, and the
graph records each read. Changing an input marks what depends on it *maybe stale*; reading a maybe
stale node first asks whether a dependency really changed, and runs again only then. A node whose
new value equals its old one stops the wave. At a *firewall* the marking itself waits: it is settled
first, and those behind it are marked only if its value has changed (ADR 24). The engine knows no
word of the mesh and does no I/O.

A query that raises keeps its last good value and reports the failure as a finding, its own if it
raises `Withheld` (the one rule that depends on history; `pilothouse.graph.explain` skips them).
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from pilothouse.errors import QueryFailed
from pilothouse.graph.findings import ConfigRef, Finding, Severity, Withheld
from pilothouse.graph.nodes import CLEAN, MAYBE, NEW, RUNNING, same_items
from pilothouse.graph.nodes import Node as Node
from pilothouse.graph.nodes import Query as Query
from pilothouse.graph.nodes import firewall as firewall
from pilothouse.graph.nodes import query as query
from pilothouse.graph.reads import Ctx as Ctx
from pilothouse.graph.tables import CellKey, Table, TableStore

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SWEEP_AFTER_COMMITS: Final = 2
FAILURE_CODE: Final = "InternalError"


@dataclass(slots=True)
class Stats:
    """
    Work done since the last commit began: nodes run, by query name, and what these read.

    `verified` counts the nodes that were looked at and did not have to run.
    """

    recomputed: dict[str, int] = field(default_factory=dict)
    reads: int = 0
    verified: int = 0

    @property
    def total(self) -> int:
        """Nodes run."""
        return sum(self.recomputed.values())


class Graph:
    """
    Inputs, memoised queries and the roots somebody listens to.

    Single-threaded. `commit` changes inputs; `value` reads; `pin` keeps a root alive and reports it
    in `take_dirty` when it may have changed.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.revision = 0
        # Times of nodes: counts commits, and within them each wave that a firewall lets on.
        self.moment = 0
        self.stats = Stats()
        self._stores: dict[str, TableStore] = {}
        self._cells: dict[str, dict[CellKey, Node]] = {}
        self._nodes: dict[Query[Any, Any], dict[Any, Node]] = {}
        self._dirty: dict[Node, None] = {}
        # Firewalls at which a wave waits, with when their values last changed before it came.
        self._waiting: dict[Node, int] = {}
        self._unused: dict[Node, int] = {}
        self._asked: set[Node] = set()
        self._speaking: dict[Node, None] = {}
        self._failing: dict[Node, None] = {}

    # -- inputs ---------------------------------------------------------------------------------

    def store(self, table: Table[Any, Any]) -> TableStore:
        """Return the rows of a table."""
        found = self._stores.get(table.name)
        if found is None:
            found = self._stores[table.name] = TableStore(table)
            self._cells[table.name] = {}
        return found

    def commit(self, changes: Iterable[tuple[Table[Any, Any], Any, Any | None]]) -> int:
        """
        Apply (table, key, row or None) changes as one revision and return how many rows changed.

        Counts of `stats` start anew. Nothing is computed here.
        """
        self.revision += 1
        self.moment += 1
        self.stats = Stats()
        changed = 0
        touched: dict[Node, Table[Any, Any]] = {}
        for table, key, row in changes:
            cells = self._cells.get(table.name, {})
            cells_touched = self.store(table).put(key, row)
            changed += bool(cells_touched)
            for cell in cells_touched:
                node = cells.get(cell)
                if node is not None:
                    touched[node] = table
        # After all rows, not row by row: what a batch changes and changes back has not changed.
        for node, table in touched.items():
            self._refresh_cell(table, node)
        self._sweep()
        return changed

    def _refresh_cell(self, table: Table[Any, Any], node: Node) -> None:
        value = self._stores[table.name].read(node.key[1])
        if value == node.value:
            return
        node.value = value
        node.changed_at = self.moment
        self._invalidate(node)

    def _invalidate(self, origin: Node) -> None:
        stack = [origin]
        while stack:
            node = stack.pop()
            for dependent in node.rdeps:
                # What the origin's value is now is known, so who reads entries can be told apart.
                if dependent.state is CLEAN and not (
                    node is origin and dependent.items and same_items(dependent, node)
                ):
                    dependent.state = MAYBE
                    if dependent.pins:
                        self._dirty[dependent] = None
                    if _rank(dependent) and dependent.rdeps:
                        self._waiting.setdefault(dependent, dependent.changed_at)
                    else:
                        stack.append(dependent)

    def settle_firewalls(self) -> Iterator[Node]:
        """
        Settle the firewalls at which waves wait, those of lowest rank first; yield after each.

        May be left unfinished between two: whoever reads finishes it. What runs out of rank's
        order has seen an old value; it is marked when the wave gets there, and runs once more.
        """
        while self._waiting:
            lowest = min(map(_rank, self._waiting))
            for node in [each for each in self._waiting if _rank(each) == lowest]:
                changed_before = self._waiting.pop(node, None)
                if changed_before is None:
                    continue  # a reader was faster
                if node.state is MAYBE:
                    self._settle(node)
                if node.changed_at != changed_before:
                    self.moment += 1
                    self._invalidate(node)
                yield node

    def _let_waves_on(self) -> None:
        for _ in self.settle_firewalls():
            pass

    def cell(self, table: Table[Any, Any], cell: CellKey) -> Node:
        """Return the node of an input cell."""
        store = self.store(table)
        cells = self._cells[table.name]
        node = cells.get(cell)
        if node is None:
            node = cells[cell] = Node(None, (table.name, cell))
            node.value = store.read(cell)
            node.changed_at = self.moment
            node.state = CLEAN
        return node

    # -- evaluation -----------------------------------------------------------------------------

    def value(self, query: Query[K, V], key: K) -> V:
        """
        Return a query's value now.

        Raises: QueryFailed: It has none.
        """
        node = self.fresh(query, key)
        if not node.rdeps and not node.pins:
            self._unused[node] = self.revision
            self._asked.add(node)
        if node.error is not None:
            raise QueryFailed(f"{query.name} failed") from node.error
        return cast("V", node.value)

    def fresh(self, query: Query[Any, Any], key: Any) -> Node:
        """Return the node of a query, up to date."""
        if self._waiting:
            self._let_waves_on()
        return self.read(query, key)

    def read(self, query: Query[Any, Any], key: Any) -> Node:
        """Return the node of a query as `fresh` does, for queries that run."""
        nodes = self._nodes.get(query)
        if nodes is None:
            nodes = self._nodes[query] = {}
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = Node(query, key)
        if node.state is not CLEAN:
            self._settle(node)
        return node

    def _settle(self, node: Node) -> None:
        if node.state is RUNNING:
            raise QueryFailed(f"{node.query} depends on itself at {node.key!r}")
        if node.state is MAYBE:
            verified_at = node.verified_at
            for dep in node.deps:
                if dep.state is not CLEAN:
                    self._settle(dep)
                if dep.changed_at > verified_at and not same_items(node, dep):
                    break
            else:
                node.state = CLEAN
                node.verified_at = self.moment
                self.stats.verified += 1
                return
        self._run(node)

    def _run(self, node: Node) -> None:
        query = node.query
        if query is None:  # pragma: no cover - cells are always clean
            return
        is_first = node.state is NEW
        node.state = RUNNING
        counts = self.stats.recomputed
        counts[query.name] = counts.get(query.name, 0) + 1
        ctx = Ctx(self)
        self._failing.pop(node, None)
        try:
            value = query.compute(ctx, node.key)
            error: Exception | None = None
        except QueryFailed as failure:
            value, error = None, failure
        except Withheld as failure:
            value, error = None, failure
            ctx.report(failure.finding)
            self._failing[node] = None
        except Exception as failure:  # noqa: BLE001 (one bad object must not stop the others)
            value, error = None, failure
            ctx.report(_failure_finding(query, node.key, failure))
            self._failing[node] = None
        self._rewire(node, ctx.deps)
        self.stats.reads += len(node.deps)
        node.items = tuple(read for read in ctx.items if not ctx.deps[read.owner])
        self._speak(node, tuple(ctx.findings))
        if error is not None:
            if is_first or node.error is not None:
                node.error = error
                node.changed_at = self.moment
        elif is_first or node.error is not None or value != node.value:
            node.value, node.error = value, None
            node.changed_at = self.moment
        node.state = CLEAN
        node.verified_at = self.moment

    def _rewire(self, node: Node, deps: dict[Node, bool]) -> None:
        old = node.deps
        node.deps = tuple(deps)
        for dep in deps:
            dep.add_dependent(node)
        for dep in old:
            if dep not in deps:
                self._release(dep, node)

    def _release(self, dep: Node, dependent: Node) -> None:
        dep.drop_dependent(dependent)
        if not dep.rdeps and not dep.pins:
            self._unused.setdefault(dep, self.revision)

    def _speak(self, node: Node, findings: tuple[Finding, ...]) -> None:
        node.findings = findings
        if findings:
            self._speaking[node] = None
        else:
            self._speaking.pop(node, None)

    # -- roots ----------------------------------------------------------------------------------

    def pin(self, query: Query[Any, Any], key: Any) -> Node:
        """Keep a root alive and listen to it; pins are counted."""
        node = self.fresh(query, key)
        node.pins += 1
        return node

    def unpin(self, query: Query[Any, Any], key: Any) -> None:
        """Undo one `pin`."""
        node = self._nodes[query][key]
        node.pins -= 1
        if not node.pins:
            self._asked.discard(node)
            self._dirty.pop(node, None)
            if not node.rdeps:
                self._unused.setdefault(node, self.revision)

    def take_dirty(self) -> tuple[Node, ...]:
        """Return the pinned nodes that may have changed since the last call, and forget them."""
        self._let_waves_on()
        dirty = tuple(self._dirty)
        self._dirty.clear()
        return dirty

    def pinned(self) -> Iterator[Node]:
        """Yield every pinned node."""
        for nodes in self._nodes.values():
            yield from (node for node in nodes.values() if node.pins)

    # -- reading the graph itself -----------------------------------------------------------------

    def findings(self) -> tuple[Finding, ...]:
        """
        Return what live nodes have reported, worst last, without repeats.

        Live is what a root rests on: pinned, or asked for by `value` and not yet swept.
        """
        known: dict[Node, bool] = {}
        speaking = (node for node in self._speaking if self._is_live(node, known))
        return tuple(sorted({finding for node in speaking for finding in node.findings}))

    def _is_live(self, node: Node, known: dict[Node, bool]) -> bool:
        found = known.get(node)
        if found is None:
            found = known[node] = (
                bool(node.pins)
                or node in self._asked
                or any(self._is_live(each, known) for each in node.rdeps)
            )
        return found

    def failing(self) -> Iterator[Node]:
        """Yield the nodes whose last run raised; they hold their last good value, if any."""
        yield from self._failing

    def node_count(self) -> int:
        """Return how many query nodes are held."""
        return sum(map(len, self._nodes.values()))

    def tables(self) -> Iterator[TableStore]:
        """Yield the rows of every table."""
        yield from self._stores.values()

    # -- sweep ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Drop what nobody has needed for `SWEEP_AFTER_COMMITS` commits."""
        horizon = self.revision - SWEEP_AFTER_COMMITS
        ready = [node for node, since in self._unused.items() if since <= horizon]
        while ready:
            node = ready.pop()
            self._unused.pop(node, None)
            self._asked.discard(node)
            if node.rdeps or node.pins:
                continue
            self._waiting.pop(node, None)
            if node.query is None:
                table, cell = node.key
                if self._cells[table].get(cell) is node:
                    del self._cells[table][cell]
                continue
            nodes = self._nodes[node.query]
            if nodes.get(node.key) is node:
                del nodes[node.key]
            self._speaking.pop(node, None)
            self._failing.pop(node, None)
            for dep in node.deps:
                dep.drop_dependent(node)
                if not dep.rdeps and not dep.pins:
                    ready.append(dep)
            node.deps = ()
            node.items = ()


def _rank(node: Node) -> int:
    return node.query.rank if node.query is not None else 0


def _failure_finding(query: Query[Any, Any], key: Any, failure: Exception) -> Finding:
    # A programming error rather than bad config, but the operator must see which key it hit.
    return Finding(
        Severity.ERROR,
        FAILURE_CODE,
        ConfigRef(kind="", namespace="", name=f"{query.name}({key!r})"[:200]),
        f"{type(failure).__name__}: {failure}; the last good result stays in use.",
        "Please report this with the object's YAML.",
    )
