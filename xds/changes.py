"""
Which names differ between two sets of resources.

Computed once per class and commit, so that each session of the class looks only at what changed.
Layers that are the same in both sets are not looked into.
"""

from collections.abc import Iterable, Mapping

from pilothouse.model.resource import Resource, ResourceLayer, ResourceSet


def changed_names(old: ResourceSet | None, new: ResourceSet | None) -> tuple[str, ...]:
    """Return the names that were added, removed or changed, removed ones last."""
    if old is None or new is None:
        return tuple(new or old or ())
    old_layers = {layer.version for layer in old.layers}
    new_layers = {layer.version for layer in new.layers}
    shared = old_layers & new_layers
    if _order(old.layers, shared) != _order(new.layers, shared):
        return _differing(old, new, (*new, *old))  # precedence changed, layers may shadow others
    touched = [layer for layer in (*new.layers, *old.layers) if layer.version not in shared]
    return _differing(old, new, (name for layer in touched for name in layer))


def _order(layers: Iterable[ResourceLayer], shared: set[str]) -> list[str]:
    return [layer.version for layer in layers if layer.version in shared]


def _differing(
    old: Mapping[str, Resource], new: Mapping[str, Resource], names: Iterable[str]
) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        before, after = old.get(name), new.get(name)
        if before is not after and (
            before is None or after is None or before.version != after.version
        ):
            found[name] = None
    return tuple(found)
