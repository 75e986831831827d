"""
One type on one stream: what the client wants, has, was sent, and refused.

Part of the sans-IO session (`pilothouse.xds.session`), which decides the order of types; a watch
decides what a message of its type must hold. No sockets, tasks, clocks or graph: resources are
read through a `View`, and time comes as an argument.

Bookkeeping is optimistic: `client` is what the client will have once it has applied all messages in
flight; a refusal undoes what its message did.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pilothouse.model.resource import CDS, LDS, WILDCARD_TYPES, Resource
from pilothouse.xds.in_flight import Carried, Changes, Held, InFlight, Message
from pilothouse.xds.progress import Acked, Progress
from pilothouse.xds.rejections import RejectedResource, blame, truncated
from pilothouse.xds.subscription import UNCHANGED, Subscription, SubscriptionChange

FULL_STATE_TYPES: Final = frozenset({CDS, LDS})
"""Types whose SotW responses hold everything: what is absent is deleted by the client."""

MAX_DELTA_BYTES: Final = 4_000_000
"""A delta message that would be larger is split; gRPC clients take 4 MiB unless told otherwise."""


class View(Protocol):
    """The resources a client of one class may have, as of now."""

    def wildcard(self, type_url: str) -> Mapping[str, Resource] | None:
        """Return everything of a type; None while that is not known."""

    def named(self, type_url: str, name: str) -> Resource | None:
        """Return one resource; None if it does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The content of a message to be sent."""

    resources: list[Resource]
    removed: list[str]
    changes: Changes


@dataclass(slots=True)
class _Selection:
    """A draft in the making."""

    resources: list[Resource] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changes: Changes = field(default_factory=dict)
    leftover: dict[str, None] = field(default_factory=dict)
    size_bytes: int = 0


class Watch:
    """The state of one type on one stream."""

    __slots__ = (
        "_answer_due", "_dirty", "_in_flight", "_is_delta", "_limit", "_look_at_all", "_owed",
        "_removals", "_since", "client", "progress", "rejected", "subscription",
        "type_url",
    )  # fmt: skip

    def __init__(self, type_url: str, *, is_delta: bool) -> None:
        """Begin with a client that has nothing; the first request is always answered."""
        self.type_url = type_url
        self.subscription = Subscription(has_wildcard=type_url in WILDCARD_TYPES)
        self.client: dict[str, Held] = {}
        self.rejected: dict[str, RejectedResource] = {}
        self.progress = Progress()
        self._is_delta = is_delta
        self._in_flight = InFlight()
        self._dirty: dict[str, None] = {}
        self._owed: dict[str, None] = {}
        self._removals: dict[str, None] = {}
        self._look_at_all = False
        self._answer_due = False
        self._limit: int | None = None
        self._since: float | None = None

    # -- what is known of it ----------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether there may be something to send now."""
        if self._limit is not None and self._in_flight:
            return False  # while a fault is being searched for, one message at a time
        return bool(self._dirty or self._owed or self._look_at_all or self._answer_due)

    @property
    def is_settled(self) -> bool:
        """Whether everything known was sent and answered."""
        return not (
            self._in_flight or self._dirty or self._owed or self._look_at_all or self._answer_due
        )

    @property
    def _is_full_state(self) -> bool:
        return self.type_url in FULL_STATE_TYPES

    @property
    def has_removals(self) -> bool:
        """Whether removals are held back."""
        return bool(self._removals)

    @property
    def is_searching(self) -> bool:
        """Whether a refusal that named nobody is being narrowed down."""
        return self._limit is not None

    @property
    def in_flight(self) -> int:
        """How many messages are remembered as unanswered, at most `MAX_IN_FLIGHT`."""
        return len(self._in_flight)

    def acknowledged(self, name: str) -> Held | None:
        """Return what the client is known to run with, None if that is nothing."""
        for sent in self._in_flight:
            if name in sent.changes:
                return sent.changes[name][1]
        return self.client.get(name)

    def warming_since(self) -> float | None:
        """When the oldest unanswered message that brought new resources was sent."""
        return next((sent.sent_at for sent in self._in_flight if sent.introduces), None)

    # -- what the client wants --------------------------------------------------------------------

    def answer(self, change: SubscriptionChange, *, in_full: bool) -> None:
        """Note what a request asked for; `in_full` answers for every name, known or not."""
        if change is UNCHANGED and not in_full:
            return
        for name in change.dropped:
            if self.subscription.wildcard and not self._is_delta:
                self._dirty[name] = None  # the wildcard may still cover it
                continue
            self._forget(name)
            if self.subscription.wildcard:
                # The client cannot know whether the wildcard still covers it (protocol text).
                self._owed[name] = None
        if change.wildcard_ended:
            known = {*self.client, *self.rejected, *self._dirty, *self._removals}
            for name in known - self.subscription.names.keys():
                self._forget(name)
            self._look_at_all = False
        if change.wildcard_asked:
            self.client.clear()  # it may have forgotten what we believe it has
            self._look_at_all = self._answer_due = True
        names = self.subscription.names if in_full else change.asked
        self._owed.update(dict.fromkeys(names))
        if in_full and (self.subscription.wildcard or (names and self._is_full_state)):
            self._answer_due = True
            self._look_at_all = self._look_at_all or self.subscription.wildcard

    def carry(self, versions: Mapping[str, str], *, answer_anyway: bool) -> None:
        """Believe what the client says it has; `answer_anyway` sends it again all the same."""
        for name, version in versions.items():
            self.client[name] = Carried(version)
            self._dirty[name] = None
            if not answer_anyway:
                self._owed.pop(name, None)

    def owe(self, name: str) -> None:
        """Send a subscribed name again even if it has not changed."""
        if name in self.subscription.names:
            self._owed[name] = None

    def _forget(self, name: str) -> None:
        self.client.pop(name, None)
        self.rejected.pop(name, None)
        self._dirty.pop(name, None)
        self._owed.pop(name, None)
        self._removals.pop(name, None)
        self._in_flight.forget(name)

    # -- what has changed -------------------------------------------------------------------------

    def mark(self, names: Iterable[str] | None, now: float) -> None:
        """Note that some names (None: any) may have changed; latest wins, nothing is queued."""
        if names is None:
            self._look_at_all = True
        else:
            self._dirty.update(dict.fromkeys(names))
        if self._since is None:
            self._since = now

    # -- what to send -----------------------------------------------------------------------------

    def draft(self, view: View, *, may_remove: bool) -> Draft | None:
        """
        Return the next message, None if nothing is to be said.

        `may_remove` releases the removals of resources others may still point at.
        """
        everything = view.wildcard(self.type_url) if self.subscription.wildcard else {}
        if everything is None:
            return None
        if self._is_full_state and not self._is_delta:
            picked = self._pick_full(view, everything, may_remove=may_remove)
        else:
            picked = self._pick_changed(view, everything, may_remove=may_remove)
        is_answer = self._answer_due
        self._look_at_all = self._answer_due = False
        self._dirty = picked.leftover
        self._owed = {name: None for name in self._owed if name in picked.leftover}
        if not (picked.changes or picked.resources or picked.removed or is_answer):
            if not self._dirty:
                self._since = None
            return None
        for name, (sent, _) in picked.changes.items():
            if sent is None:
                self.client.pop(name, None)
            else:
                self.client[name] = sent
        return Draft(resources=picked.resources, removed=picked.removed, changes=picked.changes)

    def _current(
        self, view: View, everything: Mapping[str, Resource], name: str
    ) -> Resource | None:
        found = everything.get(name)
        if found is None and name in self.subscription.names:
            found = view.named(self.type_url, name)
        return found

    def _candidates(self, everything: Mapping[str, Resource], *, may_remove: bool) -> Iterable[str]:
        names: dict[str, None] = {}
        if self._look_at_all:
            names.update(dict.fromkeys(everything))
            names.update(self.subscription.names)
            names.update(dict.fromkeys(self.client))
        names.update(self._dirty)
        names.update(self._owed)
        if may_remove:
            names.update(self._removals)
        return names

    def _pick_changed(
        self, view: View, everything: Mapping[str, Resource], *, may_remove: bool
    ) -> _Selection:
        """Pick what differs: delta, and SotW of the types that need not send everything."""
        picked = _Selection()
        for name in self._candidates(everything, may_remove=may_remove):
            current = self._current(view, everything, name)
            held = self.client.get(name)
            if current is None:
                self._pick_removal(picked, name, held, may_remove=may_remove)
                continue
            self._removals.pop(name, None)
            if self._is_rejected(name, current):
                continue
            if held is not None and held.version == current.version and name not in self._owed:
                self.client[name] = current
                continue
            if self._is_over(picked, current):
                picked.leftover[name] = None
                continue
            picked.resources.append(current)
            picked.size_bytes += len(current.any_bytes)
            picked.changes[name] = (current, held)
        return picked

    def _pick_removal(
        self, picked: _Selection, name: str, held: Held | None, *, may_remove: bool
    ) -> None:
        self.rejected.pop(name, None)
        if not self._is_delta:
            # SotW cannot say it; forgotten, so that the resource is sent when it comes back.
            self._forget_removed(name)
        elif held is None:
            self._removals.pop(name, None)
            if name in self._owed:
                picked.removed.append(name)
                picked.changes[name] = (None, None)
        elif may_remove or name in self._owed or self.type_url == LDS:
            # Listeners go at once: nothing points at them, and their address may be needed again.
            self._removals.pop(name, None)
            picked.removed.append(name)
            picked.changes[name] = (None, held)
        else:
            self._removals[name] = None

    def _forget_removed(self, name: str) -> None:
        self._removals.pop(name, None)
        self.client.pop(name, None)
        self._in_flight.forget(name)

    def _pick_full(
        self, view: View, everything: Mapping[str, Resource], *, may_remove: bool
    ) -> _Selection:
        """Pick everything, or nothing where the client has that: SotW clusters and listeners."""
        picked = _Selection()
        wanted = dict(everything)
        for name in self.subscription.names:
            current = wanted.get(name) or view.named(self.type_url, name)
            if current is not None:
                wanted[name] = current
        for name, current in wanted.items():
            self._pick_whole(picked, name, current)
        for name, held in self.client.items():
            if name in wanted:
                continue
            if self.type_url == LDS or may_remove or not isinstance(held, Resource):
                picked.changes[name] = (None, held)
                self._removals.pop(name, None)
            else:
                picked.resources.append(held)
                self._removals[name] = None
        gone = self.rejected.keys() - wanted.keys()
        for name in gone:
            del self.rejected[name]
            # The client may run an older one that it brought along from an earlier stream.
            self._answer_due = True
        if not (picked.changes or self._owed or self._answer_due):
            picked.resources.clear()
        return picked

    def _pick_whole(self, picked: _Selection, name: str, current: Resource) -> None:
        """Pick a resource as it is now, or as the client has it where it may not have the new."""
        self._removals.pop(name, None)
        held = self.client.get(name)
        if held is not None and held.version == current.version:
            self._clear_rejection(name, current)
            picked.resources.append(current)
            return
        is_rejected = self._is_rejected(name, current)
        if not is_rejected and not self._is_over(picked, current):
            picked.resources.append(current)
            picked.changes[name] = (current, held)
            return
        if not is_rejected:
            picked.leftover[name] = None
        if isinstance(held, Resource):
            picked.resources.append(held)

    def _is_rejected(self, name: str, current: Resource) -> bool:
        rejected = self.rejected.get(name)
        if rejected is None:
            return False
        if rejected.version == current.version:
            return True
        self._clear_rejection(name, current)
        return False

    def _clear_rejection(self, name: str, current: Resource) -> None:
        # Gone only when the client needs no other content; else it goes with the next ACK.
        held = self.client.get(name)
        if held is not None and held.version == current.version:
            self.rejected.pop(name, None)

    def _is_over(self, picked: _Selection, candidate: Resource) -> bool:
        if self._limit is not None and len(picked.changes) >= self._limit:
            return True
        return (
            self._is_delta
            and bool(picked.resources)
            and picked.size_bytes + len(candidate.any_bytes) > MAX_DELTA_BYTES
        )

    # -- what became of it ------------------------------------------------------------------------

    def sent(self, draft: Draft, nonce: str, now: float) -> None:
        """Remember a draft as being in flight."""
        self.progress.sent_nonce, self.progress.sent_at = nonce, now
        since, self._since = self._since, (self._since if self._dirty else None)
        introduces = self.type_url == CDS and any(
            new and old is None for new, old in draft.changes.values()
        )
        if not self._is_delta and self._is_full_state:
            # It holds what earlier messages brought, so it may be refused for that as well.
            for earlier in self._in_flight:
                for name, (made, before) in earlier.changes.items():
                    if made is not None and self.client.get(name) is made:
                        draft.changes.setdefault(name, (made, before))
        self._in_flight.add(
            Message(
                nonce=nonce,
                sent_at=now,
                since=since,
                changes=draft.changes,
                introduces=introduces,
            )
        )

    def _take(self, nonce: str) -> Message | None:
        sent, passed = self._in_flight.take(nonce)
        for earlier in passed:
            self._accept(earlier)
        return sent

    def accepted(self, nonce: str, now: float) -> Acked | None:
        """Note an ACK; None if it answers nothing in flight."""
        sent = self._take(nonce)
        if sent is None:
            return None
        progress = self.progress
        progress.acked_nonce, progress.acked_at = nonce, now
        progress.error = progress.error_nonce = ""
        self._accept(sent)
        if self._limit is not None:
            self._limit = self._limit * 2 if self._dirty else None
        return Acked(
            type_url=self.type_url,
            nonce=nonce,
            round_trip_seconds=now - sent.sent_at,
            convergence_seconds=None if sent.since is None else now - sent.since,
        )

    def _accept(self, sent: Message) -> None:
        for name, (new, _) in sent.changes.items():
            self._accept_name(name, new)

    def _accept_name(self, name: str, new: Resource | None) -> None:
        rejected = self.rejected.get(name)
        if rejected is not None and (new is None or new.version != rejected.version):
            del self.rejected[name]
        self._in_flight.settle(name, new)

    def refused(self, nonce: str, error: str, now: float) -> tuple[RejectedResource, ...] | None:
        """
        Note a NACK and return the resources found guilty; None if it answers nothing in flight.

        What was innocent is sent again. Where the text names nobody, messages are halved until the
        culprit stands alone.
        """
        sent = self._take(nonce)
        if sent is None:
            return None
        progress = self.progress
        progress.error, progress.error_nonce, progress.error_at = truncated(error), nonce, now
        suspects = [name for name, (new, _) in sent.changes.items() if new is not None]
        if not suspects:
            return ()  # a refused removal: trying again would be refused again
        verdict = blame(error, [*suspects, *sent.forgotten])
        guilty = verdict.names or self._known_culprits(sent)
        if not guilty and len(suspects) == 1 and not sent.forgotten:
            guilty = frozenset(suspects)
        for name in list(sent.changes):
            if verdict.is_partial and name not in guilty:
                self._accept_name(name, sent.changes[name][0])
            else:
                self._undo(name, sent)
        rejected = tuple(self._reject(name, sent, error) for name in suspects if name in guilty)
        if not guilty:
            self._limit = max(1, min(self._limit or len(suspects), len(suspects)) // 2)
        return rejected

    def _known_culprits(self, refused: Message) -> frozenset[str]:
        """Return what is in this message again because it was sent before its refusal was known."""
        return frozenset(
            name
            for name, (sent, _) in refused.changes.items()
            if sent is not None
            and name in self.rejected
            and self.rejected[name].version == sent.version
        )

    def _undo(self, name: str, refused: Message) -> None:
        sent, before = refused.changes[name]
        if sent is None and before is None:
            self._owed[name] = None  # the client has not taken in that it does not exist
            return
        if self._in_flight.rebase(name, before):
            return
        if before is None:
            self.client.pop(name, None)
        else:
            self.client[name] = before
        self._dirty[name] = None
        if sent is not None and before is not None and sent.version == before.version:
            self._owed[name] = None  # it was sent though unchanged, for a cluster that warms

    def _reject(self, name: str, refused: Message, error: str) -> RejectedResource:
        resource = refused.changes[name][0]
        if resource is None:  # pragma: no cover - suspects were sent, not removed
            raise AssertionError(name)
        rejected = RejectedResource(
            type_url=self.type_url,
            name=name,
            version=resource.version,
            error=truncated(error),
            sources=resource.sources,
        )
        self.rejected[name] = rejected
        return rejected
