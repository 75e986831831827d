"""
One type on one stream: what the client wants, has, was sent, and refused.

Part of the sans-IO session (`pilothouse.xds.session`), which decides the order of types. A watch
takes requests, changes and answers, and gives the next message of its type;
`pilothouse.xds.selection` decides what that must hold, `pilothouse.xds.answers` what an ACK or NACK
means. No sockets, tasks, clocks or graph: resources are read through a `View`, and time comes as an
argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse.model.resource import CDS, Resource
from pilothouse.xds import answers
from pilothouse.xds.in_flight import Carried, Changes, Held, Message
from pilothouse.xds.progress import Acked
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.selection import select
from pilothouse.xds.subscription import UNCHANGED, SubscriptionChange
from pilothouse.xds.watch_state import View, WatchState

MAX_VERSION_LENGTH: Final = 256
"""Of what a client says it has; ours have sixteen, and no other can be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a message to be sent."""

    resources: list[Resource]
    removed: list[str]
    changes: Changes


class Watch(WatchState):
    """The state of one type on one stream, and what moves it."""

    __slots__ = ()

    # -- what is known of it ----------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether there may be something to send now."""
        if self.limit is not None and self.unanswered:
            return False  # while a fault is being searched for, one message at a time
        return self.has_something_to_say

    @property
    def is_settled(self) -> bool:
        """Whether everything known was sent and answered."""
        return not (self.unanswered or self.has_something_to_say)

    @property
    def has_removals(self) -> bool:
        """Whether removals are held back."""
        return bool(self.removals)

    @property
    def is_searching(self) -> bool:
        """Whether a refusal that named nobody is being narrowed down."""
        return self.limit is not None

    @property
    def in_flight(self) -> int:
        """How many messages are remembered as unanswered, at most `MAX_IN_FLIGHT`."""
        return len(self.unanswered)

    def acknowledged(self, name: str) -> Held | None:
        """Return what the client is known to run with, None if that is nothing."""
        for sent in self.unanswered:
            if name in sent.changes:
                return sent.changes[name][1]
        held: Held | None = self.client.get(name)
        return held

    def warming_since(self) -> float | None:
        """When the oldest unanswered message that brought new resources was sent."""
        return next((sent.sent_at for sent in self.unanswered if sent.introduces), None)

    # -- what the client wants --------------------------------------------------------------------

    def answer(self, change: SubscriptionChange, *, in_full: bool) -> None:
        """Note what a request asked for; `in_full` answers for every name, known or not."""
        if change is UNCHANGED and not in_full:
            return
        for name in change.dropped:
            if self.subscription.wildcard and not self.is_delta:
                self.dirty[name] = None  # the wildcard may still cover it
                continue
            self.forget(name)
            if self.subscription.wildcard:
                # The client cannot know whether the wildcard still covers it (protocol text).
                self.owed[name] = None
        if change.wildcard_ended:
            known = {*self.client, *self.rejected, *self.dirty, *self.removals}
            for name in known - self.subscription.names.keys():
                self.forget(name)
            self.looks_at_all = False
        if change.wildcard_asked:
            self.client.clear()  # it may have forgotten what we believe it has
            self.looks_at_all = self.owes_answer = True
        names = self.subscription.names if in_full else change.asked
        self.owed.update(dict.fromkeys(names))
        if in_full and (self.subscription.wildcard or (names and self.is_full_state)):
            self.owes_answer = True
            self.looks_at_all = self.looks_at_all or self.subscription.wildcard

    def carry(self, versions: Mapping[str, str], *, answer_anyway: bool) -> None:
        """
        Believe what the client says it has; `answer_anyway` sends it again all the same.

        Raises: InvalidRequest: Too much.
        """
        self.subscription.checked(versions)
        for name, version in versions.items():
            self.client[name] = Carried(version[:MAX_VERSION_LENGTH])
            self.dirty[name] = None
            if not answer_anyway:
                self.owed.pop(name, None)

    def owe(self, name: str) -> None:
        """Send a subscribed name again even if it has not changed."""
        if name in self.subscription.names:
            self.owed[name] = None

    # -- what has changed -------------------------------------------------------------------------

    def mark(self, names: Iterable[str] | None, now: float) -> None:
        """Note that some names (None: any) may have changed; latest wins, nothing is queued."""
        if names is None:
            self.looks_at_all = True
        else:
            self.dirty.update(dict.fromkeys(names))
        if self.since is None:
            self.since = now

    # -- what to send -----------------------------------------------------------------------------

    def draft(self, view: View, *, may_remove: bool) -> Draft | None:
        """
        Return the next message, None if nothing is to be said.

        `may_remove` releases the removals of resources others may still point at.
        """
        everything = view.wildcard(self.type_url) if self.subscription.wildcard else {}
        if everything is None:
            return None
        picked = select(self, view, everything, may_remove=may_remove)
        is_answer = self.owes_answer
        self.looks_at_all = self.owes_answer = False
        self.dirty = picked.leftover
        self.owed = {name: None for name in self.owed if name in picked.leftover}
        if not (picked.changes or picked.resources or picked.removed or is_answer):
            if not self.dirty:
                self.since = None
            return None
        for name, (sent, _) in picked.changes.items():
            if sent is None:
                self.client.pop(name, None)
            else:
                self.client[name] = sent
        self.client.fold()
        return Draft(resources=picked.resources, removed=picked.removed, changes=picked.changes)

    def sent(self, draft: Draft, nonce: str, now: float) -> None:
        """Remember a draft as being in flight."""
        self.progress.sent_nonce, self.progress.sent_at = nonce, now
        since, self.since = self.since, (self.since if self.dirty else None)
        introduces = self.type_url == CDS and any(
            new and old is None for new, old in draft.changes.values()
        )
        if not self.is_delta and self.is_full_state:
            # It holds what earlier messages brought, so it may be refused for that as well.
            for earlier in self.unanswered:
                for name, (made, before) in earlier.changes.items():
                    if made is not None and self.client.get(name) is made:
                        draft.changes.setdefault(name, (made, before))
        self.unanswered.add(
            Message(
                nonce=nonce,
                sent_at=now,
                since=since,
                changes=draft.changes,
                introduces=introduces,
            )
        )

    # -- what became of it ------------------------------------------------------------------------

    def accepted(self, nonce: str, now: float) -> Acked | None:
        """Note an ACK; None if it answers nothing in flight."""
        return answers.accepted(self, nonce, now)

    def refused(self, nonce: str, error: str, now: float) -> tuple[RejectedResource, ...] | None:
        """Note a NACK and return the resources found guilty; None if it answers nothing."""
        return answers.refused(self, nonce, error, now)
