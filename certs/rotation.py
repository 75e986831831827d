"""
Changing the root while the mesh runs, as a state machine without input, output or clock.

    STABLE -> TRUSTING_BOTH -> SIGNING_WITH_NEW -> DROPPING_OLD -> STABLE

Each step is taken only when the proxies have what it needs: nobody is signed by the new root
before all trust it, and the old one is trusted until no certificate of it is in use. So in every
state, and for every mix of proxies that have or have not yet received the latest, each proxy
trusts the root that any other's certificate comes from. The state is a value: whoever keeps it on
disk before acting on it can be killed at any moment (`pilothouse.certs.root_store`).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from pilothouse.errors import InvalidConfig


class Phase(StrEnum):
    """Where a rotation is."""

    STABLE = "stable"
    TRUSTING_BOTH = "trusting-both"
    SIGNING_WITH_NEW = "signing-with-new"
    DROPPING_OLD = "dropping-old"


class RotationRefused(InvalidConfig):
    """What was asked for cannot be done in this phase."""

    def __init__(self, phase: Phase, problem: str) -> None:
        """Keep the phase."""
        super().__init__(phase, problem)
        self.phase = phase
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The authority is in the phase {self.phase.value}: {self.problem}"


class Holdings(Protocol):
    """What the proxies have, as far as is known; a proxy that may still come back counts."""

    def all_trust(self, root: str) -> bool:
        """Whether every proxy's trust bundle has that root."""
        ...

    def any_trusts(self, root: str) -> bool:
        """Whether some proxy's trust bundle has that root."""
        ...

    def any_uses(self, root: str) -> bool:
        """Whether some proxy's certificate, not ended, is of that root."""
        ...


@dataclass(frozen=True, slots=True)
class Requested:
    """Somebody wants a new root, which is kept already; the fingerprint names it."""

    new_root: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What the proxies have has been looked at."""

    holdings: Holdings


@dataclass(frozen=True, slots=True)
class Hastened:
    """The operator knows better than we what the proxies have: take the next step now."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The operator wants to keep the old root; possible until the new one signs."""


Event = Requested | Looked | Hastened | Cancelled


class RootRotation(msgspec.Struct, frozen=True, kw_only=True):
    """
    The state: a phase, the root in charge, and the other one that takes part.

    `current` signs; `other` is the new root while TRUSTING_BOTH, the old one later, "" in STABLE.
    `since` is when the phase began.
    """

    phase: Phase = Phase.STABLE
    current: str
    other: str = ""
    since: datetime

    @property
    def signer(self) -> str:
        """The root that signs."""
        return self.current

    @property
    def trusted_roots(self) -> frozenset[str]:
        """The roots that proxies are to trust."""
        if self.phase in (Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW):
            return frozenset({self.current, self.other})
        return frozenset({self.current})

    @property
    def kept_roots(self) -> frozenset[str]:
        """The roots whose files are still needed."""
        return frozenset({self.current, self.other}) - {""}

    def advance(self, event: Event, now: datetime) -> "RootRotation":
        """
        Return the state after an event; an event that changes nothing returns this one.

        Raises: RotationRefused: A request or cancellation at the wrong time.
        """
        match event:
            case Requested(new_root):
                return self._start(new_root, now)
            case Cancelled():
                return self._cancel(now)
            case Hastened():
                if self.phase is Phase.STABLE:
                    raise RotationRefused(self.phase, "no rotation is under way.")
                return self._next(now)
            case Looked(holdings):
                return self._next(now) if self._may_go_on(holdings) else self

    def _start(self, new_root: str, now: datetime) -> "RootRotation":
        if self.phase is not Phase.STABLE:
            raise RotationRefused(self.phase, "another rotation is under way.")
        if not new_root or new_root == self.current:
            raise RotationRefused(self.phase, "the new root must be another one.")
        return RootRotation(
            phase=Phase.TRUSTING_BOTH, current=self.current, other=new_root, since=now
        )

    def _cancel(self, now: datetime) -> "RootRotation":
        if self.phase is not Phase.TRUSTING_BOTH:
            raise RotationRefused(
                self.phase, "a rotation can be cancelled only before the new root signs."
            )
        return RootRotation(current=self.current, since=now)

    def _may_go_on(self, holdings: Holdings) -> bool:
        match self.phase:
            case Phase.STABLE:
                return False
            case Phase.TRUSTING_BOTH:
                return all(holdings.all_trust(root) for root in self.trusted_roots)
            case Phase.SIGNING_WITH_NEW:
                return not holdings.any_uses(self.other)
            case Phase.DROPPING_OLD:
                return not holdings.any_trusts(self.other)

    def _next(self, now: datetime) -> "RootRotation":
        if self.phase is Phase.TRUSTING_BOTH:
            return RootRotation(
                phase=Phase.SIGNING_WITH_NEW, current=self.other, other=self.current, since=now
            )
        if self.phase is Phase.SIGNING_WITH_NEW:
            return RootRotation(
                phase=Phase.DROPPING_OLD, current=self.current, other=self.other, since=now
            )
        return RootRotation(current=self.current, since=now)
