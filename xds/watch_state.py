"""
What is remembered of one type on one stream: the facts a watch decides by.

Bookkeeping is optimistic: `client` is what the client will have once it has applied all messages in
flight; a refusal undoes what its message did. No sockets, tasks, clocks or graph.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from pilothouse.model.resource import CDS, LDS, WILDCARD_TYPES, Resource
from pilothouse.xds.in_flight import Held, InFlight
from pilothouse.xds.progress import Progress
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.shared_mapping import SharedMapping
from pilothouse.xds.subscription import Subscription, most_names

FULL_STATE_TYPES: Final = frozenset({CDS, LDS})
"""Types whose SotW responses hold everything: what is absent is deleted by the client."""


class View(Protocol):
    """The resources a client of one class may have, as of now."""

    def wildcard(self, type_url: str) -> Mapping[str, Resource] | None:
        """Return everything of a type; None while that is not known."""

    def named(self, type_url: str, name: str) -> Resource | None:
        """Return one resource; None if it does not exist."""


class WatchState:
    """
    The state of one type on one stream.

    `client` is what the client has, `rejected` what it refuses. `dirty` names may have changed,
    `owed` ones are sent whether or not they did, `removals` are held back; `looks_at_all` stands
    for every name, `owes_answer` for a message even if it is empty. `limit` bounds messages while a
    fault is being searched for. `since` is when the oldest change not sent became known.
    """

    __slots__ = (
        "client", "dirty", "is_delta", "limit", "looks_at_all", "owed", "owes_answer", "progress",
        "rejected", "removals", "since", "subscription", "type_url", "unanswered",
    )  # fmt: skip

    def __init__(self, type_url: str, *, is_delta: bool) -> None:
        """Begin with a client that has nothing; the first request is always answered."""
        self.type_url = type_url
        self.is_delta = is_delta
        self.subscription = Subscription(
            has_wildcard=type_url in WILDCARD_TYPES, most=most_names(type_url)
        )
        self.client: SharedMapping[Held] = SharedMapping()
        self.rejected: dict[str, RejectedResource] = {}
        self.progress = Progress()
        self.unanswered = InFlight()
        self.dirty: dict[str, None] = {}
        self.owed: dict[str, None] = {}
        self.removals: dict[str, None] = {}
        self.looks_at_all = False
        self.owes_answer = False
        self.limit: int | None = None
        self.since: float | None = None

    @property
    def is_full_state(self) -> bool:
        """Whether each SotW response holds everything of the type."""
        return self.type_url in FULL_STATE_TYPES

    @property
    def has_something_to_say(self) -> bool:
        """Whether a name, or a request, waits for a message."""
        return bool(self.dirty or self.owed or self.looks_at_all or self.owes_answer)

    def forget(self, name: str) -> None:
        """Drop a name the client wants no more."""
        self.client.pop(name, None)
        self.rejected.pop(name, None)
        self.dirty.pop(name, None)
        self.owed.pop(name, None)
        self.removals.pop(name, None)
        self.unanswered.forget(name)

    def is_rejected(self, name: str, current: Resource) -> bool:
        """Tell whether the client refuses this very content."""
        rejected = self.rejected.get(name)
        if rejected is None:
            return False
        if rejected.version == current.version:
            return True
        self.clear_rejection(name, current)
        return False

    def clear_rejection(self, name: str, current: Resource) -> None:
        """Forget a refusal if the client has what is current; else it goes with the next ACK."""
        held = self.client.get(name)
        if held is not None and held.version == current.version:
            self.rejected.pop(name, None)
