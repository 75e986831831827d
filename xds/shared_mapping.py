"""
Mappings of names that are nearly the same for many clients, and cost little for each but the first.

A mesh's proxies ask for the same thousand names and have the same thousand resources, but for the
few that are their own. Each keeps what differs from a mapping it shares with the others. `fold`
looks for another one to share, or makes it, when much differs.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

V = TypeVar("V")

FOLD_ABOVE: Final = 64
"""Differences kept apart; fewer make no mapping worth sharing."""
FOLD_SHARE: Final = 8
"""And so many times fewer than there are names: folding costs as much as there are."""


class _Shared(dict[str, Any]):
    """A mapping nobody changes any more."""

    __slots__ = ("__weakref__",)


class _Gone:
    """What stands for a name that is in the shared mapping but not in this one."""


_GONE: Final = _Gone()
_EMPTY: Final = _Shared()
_SHARED: Final[WeakValueDictionary[int, _Shared]] = WeakValueDictionary()
"""The newest mapping of some names, by these; it lives as long as somebody has it."""


def _nearest(made: _Shared) -> tuple[_Shared, dict[str, Any]]:
    """Return a mapping of the same names to share, and the few values that differ from it."""
    key = hash(tuple(made))
    known = _SHARED.get(key)
    if known is not None and known.keys() == made.keys():
        differing = {name: value for name, value in made.items() if known[name] is not value}
        if len(differing) <= FOLD_ABOVE // 2:
            return known, differing
    _SHARED[key] = made
    return made, {}


class SharedMapping(MutableMapping[str, V], Generic[V]):
    """A mutable mapping of names; order is that of insertion, with exceptions after `fold`."""

    __slots__ = ("_base", "_count", "_own")

    def __init__(self) -> None:
        """Begin empty."""
        self._base: _Shared = _EMPTY
        self._own: dict[str, V | _Gone] = {}
        self._count = 0

    def __getitem__(self, name: str) -> V:
        """Return the value of a name. Raises: KeyError."""
        found = self._own[name] if name in self._own else self._base[name]
        if isinstance(found, _Gone):
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (as dict has it)
        """Return the value of a name, or the default."""
        found = self._own.get(name, _EMPTY)
        if found is _EMPTY:
            return self._base.get(name, default)
        return default if found is _GONE else found

    def __contains__(self, name: object) -> bool:
        """Tell whether it has a name."""
        found = self._own.get(name, _EMPTY)  # type: ignore[call-overload]
        return name in self._base if found is _EMPTY else found is not _GONE

    def __setitem__(self, name: str, value: V) -> None:
        """Set the value of a name."""
        self._count += name not in self
        if name in self._base and self._base[name] is value:
            self._own.pop(name, None)
        else:
            self._own[name] = value

    def __delitem__(self, name: str) -> None:
        """Drop a name. Raises: KeyError."""
        if name not in self:
            raise KeyError(name)
        self._count -= 1
        if name in self._base:
            self._own[name] = _GONE
        else:
            del self._own[name]

    def pop(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Drop a name and return its value, or the default."""
        if name not in self:
            return default
        found = self[name]
        del self[name]
        return found

    def update(self, other: Mapping[str, V]) -> None:  # type: ignore[override]
        """Set the values of many names."""
        if self._own or self._base:
            for name, value in other.items():
                self[name] = value
        else:
            self._own = dict(other)
            self._count = len(other)

    def clear(self) -> None:
        """Drop all names."""
        self._base, self._own, self._count = _EMPTY, {}, 0

    def __iter__(self) -> Iterator[str]:
        """Yield names."""
        own = self._own
        for name in self._base:
            if own.get(name) is not _GONE:
                yield name
        for name, value in own.items():
            if value is not _GONE and name not in self._base:
                yield name

    def __len__(self) -> int:
        """Count names."""
        return self._count

    def fold(self) -> None:
        """Share what differs if it is much; call it after a message, not after each name."""
        differing = len(self._own)
        if differing > FOLD_ABOVE and differing * FOLD_SHARE > len(self._base):
            made = _Shared(self._base)
            made.update(self._own)
            for name in [name for name, value in self._own.items() if value is _GONE]:
                del made[name]
            self._base, self._own = _nearest(made)
