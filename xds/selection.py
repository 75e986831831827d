"""
What a message of one type must hold: the difference between what is and what the client has.

Functions of a watch's state and a view. They note which removals are held back and which refusals
no longer matter, but what the client will have is for `pilothouse.xds.watch` to note.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pilothouse.model.resource import LDS, Resource
from pilothouse.xds.in_flight import Changes, Held
from pilothouse.xds.watch_state import View, WatchState

MAX_DELTA_BYTES: Final = 4_000_000
"""A delta message that would be larger is split; gRPC clients take 4 MiB unless told otherwise."""


@dataclass(slots=True)
class Selection:
    """
    The content of a message: `changes` are what is new in it to the client.

    `leftover` are names that did not fit.
    """

    resources: list[Resource] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changes: Changes = field(default_factory=dict)
    leftover: dict[str, None] = field(default_factory=dict)
    size_bytes: int = 0


def select(
    state: WatchState, view: View, everything: Mapping[str, Resource], *, may_remove: bool
) -> Selection:
    """
    Return what to send; `everything` is what the wildcard covers.

    `may_remove` releases the removals of resources others may still point at.
    """
    if state.is_full_state and not state.is_delta:
        return _select_full(state, view, everything, may_remove=may_remove)
    return _select_changed(state, view, everything, may_remove=may_remove)


def _candidates(
    state: WatchState, everything: Mapping[str, Resource], *, may_remove: bool
) -> Iterable[str]:
    names: dict[str, None] = {}
    if state.looks_at_all:
        names.update(dict.fromkeys(everything))
        names.update(dict.fromkeys(state.subscription.names))
        names.update(dict.fromkeys(state.client))
    names.update(state.dirty)
    names.update(state.owed)
    if may_remove:
        names.update(state.removals)
    return names


def _select_changed(
    state: WatchState, view: View, everything: Mapping[str, Resource], *, may_remove: bool
) -> Selection:
    """Pick what differs: delta, and SotW of the types that need not send everything."""
    picked = Selection()
    for name in _candidates(state, everything, may_remove=may_remove):
        current = everything.get(name)
        if current is None and name in state.subscription.names:
            current = view.named(state.type_url, name)
        held = state.client.get(name)
        if current is None:
            _select_removal(state, picked, name, held, may_remove=may_remove)
            continue
        state.removals.pop(name, None)
        if state.is_rejected(name, current):
            continue
        if held is not None and held.version == current.version and name not in state.owed:
            state.client[name] = current
            continue
        if _is_over(state, picked, current):
            picked.leftover[name] = None
            continue
        picked.resources.append(current)
        picked.size_bytes += current.size_bytes
        picked.changes[name] = (current, held)
    return picked


def _select_removal(
    state: WatchState, picked: Selection, name: str, held: Held | None, *, may_remove: bool
) -> None:
    state.rejected.pop(name, None)
    if not state.is_delta:
        # SotW cannot say it; forgotten, so that the resource is sent when it comes back.
        state.removals.pop(name, None)
        state.client.pop(name, None)
        state.unanswered.forget(name)
    elif held is None:
        state.removals.pop(name, None)
        if name in state.owed:
            picked.removed.append(name)
            picked.changes[name] = (None, None)
    elif may_remove or name in state.owed or state.type_url == LDS:
        # Listeners go at once: nothing points at them, and their address may be needed again.
        state.removals.pop(name, None)
        picked.removed.append(name)
        picked.changes[name] = (None, held)
    else:
        state.removals[name] = None


def _select_full(
    state: WatchState, view: View, everything: Mapping[str, Resource], *, may_remove: bool
) -> Selection:
    """Pick everything, or nothing where the client has that: SotW clusters and listeners."""
    picked = Selection()
    wanted = dict(everything)
    for name in state.subscription.names:
        current = wanted.get(name) or view.named(state.type_url, name)
        if current is not None:
            wanted[name] = current
    for name, current in wanted.items():
        _select_whole(state, picked, name, current)
    for name, held in state.client.items():
        if name in wanted:
            continue
        if state.type_url == LDS or may_remove or not isinstance(held, Resource):
            picked.changes[name] = (None, held)
            state.removals.pop(name, None)
        else:
            picked.resources.append(held)
            state.removals[name] = None
    gone = state.rejected.keys() - wanted.keys()
    for name in gone:
        del state.rejected[name]
        # The client may run an older one that it brought along from an earlier stream.
        state.owes_answer = True
    if not (picked.changes or state.owed or state.owes_answer):
        picked.resources.clear()
    return picked


def _select_whole(state: WatchState, picked: Selection, name: str, current: Resource) -> None:
    """Pick a resource as it is now, or as the client has it where it may not have the new."""
    state.removals.pop(name, None)
    held = state.client.get(name)
    if held is not None and held.version == current.version:
        state.clear_rejection(name, current)
        picked.resources.append(current)
        return
    is_rejected = state.is_rejected(name, current)
    if not is_rejected and not _is_over(state, picked, current):
        picked.resources.append(current)
        picked.changes[name] = (current, held)
        return
    if not is_rejected:
        picked.leftover[name] = None
    if isinstance(held, Resource):
        picked.resources.append(held)


def _is_over(state: WatchState, picked: Selection, candidate: Resource) -> bool:
    if state.limit is not None and len(picked.changes) >= state.limit:
        return True
    return (
        state.is_delta
        and bool(picked.resources)
        and picked.size_bytes + candidate.size_bytes > MAX_DELTA_BYTES
    )
