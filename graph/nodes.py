"""
Queries and nodes: what is memoised, what it was computed from, and who has read it.

Bookkeeping only; when a node runs is decided by `pilothouse.graph.core`.
"""

from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from pilothouse.graph.findings import Finding

if TYPE_CHECKING:
    from pilothouse.graph.reads import Ctx

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

FEW_DEPENDENTS: Final = 64


class Query(Generic[K, V_co]):
    """
    A named pure function that the graph memoises per key.

    With a `rank` it is a firewall: its readers hear of a change above it only once its own value
    is known to have changed. A firewall may rest on firewalls of lower rank only.
    """

    __slots__ = ("compute", "name", "rank")

    def __init__(self, compute: Callable[["Ctx", K], V_co], rank: int = 0) -> None:
        """Wrap `compute`; its qualified name is the query's name."""
        self.compute = compute
        self.rank = rank
        self.name = f"{compute.__module__.removeprefix('pilothouse.')}.{compute.__name__}"

    def __repr__(self) -> str:
        """Show the name, for error texts and explanations."""
        return self.name


def query(compute: Callable[["Ctx", K], V]) -> Query[K, V]:
    """Declare a query; use as a decorator."""
    return Query(compute)


def firewall(rank: int) -> Callable[[Callable[["Ctx", K], V]], Query[K, V]]:
    """
    Declare a query at which a wave waits; use as a decorator with a rank of 1 or more.

    For what many rest on and few changes change: it is run after a commit, asked for or not.
    """
    return lambda compute: Query(compute, rank)


class State(IntEnum):
    """What is known of a node's value."""

    NEW = 0
    CLEAN = 1
    MAYBE = 2
    RUNNING = 3


NEW, CLEAN, MAYBE, RUNNING = State
"""By themselves: reading them from the class takes longer than all else that is done to a node."""


class ItemRead(NamedTuple):
    """One entry of a mapping that a node has read; the rest of the mapping is no concern of it."""

    owner: "Node"
    item: Hashable
    value: Any

    def still_holds(self) -> bool:
        """Tell whether the entry is what it was."""
        if self.owner.error is not None:
            return False
        now = self.owner.value.get(self.item)
        return now is self.value or bool(now == self.value)


class Node:
    """A memoised value: a query at a key, or an input cell (no query; key is (table, cell))."""

    __slots__ = (
        "changed_at", "deps", "error", "findings", "items", "key", "pins", "query", "rdeps",
        "state", "value", "verified_at",
    )  # fmt: skip

    def __init__(self, query: Query[Any, Any] | None, key: Any) -> None:
        """Start without a value."""
        self.query = query
        self.key = key
        self.value: Any = None
        self.error: Exception | None = None
        self.findings: tuple[Finding, ...] = ()
        self.deps: tuple[Node, ...] = ()
        self.items: tuple[ItemRead, ...] = ()
        # A tuple until there are many: most nodes have few, and an empty set outweighs a node.
        self.rdeps: set[Node] | tuple[Node, ...] = ()
        self.state = State.NEW
        self.changed_at = 0
        self.verified_at = 0
        self.pins = 0

    def add_dependent(self, node: "Node") -> None:
        """Note that `node` has read this."""
        if isinstance(self.rdeps, set):
            self.rdeps.add(node)
        elif node not in self.rdeps:
            more = (*self.rdeps, node)
            self.rdeps = more if len(more) <= FEW_DEPENDENTS else set(more)

    def drop_dependent(self, node: "Node") -> None:
        """Note that `node` reads this no more."""
        if isinstance(self.rdeps, set):
            self.rdeps.discard(node)
        else:
            self.rdeps = tuple(other for other in self.rdeps if other is not node)


def same_items(node: Node, dep: Node) -> bool:
    """Tell whether all that `node` read of `dep` are entries that have not changed."""
    read = [each for each in node.items if each.owner is dep]
    return bool(read) and all(each.still_holds() for each in read)
