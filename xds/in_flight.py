"""
What was sent and not answered yet, so that a refusal can be undone.

Each message in flight remembers what it replaced. A few are remembered one by one, older ones
together: memory is bounded by the number of names, whatever the client does or leaves undone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from pilothouse.model.resource import Resource

MAX_IN_FLIGHT: Final = 4
"""Messages of one type remembered one by one."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A resource the client brought along from an earlier stream: all we know is its version."""

    version: str


Held = Resource | Carried

Changes = dict[str, tuple[Resource | None, Held | None]]
"""Name -> (what was sent, None for a removal; what the client had before)."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """
    A message the client has not answered.

    `changes` are the names in it that were new to the client. `since` is when the oldest change in
    it became known; None for an answer to a request. `introduces` tells that the client had never
    heard of some of its resources. `forgotten` are names in it that no longer matter, but may still
    be what it is refused for.
    """

    nonce: str
    sent_at: float
    since: float | None
    changes: Changes
    introduces: bool
    forgotten: set[str] = msgspec.field(default_factory=set)


class InFlight:
    """The unanswered messages of one type on one stream, oldest first."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self._messages: list[Message] = []

    def __len__(self) -> int:
        """Count messages; those remembered together count as one."""
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        """Yield messages, oldest first."""
        return iter(self._messages)

    def add(self, message: Message) -> None:
        """Remember a message that is being sent."""
        self._messages.append(message)
        if len(self._messages) > MAX_IN_FLIGHT:
            self._messages[:2] = [_merged(*self._messages[:2])]

    def take(self, nonce: str) -> tuple[Message | None, list[Message]]:
        """
        Forget the message of a nonce and return it, with the older ones it answers for.

        Clients answer in order: what was sent before an answered message has been dealt with.
        """
        for index, message in enumerate(self._messages):
            if message.nonce == nonce:
                passed = self._messages[:index]
                del self._messages[: index + 1]
                return message, passed
        return None, []

    def forget(self, name: str) -> None:
        """Answers tell nothing of this name any more."""
        for message in self._messages:
            if name in message.changes:
                del message.changes[name]
                message.forgotten.add(name)

    def settle(self, name: str, accepted: Resource | None) -> None:
        """Note that the client has accepted a resource: later messages do not bring it any more."""
        if accepted is None:
            return
        for message in self._messages:
            if name in message.changes and message.changes[name][0] is accepted:
                del message.changes[name]

    def rebase(self, name: str, before: Held | None) -> bool:
        """Correct what the client had before the next message with this name, if there is one."""
        for message in self._messages:
            if name in message.changes:
                message.changes[name] = (message.changes[name][0], before)
                return True
        return False


def _merged(older: Message, newer: Message) -> Message:
    changes = dict(older.changes)
    for name, (sent, before) in newer.changes.items():
        changes[name] = (sent, older.changes[name][1] if name in older.changes else before)
    return Message(
        nonce=newer.nonce,
        sent_at=older.sent_at,
        since=newer.since if older.since is None else older.since,
        changes=changes,
        introduces=older.introduces or newer.introduces,
    )
