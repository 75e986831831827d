"""
What proxies hold: which roots each trusts, and of which root its certificate is.

The ledger that a rotation waits on (`pilothouse.certs.rotation`). A proxy that has gone silent
keeps what it had until its certificate ends, because it may be cut off from us and still talk to
others. What is not known counts against every step. Pure; times are passed in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pilothouse.certs.rotation import Phase, RootRotation

Roots = frozenset[str]
"""Fingerprints of roots."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one holder has until its certificate ends; None is not known.

    `trusts` are the roots of its bundle, `uses` the roots that its certificates are of.
    """

    trusts: Roots | None = None
    uses: Roots | None = None
    until: datetime


_Group = tuple[Roots | None, Roots | None]
_Test = Callable[[Roots | None, Roots | None], bool]


@dataclass(frozen=True, slots=True)
class HoldersAt:
    """
    The ledger at a moment: the `Holdings` of a rotation.

    `empty_handed` are keys that are known to have nothing after all.
    """

    holders: "Holders"
    now: datetime
    empty_handed: frozenset[str] = frozenset()

    def all_trust(self, root: str) -> bool:
        """Whether every holder trusts a root."""
        return not self._any(lambda trusts, _: trusts is None or root not in trusts)

    def any_trusts(self, root: str) -> bool:
        """Whether a holder may trust a root."""
        return self._any(lambda trusts, _: trusts is None or root in trusts)

    def any_uses(self, root: str) -> bool:
        """Whether a holder may use a certificate of a root."""
        return self._any(lambda _, uses: uses is None or root in uses)

    def behind(self, rotation: RootRotation) -> dict[str, datetime]:
        """Return who keeps a rotation from its next step: key -> when its certificate ends."""
        current, other = rotation.current, rotation.other
        match rotation.phase:
            case Phase.STABLE:
                return {}
            case Phase.TRUSTING_BOTH:
                return self._who(lambda trusts, _: trusts is None or not {current, other} <= trusts)
            case Phase.SIGNING_WITH_NEW:
                return self._who(lambda _, uses: uses is None or other in uses)
            case Phase.DROPPING_OLD:
                return self._who(lambda trusts, _: trusts is None or other in trusts)

    def _any(self, counts: _Test) -> bool:
        return any(
            until > self.now and key not in self.empty_handed
            for (trusts, uses), group in self.holders.groups.items()
            if counts(trusts, uses)
            for key, until in group.items()
        )

    def _who(self, counts: _Test) -> dict[str, datetime]:
        return {
            key: until
            for (trusts, uses), group in self.holders.groups.items()
            if counts(trusts, uses)
            for key, until in group.items()
            if until > self.now and key not in self.empty_handed
        }


class Holders:
    """
    The ledger. Holders are grouped by what they have, as most have the same.

    Keys are the caller's: ``leaf:SERIAL`` for a certificate whose holder is not known further,
    ``node:IDENTITY:ID`` for a connected proxy.
    """

    def __init__(self, known: Mapping[str, Holding] | None = None) -> None:
        """Begin with what is known."""
        self.groups: dict[_Group, dict[str, datetime]] = {}
        self._group_of: dict[str, _Group] = {}
        for key, holding in (known or {}).items():
            self.note(key, holding)

    def __len__(self) -> int:
        """Count the holders, ended ones until they are dropped."""
        return len(self._group_of)

    def __iter__(self) -> Iterator[tuple[str, Holding]]:
        """Yield what is known of each."""
        for (trusts, uses), group in self.groups.items():
            for key, until in group.items():
                yield key, Holding(trusts=trusts, uses=uses, until=until)

    def get(self, key: str) -> Holding | None:
        """Return what is known of a holder."""
        place = self._group_of.get(key)
        if place is None:
            return None
        return Holding(trusts=place[0], uses=place[1], until=self.groups[place][key])

    def note(self, key: str, holding: Holding) -> bool:
        """Note what a holder has now; return whether that is news."""
        if self.get(key) == holding:
            return False
        self.forget(key)
        place = (holding.trusts, holding.uses)
        self._group_of[key] = place
        self.groups.setdefault(place, {})[key] = holding.until
        return True

    def forget(self, key: str) -> bool:
        """Forget a holder; return whether it was known."""
        place = self._group_of.pop(key, None)
        if place is None:
            return False
        group = self.groups[place]
        del group[key]
        if not group:
            del self.groups[place]
        return True

    def drop_ended(self, now: datetime) -> list[str]:
        """Forget holders whose certificates have ended; return their keys."""
        ended = [
            key for group in self.groups.values() for key, until in group.items() if until <= now
        ]
        for key in ended:
            self.forget(key)
        return ended

    def at(self, now: datetime, empty_handed: frozenset[str] = frozenset()) -> HoldersAt:
        """Return the ledger as of a moment, some holders left out."""
        return HoldersAt(self, now, empty_handed)
