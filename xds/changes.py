"""
Which names differ between two sets of resources.

Computed once per class and commit, so that each session of the class looks only at what changed.
Layers and shards that are the same in both sets are not looked into, and those that many classes
have in common are compared once.
"""

from collections.abc import Iterable, Iterator, Mapping

from pilothouse.model.layers import NO_RESOURCES, Layer, ResourceLayer, ResourceSet
from pilothouse.model.resource import Resource
from pilothouse.model.sharding import Place

Shards = Mapping[Place, ResourceLayer]


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
            names = self._in_shards(before.shards, after.shards)
            found = self._differing[before, after] = tuple(dict.fromkeys(names))
        return found

    def _in_shards(self, before: Shards, after: Shards) -> Iterator[str]:
        for place in dict.fromkeys((*after, *before)):
            old, new = before.get(place, NO_RESOURCES), after.get(place, NO_RESOURCES)
            if old is new or old.version == new.version:
                continue
            found = self._differing.get((old, new))
            if found is None:
                found = self._differing[old, new] = differing(old, new, (*new, *old))
            yield from found


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
