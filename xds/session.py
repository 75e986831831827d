"""
One discovery stream as a state machine: requests in, messages out.

Sans-IO: no sockets, tasks, clocks or graph. Times are seconds of any monotonic clock and come as
arguments. Marks are cheap and latest wins; the comparison with what the client has happens when the
writer is free and asks for the next message, so a slow reader costs no memory.

Order (make before break, traffic.md PU-08): CDS, EDS, LDS, RDS, SDS, ECDS, removals last.

- Listeners and routes wait for the ACK of a message that brought new clusters: Envoy withholds that
  ACK until they are warm, so that routes to them find them. They wait `WARMING_LIMIT_SECONDS` at
  most, for a cluster that cannot warm must not hold up its own repair.
- What others may point at is removed once every listener and route message has been answered.
- A cluster that was sent has its endpoints sent after it, changed or not: Envoy waits for them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from pilothouse.model.resource import CDS, EDS, LDS, PUSH_ORDER, RDS, Resource
from pilothouse.xds.progress import Acked
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.requests import DeltaRequest, InvalidRequest, Request, SotwRequest, Variant
from pilothouse.xds.subscription import SubscriptionChange
from pilothouse.xds.watch import Draft, Watch
from pilothouse.xds.watch_state import View

WARMING_LIMIT_SECONDS: Final = 5.0
"""How long listeners and routes wait for new clusters, and removals for the first requests."""

MAX_TYPES: Final = 32


class Outgoing(msgspec.Struct, frozen=True):
    """A response to be framed; in SotW, clusters and listeners are all the client should have."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a request did.

    `is_new_type` tells the first request of a type; `added` and `dropped` are names of it. `nack`
    is the error text of a NACK; `rejected` the resources found at fault. `is_stale` tells that a
    nonce answered nothing that is in flight.
    """

    type_url: str
    is_new_type: bool = False
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    acked: Acked | None = None
    nack: str | None = None
    rejected: tuple[RejectedResource, ...] = ()
    is_stale: bool = False


class Session:
    """The protocol state of one stream; see the module docstring for its rules."""

    __slots__ = (
        "_counter", "_has_carried", "_opened_at", "_ordered", "_quiet", "_view", "_watches",
        "variant",
    )  # fmt: skip

    def __init__(self, variant: Variant, view: View, now: float) -> None:
        """Open a stream of `variant` that is served from `view`."""
        self.variant = variant
        self._view = view
        self._watches: dict[str, Watch] = {}
        self._ordered: tuple[Watch, ...] = ()
        self._counter = 0
        self._quiet = False
        self._opened_at = now
        self._has_carried = False

    @property
    def watches(self) -> Mapping[str, Watch]:
        """The state of each type asked for, to be looked at only."""
        return self._watches

    def rejected(self) -> Iterator[RejectedResource]:
        """Yield what the client refuses at present."""
        for watch in self._watches.values():
            yield from watch.rejected.values()

    # -- in ---------------------------------------------------------------------------------------

    def receive(self, request: Request, now: float) -> Effects:
        """
        Advance on a request and return what it did; then ask `next_message`.

        Raises: InvalidRequest: The request is of the other variant, or asks for too much.
        """
        watch = self._watches.get(request.type_url)
        is_new = watch is None
        if watch is None:
            if len(self._watches) >= MAX_TYPES:
                raise InvalidRequest(f"more than {MAX_TYPES} resource types on one stream")
            watch = Watch(request.type_url, is_delta=self.variant is Variant.DELTA)
            self._watches[request.type_url] = watch
            self._ordered = self._in_order()
        last_nonce = watch.progress.sent_nonce
        acked, rejected = None, None
        if not is_new and request.error is not None:
            rejected = watch.refused(request.nonce, request.error, now)
        elif not is_new and request.nonce:
            acked = watch.accepted(request.nonce, now)
        # SotW clients repeat the nonce they have answered already when they change their names.
        is_repeat = request.nonce in {"", last_nonce}
        is_answer = acked is not None or rejected is not None
        is_stale = not (is_new or is_answer or is_repeat)
        if isinstance(request, DeltaRequest):
            change = self._adjust(watch, request, is_new=is_new)
        else:
            change = self._replace(watch, request, last_nonce, is_new=is_new)
        self._quiet = self._quiet and not (watch.is_due or watch.has_removals)
        return Effects(
            type_url=request.type_url,
            is_new_type=is_new,
            added=change.added,
            dropped=change.dropped,
            acked=acked,
            nack=None if rejected is None else request.error,
            rejected=rejected or (),
            is_stale=is_stale,
        )

    def _adjust(self, watch: Watch, request: DeltaRequest, *, is_new: bool) -> SubscriptionChange:
        if self.variant is not Variant.DELTA:
            raise InvalidRequest("a delta request on a state-of-the-world stream")
        # Subscriptions count whatever the nonce: it only pairs an ACK with its response.
        change = watch.subscription.adjust(request.subscribe, request.unsubscribe)
        watch.answer(change, in_full=False)
        if is_new and request.initial_versions:
            # Envoy waits for endpoints after a reconnect even if it has them.
            watch.carry(request.initial_versions, answer_anyway=watch.type_url == EDS)
            self._has_carried = True
        return change

    def _replace(
        self, watch: Watch, request: SotwRequest, last_nonce: str, *, is_new: bool
    ) -> SubscriptionChange:
        if self.variant is not Variant.SOTW:
            raise InvalidRequest("a state-of-the-world request on a delta stream")
        if not is_new and request.nonce and request.nonce != last_nonce:
            return SubscriptionChange()  # stale: the client has yet to see our last response
        change = watch.subscription.replace(request.names)
        starts_anew = is_new or (not request.nonce and request.error is None)
        watch.answer(change, in_full=starts_anew)
        return change

    def changed(self, type_url: str, names: Iterable[str] | None, now: float) -> bool:
        """Mark names (None: all) of a type; tell whether the client watches that type."""
        watch = self._watches.get(type_url)
        if watch is None:
            return False
        watch.mark(names, now)
        self._quiet = False
        return True

    def changed_all(self, now: float) -> None:
        """Mark everything, for a client that is now served from another view."""
        for watch in self._watches.values():
            watch.mark(None, now)
        self._quiet = False

    # -- out --------------------------------------------------------------------------------------

    @property
    def may_speak(self) -> bool:
        """Whether `next_message` is worth asking."""
        return not self._quiet

    def next_message(self, now: float) -> Outgoing | None:
        """Return what to send next, None if there is nothing to say now."""
        if self._quiet:
            return None
        for watch in self._ordered:
            if not watch.is_due or (watch.type_url in (LDS, RDS) and self._is_warming(now)):
                continue
            draft = watch.draft(self._view, may_remove=False)
            if draft is not None:
                return self._send(watch, draft, now)
        if self._may_remove(now):
            for watch in reversed(self._ordered):
                if watch.has_removals and not (watch.is_searching and watch.in_flight):
                    draft = watch.draft(self._view, may_remove=True)
                    if draft is not None:
                        return self._send(watch, draft, now)
        self._quiet = not any(watch.is_due or watch.has_removals for watch in self._ordered)
        return None

    def wake_at(self, now: float) -> float | None:
        """Return when to ask again though nothing happened, None if that would be in vain."""
        if self._quiet:
            return None
        waits = []
        clusters = self._watches.get(CDS)
        warming_since = clusters.warming_since() if clusters else None
        if warming_since is not None and any(
            watch.is_due for watch in self._watches.values() if watch.type_url in (LDS, RDS)
        ):
            waits.append(warming_since + WARMING_LIMIT_SECONDS)
        if self._has_carried and any(watch.has_removals for watch in self._watches.values()):
            waits.append(self._opened_at + WARMING_LIMIT_SECONDS)
        return min((wait for wait in waits if wait > now), default=None)

    def _in_order(self) -> tuple[Watch, ...]:
        watches = self._watches
        first = [watches[type_url] for type_url in PUSH_ORDER if type_url in watches]
        others = [watch for type_url, watch in watches.items() if type_url not in PUSH_ORDER]
        return (*first, *others)

    def _is_warming(self, now: float) -> bool:
        clusters = self._watches.get(CDS)
        since = clusters.warming_since() if clusters else None
        return since is not None and now < since + WARMING_LIMIT_SECONDS

    def _may_remove(self, now: float) -> bool:
        if not any(watch.has_removals for watch in self._ordered):
            return False
        pointing = [self._watches[t] for t in (LDS, RDS) if t in self._watches]
        if not all(watch.is_settled for watch in pointing):
            return False
        # A client that reconnects has listeners and routes we have not heard of yet.
        is_known = LDS in self._watches or now >= self._opened_at + WARMING_LIMIT_SECONDS
        return is_known or not self._has_carried

    def _send(self, watch: Watch, draft: Draft, now: float) -> Outgoing:
        self._counter += 1
        nonce = str(self._counter)
        message = Outgoing(watch.type_url, nonce, tuple(draft.resources), tuple(draft.removed))
        watch.sent(draft, nonce, now)
        if watch.type_url == CDS:
            self._owe_endpoints(draft)
        return message

    def _owe_endpoints(self, draft: Draft) -> None:
        endpoints = self._watches.get(EDS)
        if endpoints is None:
            return
        for cluster, _ in draft.changes.values():
            if cluster is not None and cluster.endpoints_name is not None:
                endpoints.owe(cluster.endpoints_name)
