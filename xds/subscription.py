"""
Which names a client wants of one type.

Holds the rules of the xDS protocol text on wildcard, legacy wildcard and unsubscription, for both
dialects. Knows no resource and no version; does no I/O.
"""

from collections.abc import Iterable, Sequence
from sys import intern
from typing import Final

import msgspec

from pilothouse.model.resource import PUSH_ORDER, SDS
from pilothouse.xds.requests import InvalidRequest
from pilothouse.xds.shared_mapping import SharedMapping

WILDCARD: Final = "*"
MAX_NAMES: Final = 100_000
"""Names one stream may hold of one type; a mesh of 100,000 clusters has other troubles first."""
MAX_SECRET_NAMES: Final = 10_000
"""Of secrets fewer: whoever asks for one in vain is told of in a finding."""
MAX_STRANGE_NAMES: Final = 1_000
"""Of types that nobody serves."""
MAX_CHARACTERS: Final = 16 * 1024 * 1024
"""Of all names of one type on one stream; real ones have a hundred each."""
MAX_NAME_LENGTH: Final = 2_048


class SubscriptionChange(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one request altered.

    `asked` are the names the client asked for now, though it may have had them already (delta);
    `added` those of them that are new; `dropped` those it wants no more.
    """

    asked: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    wildcard_asked: bool = False
    wildcard_ended: bool = False


UNCHANGED: Final = SubscriptionChange()


def most_names(type_url: str) -> int:
    """Return how many names of a type one stream may hold."""
    if type_url == SDS:
        return MAX_SECRET_NAMES
    return MAX_NAMES if type_url in PUSH_ORDER else MAX_STRANGE_NAMES


class Subscription:
    """
    The names wanted of one type on one stream.

    A type that has no wildcard (`has_wildcard` false) treats a request for everything as a request
    for nothing: there is no such set (traffic.md 5.2).
    """

    __slots__ = ("_characters", "_has_wildcard", "_is_explicit", "_most", "names", "wildcard")

    def __init__(self, *, has_wildcard: bool, most: int = MAX_NAMES) -> None:
        """Want nothing yet, and never more than `most` names."""
        self._most = most
        self._characters = 0
        self.names: SharedMapping[None] = SharedMapping()
        self.wildcard = False
        self._has_wildcard = has_wildcard
        self._is_explicit = False

    def replace(self, names: Iterable[str]) -> SubscriptionChange:
        """
        Take the full list of names of a SotW request.

        An empty list means everything until the client has named something once, then nothing.

        Raises: InvalidRequest: Too many names, or one too long.
        """
        wanted = self.checked(names)
        self._characters = sum(map(len, wanted))
        self._is_explicit = self._is_explicit or bool(wanted)
        wildcard = WILDCARD in wanted or not self._is_explicit
        wanted.pop(WILDCARD, None)
        old, self.names = self.names, SharedMapping()
        self.names.update(wanted)
        self.names.fold()
        return self._change(
            added=tuple(name for name in wanted if name not in old),
            dropped=tuple(name for name in old if name not in wanted),
            wildcard=wildcard,
            asks_again=False,
        )

    def adjust(self, subscribe: Sequence[str], unsubscribe: Sequence[str]) -> SubscriptionChange:
        """
        Take the additions and removals of a delta request.

        A legacy wildcard survives later named subscriptions; it ends when `*` is unsubscribed.

        Raises: InvalidRequest: Too many names, or one too long.
        """
        if not (subscribe or unsubscribe) and (self._is_explicit or self.wildcard):
            return UNCHANGED
        asked, dropped = self.checked(subscribe), self.checked(unsubscribe)
        self._is_explicit = self._is_explicit or bool(asked or dropped)
        asks_again = WILDCARD in asked
        wildcard = asks_again or self.wildcard or not self._is_explicit
        if WILDCARD in dropped and not asks_again:
            wildcard = False
        asked.pop(WILDCARD, None)
        gone = tuple(name for name in dropped if name in self.names and name not in asked)
        for name in gone:
            del self.names[name]
        added = tuple(name for name in asked if name not in self.names)
        self.names.update(asked)
        self.names.fold()
        self._characters += sum(map(len, added)) - sum(map(len, gone))
        if len(self.names) > self._most:
            raise InvalidRequest(f"more than {self._most} resource names on one stream")
        if self._characters > MAX_CHARACTERS:
            raise InvalidRequest("resource names that are too long, all together")
        change = self._change(added=added, dropped=gone, wildcard=wildcard, asks_again=asks_again)
        return SubscriptionChange(
            asked=tuple(asked),
            added=added,
            dropped=gone,
            wildcard_asked=change.wildcard_asked,
            wildcard_ended=change.wildcard_ended,
        )

    def checked(self, names: Iterable[str]) -> dict[str, None]:
        """Return names once each. Raises: InvalidRequest: Too many, or too long."""
        # Interned: a thousand proxies that ask for the same names share the strings.
        unique: dict[str, None] = {}
        characters = 0
        for name in names:
            if len(name) > MAX_NAME_LENGTH:
                raise InvalidRequest(f"a resource name longer than {MAX_NAME_LENGTH} characters")
            unique[intern(name)] = None
            characters += len(name)
        if len(unique) > self._most:
            raise InvalidRequest(f"more than {self._most} resource names on one stream")
        if characters > MAX_CHARACTERS:
            raise InvalidRequest("resource names that are too long, all together")
        return unique

    def _change(
        self, *, added: tuple[str, ...], dropped: tuple[str, ...], wildcard: bool, asks_again: bool
    ) -> SubscriptionChange:
        wildcard = wildcard and self._has_wildcard
        before, self.wildcard = self.wildcard, wildcard
        return SubscriptionChange(
            asked=added,
            added=added,
            dropped=dropped,
            wildcard_asked=wildcard and (asks_again or not before),
            wildcard_ended=before and not wildcard,
        )
