"""
What became of a message: accepted, or refused and undone.

Functions of a watch's state. A refusal that names its culprits sends the rest again; one that names
nobody halves messages until the culprit stands alone.
"""

from pilothouse.model.resource import Resource
from pilothouse.xds.in_flight import Message
from pilothouse.xds.progress import Acked
from pilothouse.xds.rejections import RejectedResource, blame, truncated
from pilothouse.xds.watch_state import WatchState


def accepted(state: WatchState, nonce: str, now: float) -> Acked | None:
    """Note an ACK; None if it answers nothing in flight."""
    sent = _take(state, nonce)
    if sent is None:
        return None
    progress = state.progress
    progress.acked_nonce, progress.acked_at = nonce, now
    progress.error = progress.error_nonce = ""
    _accept(state, sent)
    if state.limit is not None:
        state.limit = state.limit * 2 if state.dirty else None
    return Acked(
        type_url=state.type_url,
        nonce=nonce,
        round_trip_seconds=now - sent.sent_at,
        convergence_seconds=None if sent.since is None else now - sent.since,
    )


def refused(
    state: WatchState, nonce: str, error: str, now: float
) -> tuple[RejectedResource, ...] | None:
    """
    Note a NACK and return the resources found guilty; None if it answers nothing in flight.

    What was innocent is sent again. Where the text names nobody, messages are halved until the
    culprit stands alone.
    """
    sent = _take(state, nonce)
    if sent is None:
        return None
    progress = state.progress
    progress.error, progress.error_nonce, progress.error_at = truncated(error), nonce, now
    suspects = [name for name, (new, _) in sent.changes.items() if new is not None]
    if not suspects:
        return ()  # a refused removal: trying again would be refused again
    verdict = blame(error, [*suspects, *sent.forgotten])
    guilty = verdict.names or _known_culprits(state, sent)
    if not guilty and len(suspects) == 1 and not sent.forgotten:
        guilty = frozenset(suspects)
    for name in list(sent.changes):
        if verdict.is_partial and name not in guilty:
            _accept_name(state, name, sent.changes[name][0])
        else:
            _undo(state, name, sent)
    rejected = tuple(_reject(state, name, sent, error) for name in suspects if name in guilty)
    if not guilty:
        state.limit = max(1, min(state.limit or len(suspects), len(suspects)) // 2)
    return rejected


def _take(state: WatchState, nonce: str) -> Message | None:
    sent, passed = state.unanswered.take(nonce)
    for earlier in passed:
        _accept(state, earlier)
    return sent


def _accept(state: WatchState, sent: Message) -> None:
    for name, (new, _) in sent.changes.items():
        _accept_name(state, name, new)


def _accept_name(state: WatchState, name: str, new: Resource | None) -> None:
    rejected = state.rejected.get(name)
    if rejected is not None and (new is None or new.version != rejected.version):
        del state.rejected[name]
    state.unanswered.settle(name, new)


def _known_culprits(state: WatchState, refused: Message) -> frozenset[str]:
    """Return what is in this message again because it was sent before its refusal was known."""
    return frozenset(
        name
        for name, (sent, _) in refused.changes.items()
        if sent is not None
        and name in state.rejected
        and state.rejected[name].version == sent.version
    )


def _undo(state: WatchState, name: str, refused: Message) -> None:
    sent, before = refused.changes[name]
    if sent is None and before is None:
        state.owed[name] = None  # the client has not taken in that it does not exist
        return
    if state.unanswered.rebase(name, before):
        return
    if before is None:
        state.client.pop(name, None)
    else:
        state.client[name] = before
    state.dirty[name] = None
    if sent is not None and before is not None and sent.version == before.version:
        state.owed[name] = None  # it was sent though unchanged, for a cluster that warms


def _reject(state: WatchState, name: str, refused: Message, error: str) -> RejectedResource:
    resource = refused.changes[name][0]
    if resource is None:  # pragma: no cover - suspects were sent, not removed
        raise AssertionError(name)
    rejected = RejectedResource(
        type_url=state.type_url,
        name=name,
        version=resource.version,
        error=truncated(error),
        sources=resource.sources,
    )
    state.rejected[name] = rejected
    return rejected
