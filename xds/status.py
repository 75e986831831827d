"""
What is known of the connected proxies, as values: for /debug/syncz, config dumps and CSDS.

Reads sessions and never changes them. Times of day are seconds since the epoch; others are seconds
of the server's clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import Resource
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.requests import Variant
from pilothouse.xds.session import Session
from pilothouse.xds.watch import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """
    Who is at the other end of a stream; `number` is unique in one server's life.

    `credential` names what proved the proxy's identity, "" where nobody asked.
    """

    number: int
    proxy: Proxy
    peer: str
    variant: Variant
    connected_at_epoch_seconds: float
    credential: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeStatus:
    """
    How far a proxy has followed one type.

    `state` is ``NOT SENT``, ``SYNCED``, ``STALE`` (an answer is awaited) or ``ERROR`` (the last
    response, or a resource in use, is refused). `resource_count` is what it was sent and has.
    """

    type_url: str
    state: str
    subscribed_count: int
    is_wildcard: bool
    resource_count: int
    sent_nonce: str
    acked_nonce: str
    sent_at: float
    acked_at: float
    error: str
    rejected: tuple[RejectedResource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """One stream: who, which class (opaque), and how far for each type asked for."""

    stream: StreamInfo
    proxy_class: Any
    types: tuple[TypeStatus, ...]


def type_status(watch: Watch) -> TypeStatus:
    """Return how far one type has come."""
    progress = watch.progress
    return TypeStatus(
        type_url=watch.type_url,
        state=_state(watch),
        subscribed_count=len(watch.subscription.names),
        is_wildcard=watch.subscription.wildcard,
        resource_count=len(watch.client),
        sent_nonce=progress.sent_nonce,
        acked_nonce=progress.acked_nonce,
        sent_at=progress.sent_at,
        acked_at=progress.acked_at,
        error=progress.error,
        rejected=tuple(watch.rejected.values()),
    )


def _state(watch: Watch) -> str:
    if watch.rejected or watch.progress.error:
        return "ERROR"
    if not watch.progress.sent_nonce:
        return "NOT SENT"
    return "SYNCED" if watch.is_settled else "STALE"


def resources_of(sessions: Iterable[Session]) -> dict[str, tuple[Resource, ...]]:
    """
    Return what a proxy was sent and has not refused, by type, over all its streams.

    What a client brought along from an earlier stream and we have not compared yet is left out.
    """
    found: dict[str, dict[str, Resource]] = {}
    for session in sessions:
        for type_url, watch in session.watches.items():
            held = found.setdefault(type_url, {})
            held.update((n, r) for n, r in watch.client.items() if isinstance(r, Resource))
    return {type_url: tuple(held.values()) for type_url, held in found.items()}
