"""
From the graph to the sessions: who is told what, after a commit.

Owns the graph's pins: the whole types and the named resources that sessions ask for, once each for
all classes of proxies that agree on what they depend on. After a commit only the dirty roots are
evaluated, and only the sessions that hold a changed resource are marked and woken: cost follows
what is affected.

What sessions see changes in one step after all roots are evaluated, so that no session sees new
routes before new clusters. Single-threaded; yields to the event loop where evaluation is long.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from pilothouse.errors import QueryFailed
from pilothouse.graph.core import Graph, Node, Query
from pilothouse.model.layers import ResourceSet
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import WILDCARD_TYPES, Resource
from pilothouse.xds.changes import Comparison
from pilothouse.xds.channels import Channel, Entry, Shelf
from pilothouse.xds.requests import DeltaRequest, Request, Variant
from pilothouse.xds.session import Effects, Outgoing, Session
from pilothouse.xds.subscription import most_names

YIELD_AFTER_SECONDS: Final = 0.005
MANY_NAMES: Final = 100
_NOTHING: Final[Mapping[str, Resource]] = MappingProxyType({})


class Root(NamedTuple):
    """A query and its key; any pair of that shape will do."""

    query: Query[Any, Any]
    key: Any


class Roots(Protocol):
    """What can be served; `pilothouse.translators.envoy.roots` is one."""

    @property
    def proxy_class(self) -> Query[Proxy, Any]:
        """The class of a proxy."""

    @property
    def wildcard(self) -> Callable[[str, Any], tuple[Query[Any, Any], Any] | None]:
        """(type URL, class) -> root of a ResourceSet, None if the type has no wildcard."""

    @property
    def named(self) -> Callable[[str, Any, str], tuple[Query[Any, Any], Any] | None]:
        """(type URL, class, name) -> root of a Resource or None; None if it is not served."""

    @property
    def shared_by(self) -> Callable[[str, Any], Hashable]:
        """(type URL, class) -> what decides `named`: classes that agree on it share all of it."""


class Member:
    """A session in its channel: the view it is served from, and how it is woken."""

    __slots__ = ("_publisher", "_wake", "channel", "class_node", "proxy", "session")

    def __init__(
        self,
        publisher: "Publisher",
        proxy: Proxy,
        channel: Channel,
        class_node: Node,
        wake: Callable[[], None],
    ) -> None:
        """Join a channel; `session` is set by `Publisher.join`."""
        self._publisher = publisher
        self._wake = wake
        self.proxy = proxy
        self.channel = channel
        self.class_node = class_node
        self.session: Session

    def wildcard(self, type_url: str) -> Mapping[str, Resource] | None:
        """Return everything of a type; None while that is not known."""
        entry = self.channel.entry(type_url, None)
        if entry is None:
            return _NOTHING
        value: ResourceSet | None = entry.value
        return value

    def named(self, type_url: str, name: str) -> Resource | None:
        """Return one resource; None if it does not exist."""
        if type_url in WILDCARD_TYPES:
            return (self.wildcard(type_url) or _NOTHING).get(name)
        entry = self.channel.entry(type_url, name)
        if entry is None:
            return None
        value: Resource | None = entry.value
        return value

    def watches(self, type_url: str, name: str | None) -> bool:
        """Tell whether the session asked for a name (None: the type)."""
        watch = self.session.watches.get(type_url)
        return watch is not None and (name is None or name in watch.subscription.names)

    def receive(self, request: Request, now: float) -> Effects:
        """Advance the session and pin what it newly asks for."""
        effects = self.session.receive(request, now)
        self._publisher.subscribed(self, effects)
        return effects

    def next_message(self, now: float) -> Outgoing | None:
        """Return what to send next."""
        return self.session.next_message(now)

    async def look_ahead(self, request: Request) -> None:
        """Prepare for a request, if it is so large that others should not wait for it."""
        names = request.subscribe if isinstance(request, DeltaRequest) else request.names
        if len(names) > MANY_NAMES:
            watch = self.session.watches.get(request.type_url)
            known = watch.subscription.names if watch is not None else ()
            new = [name for name in names if name not in known]
            if len(new) > MANY_NAMES and len(new) <= most_names(request.type_url):
                await self._publisher.look_ahead(self, request.type_url, new)

    def wake(self) -> None:
        """Tell whoever writes that there may be something to send."""
        self._wake()


class Publisher:
    """See the module docstring."""

    def __init__(self, graph: Graph, roots: Roots, clock: Callable[[], float]) -> None:
        """Serve `roots` out of `graph`; `clock` gives seconds of the sessions' time."""
        self._graph = graph
        self._roots = roots
        self._clock = clock
        self._channels: dict[Any, Channel] = {}
        self._shelves: dict[tuple[str, Hashable], Shelf] = {}
        self._entries: dict[Node, Entry] = {}
        self._classes: dict[Node, dict[Member, None]] = {}
        self._slices = asyncio.Lock()

    # -- sessions ---------------------------------------------------------------------------------

    def join(self, proxy: Proxy, variant: Variant, wake: Callable[[], None]) -> Member:
        """
        Open a session for a proxy.

        Raises: QueryFailed: The class of the proxy cannot be told.
        """
        node = self._graph.pin(self._roots.proxy_class, proxy)
        if node.error is not None:
            self._graph.unpin(self._roots.proxy_class, proxy)
            raise QueryFailed(f"the class of {proxy.id} cannot be told") from node.error
        channel = self._channel(node.value)
        member = Member(self, proxy, channel, node, wake)
        member.session = Session(variant, member, self._clock())
        channel.members[member] = None
        self._classes.setdefault(node, {})[member] = None
        return member

    def leave(self, member: Member) -> None:
        """Close a session and let go of what only it asked for."""
        self._depart(member, member.channel)
        members = self._classes[member.class_node]
        del members[member]
        if not members:
            del self._classes[member.class_node]
        self._graph.unpin(self._roots.proxy_class, member.proxy)

    def subscribed(self, member: Member, effects: Effects) -> None:
        """Pin and unpin after a request of a session."""
        channel, type_url = member.channel, effects.type_url
        if type_url in WILDCARD_TYPES:
            if effects.is_new_type:
                self._pin_whole(channel, type_url)
            return
        if effects.added:
            self._pin_named(channel, type_url, effects.added)
        if effects.dropped:
            self._unpin_named(channel.shelves[type_url], effects.dropped)

    async def look_ahead(self, member: Member, type_url: str, names: Iterable[str]) -> None:
        """
        Evaluate what many names stand for, in slices, so that nobody waits for all of them.

        Whoever asks for thousands of names then gets them from what is known already. Those who do
        so at the same time take turns.
        """
        if type_url in WILDCARD_TYPES:
            return
        key = self._roots.shared_by(type_url, member.channel.proxy_class)
        shelf = self._shelves.get((type_url, key))
        known = shelf.entries if shelf is not None else {}
        unknown = [name for name in names if name not in known]
        if len(unknown) <= MANY_NAMES:
            return  # others have asked for them before
        waiting = iter(unknown)
        while True:
            async with self._slices:
                ends_at = self._clock() + YIELD_AFTER_SECONDS
                for name in waiting:
                    root = self._roots.named(type_url, member.channel.proxy_class, name)
                    if root is not None:
                        self._graph.fresh(*root)
                    if self._clock() >= ends_at:
                        break
                else:
                    return
                await asyncio.sleep(0)

    @property
    def root_count(self) -> int:
        """How many roots are pinned, classes of proxies aside."""
        return len(self._entries)

    @property
    def channel_count(self) -> int:
        """How many classes of proxies are connected."""
        return len(self._channels)

    # -- commits ----------------------------------------------------------------------------------

    async def publish(self) -> int:
        """Evaluate what the last commits made dirty, then mark and wake; return sessions marked."""
        committed_at = self._clock()
        changed: list[Entry] = []
        moved: list[Node] = []
        yielded_at = committed_at
        for _ in self._graph.settle_firewalls():
            yielded_at = await self._breathe(yielded_at)
        for node in self._graph.take_dirty():
            if not node.pins:
                continue
            self._graph.fresh(node.query, node.key)  # type: ignore[arg-type]  # a root, no cell
            entry = self._entries.get(node)
            if entry is None:
                moved.append(node)
            elif node.changed_at != entry.changed_at:
                changed.append(entry)
            yielded_at = await self._breathe(yielded_at)
        woken: dict[Member, None] = {}
        comparison = Comparison()
        for entry in changed:
            self._mark(entry, comparison, committed_at, woken)
        for node in moved:
            self._move(node, committed_at, woken)
        for member in woken:
            member.wake()
        return len(woken)

    async def _breathe(self, yielded_at: float) -> float:
        if self._clock() - yielded_at <= YIELD_AFTER_SECONDS:
            return yielded_at
        await asyncio.sleep(0)
        return self._clock()

    def _mark(
        self, entry: Entry, comparison: Comparison, now: float, woken: dict[Member, None]
    ) -> None:
        old, entry.value = entry.value, entry.node.value
        entry.changed_at = entry.node.changed_at
        names: Iterable[str] | None
        if entry.name is not None:
            names = (entry.name,)
        else:
            names = comparison.changed_names(old, entry.value)
            if not names:
                return
        for shelf in entry.shelves:
            for channel in shelf.channels:
                for member in channel.members:
                    if member.watches(shelf.type_url, entry.name):
                        member.session.changed(shelf.type_url, names, now)
                        woken[member] = None

    def _move(self, node: Node, now: float, woken: dict[Member, None]) -> None:
        for member in tuple(self._classes.get(node, ())):
            if node.value == member.channel.proxy_class:
                continue
            old, new = member.channel, self._channel(node.value)
            new.members[member] = None
            for type_url, watch in member.session.watches.items():
                if type_url in WILDCARD_TYPES:
                    self._pin_whole(new, type_url)
                else:
                    self._pin_named(new, type_url, watch.subscription.names)
            member.channel = new
            self._depart(member, old)
            member.session.changed_all(now)
            woken[member] = None

    # -- pins -------------------------------------------------------------------------------------

    def _channel(self, proxy_class: Any) -> Channel:  # noqa: ANN401 (opaque and hashable)
        channel = self._channels.get(proxy_class)
        if channel is None:
            channel = self._channels[proxy_class] = Channel(proxy_class)
        return channel

    def _depart(self, member: Member, channel: Channel) -> None:
        del channel.members[member]
        if not channel.members:
            del self._channels[channel.proxy_class]
        for type_url, shelf in channel.shelves.items():
            if not channel.members:
                del shelf.channels[channel]
            if not shelf.channels:
                del self._shelves[type_url, shelf.key]
                for entry in shelf.entries.values():
                    self._release(entry, shelf)
            elif type_url not in WILDCARD_TYPES and type_url in member.session.watches:
                self._unpin_named(shelf, member.session.watches[type_url].subscription.names)

    def _shelf(self, channel: Channel, type_url: str, key: Hashable) -> Shelf:
        shelf = channel.shelves.get(type_url)
        if shelf is None:
            shelf = self._shelves.get((type_url, key))
            if shelf is None:
                shelf = self._shelves[type_url, key] = Shelf(type_url, key)
            channel.shelves[type_url] = shelf
            shelf.channels[channel] = None
        return shelf

    def _pin_whole(self, channel: Channel, type_url: str) -> None:
        root = self._roots.wildcard(type_url, channel.proxy_class)
        if root is not None:
            shelf = self._shelf(channel, type_url, root)
            if None not in shelf.entries:
                shelf.entries[None] = self._hold(Root(*root), None, shelf)

    def _pin_named(self, channel: Channel, type_url: str, names: Iterable[str]) -> None:
        key = self._roots.shared_by(type_url, channel.proxy_class)
        shelf = self._shelf(channel, type_url, key)
        entries = shelf.entries
        for name in names:
            if name not in entries:
                root = self._roots.named(type_url, channel.proxy_class, name)
                if root is not None:
                    entries[name] = self._hold(Root(*root), name, shelf)

    def _unpin_named(self, shelf: Shelf, names: Iterable[str]) -> None:
        for name in names:
            if name in shelf.entries and not shelf.is_wanted(name):
                self._release(shelf.entries.pop(name), shelf)

    def _hold(self, root: Root, name: str | None, shelf: Shelf) -> Entry:
        node = self._graph.fresh(root.query, root.key)
        entry = self._entries.get(node)
        if entry is None:
            self._graph.pin(root.query, root.key)
            entry = self._entries[node] = Entry(name, node)
        entry.shelves = (*entry.shelves, shelf)
        return entry

    def _release(self, entry: Entry, shelf: Shelf) -> None:
        entry.shelves = tuple(other for other in entry.shelves if other is not shelf)
        if not entry.shelves:
            del self._entries[entry.node]
            self._graph.unpin(entry.node.query, entry.node.key)  # type: ignore[arg-type]  # a root
