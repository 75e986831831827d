"""
Who is served what: sessions by class, pinned roots by what they depend on.

Plain records of `pilothouse.xds.publisher`, which fills them in. Sessions of one proxy class share
a `Channel`. Classes that agree on what a type's resources depend on share a `Shelf` of them, so a
hundred classes of a namespace hold its thousand load assignments once.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from pilothouse.graph.core import Node

if TYPE_CHECKING:
    from pilothouse.xds.publisher import Member


class Entry:
    """A pinned root, the value last published, and the shelves that show it."""

    __slots__ = ("changed_at", "name", "node", "shelves", "value")

    def __init__(self, name: str | None, node: Node) -> None:
        """Show what the root is now; `name` is None for the root of a whole type."""
        self.name = name
        self.node = node
        self.value: Any = node.value
        self.changed_at = node.changed_at
        # Mostly one: only resources that no part of a class decides are on several.
        self.shelves: tuple[Shelf, ...] = ()


class Shelf:
    """The roots of one type that some classes share, by name, and these classes."""

    __slots__ = ("channels", "entries", "key", "type_url")

    def __init__(self, type_url: str, key: Hashable) -> None:
        """Begin empty; `key` is what the classes that share it have in common."""
        self.type_url = type_url
        self.key = key
        self.channels: dict[Channel, None] = {}
        self.entries: dict[str | None, Entry] = {}

    def is_wanted(self, name: str | None) -> bool:
        """Tell whether any session asks for a name (None: the whole type)."""
        return any(
            member.watches(self.type_url, name)
            for channel in self.channels
            for member in channel.members
        )


class Channel:
    """The sessions of one proxy class, and the shelves they are served from, by type."""

    __slots__ = ("members", "proxy_class", "shelves")

    def __init__(self, proxy_class: Any) -> None:  # noqa: ANN401 (opaque and hashable)
        """Begin without sessions."""
        self.proxy_class = proxy_class
        self.members: dict[Member, None] = {}
        self.shelves: dict[str, Shelf] = {}

    def entry(self, type_url: str, name: str | None) -> Entry | None:
        """Return the root of a name, or (None) of a whole type; None if nobody asked for it."""
        shelf = self.shelves.get(type_url)
        return None if shelf is None else shelf.entries.get(name)
