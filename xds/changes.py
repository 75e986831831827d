"""
Which names differ between two sets of resources.

Computed once per class and commit, so that each session of the class looks only at what changed.
Layers and shards that are the same in both sets are not looked into, and layers that many classes
have in common are compared once.
"""

from collections.abc import Iterable, Mapping

from pilothouse.model.layers import Layer, ResourceSet
from pilothouse.model.resource import Resource


class Comparison:
    """Compares sets of one commit; remembers what it found for the layers these share."""

    __slots__ = ("_differing",)

    def __init__(self) -> None:
        """Start with nothing compared."""
        self._differing: dict[tuple[Layer, Layer], tuple[str, ...]] = {}

    def changed_names(self, old: ResourceSet | None, new: ResourceSet | None) -> tuple[str, ...]:
        """Return the names that were added, removed or changed."""
        if old is None or new is None:
            return tuple(new or old or ())
        if len(old.layers) != len(new.layers):
            return differing(old, new, (*new, *old))
        pairs = zip(old.layers, new.layers, strict=True)
        # Who owns a name, or what it owns, can only change with a layer that has the name.
        names = [name for before, after in pairs for name in self._in_layer(before, after)]
        return differing(old, new, names)

    def _in_layer(self, before: Layer, after: Layer) -> tuple[str, ...]:
        if before.version == after.version:
            return ()
        found = self._differing.get((before, after))
        if found is None:
            found = self._differing[before, after] = _in_shards(before, after)
        return found


def _in_shards(before: Layer, after: Layer) -> tuple[str, ...]:
    if len(before.shards) != len(after.shards):
        return differing(before, after, (*after, *before))
    found: dict[str, None] = {}
    for old, new in zip(before.shards, after.shards, strict=True):
        if old.version != new.version:
            found.update(dict.fromkeys(differing(old, new, (*new, *old))))
    return tuple(found)


def differing(
    old: Mapping[str, Resource], new: Mapping[str, Resource], names: Iterable[str]
) -> tuple[str, ...]:
    """Return those of some names that two mappings do not agree on."""
    found: dict[str, None] = {}
    for name in names:
        before, after = old.get(name), new.get(name)
        if before is not after and (
            before is None or after is None or before.version != after.version
        ):
            found[name] = None
    return tuple(found)
