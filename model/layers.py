"""
Sets of resources that proxies share: layers, and what a proxy of one class gets of one type.

Compared by content, so that a set that stays the same stops the wave of a change. A set is never
merged into one mapping: there may be as many sets as proxies, each of thousands of names. A large
layer comes in shards, so that one changed resource makes one small shard anew.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from pilothouse.model.resource import Resource, content_version
from pilothouse.model.sharding import Place, Sharding


class ResourceLayer(Mapping[str, Resource]):
    """An immutable set of resources by name, in order, compared by content."""

    __slots__ = ("_resources", "version")

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        """Hold resources by name; of two with one name the first stays (traffic.md CL-01)."""
        self._resources: dict[str, Resource] = {}
        for resource in resources:
            self._resources.setdefault(resource.name, resource)
        self.version = content_version(
            "".join(f"{r.name}\0{r.version}\n" for r in self._resources.values()).encode()
        )

    @property
    def shards(self) -> "Mapping[Place, ResourceLayer]":
        """The pieces it comes in: itself."""
        return {_WHOLE: self}

    def __getitem__(self, name: str) -> Resource:
        """Return the resource of that name."""
        return self._resources[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a resource of that name."""
        return name in self._resources

    def __iter__(self) -> Iterator[str]:
        """Yield names in order."""
        return iter(self._resources)

    def __len__(self) -> int:
        """Count resources."""
        return len(self._resources)

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, ResourceLayer) and self.version == other.version

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self.version)


_WHOLE = Place(0, 0)
NO_RESOURCES = ResourceLayer()


class ShardedLayer(Mapping[str, Resource]):
    """
    A large layer in shards, each of which holds the names whose host belongs there.

    `host_of` gives the host of a name, for any text. Names come in order within each shard.
    """

    __slots__ = ("_count", "_host_of", "_sharding", "shards", "version")

    def __init__(
        self,
        shards: Mapping[Place, ResourceLayer],
        sharding: Sharding,
        host_of: Callable[[str], str],
    ) -> None:
        """Join shards."""
        self.shards = shards
        self.version = content_version(
            "".join([shard.version for shard in shards.values()]).encode()
        )
        self._sharding = sharding
        self._host_of = host_of
        self._count = sum(map(len, shards.values()))

    def _shard(self, name: str) -> ResourceLayer:
        return self.shards.get(self._sharding.place(self._host_of(name)), NO_RESOURCES)

    def __getitem__(self, name: str) -> Resource:
        """Return the resource of that name."""
        return self._shard(name)[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a resource of that name."""
        return isinstance(name, str) and name in self._shard(name)

    def __iter__(self) -> Iterator[str]:
        """Yield names, shard by shard."""
        return chain.from_iterable(self.shards.values())

    def __len__(self) -> int:
        """Count resources."""
        return self._count

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, ShardedLayer) and self.version == other.version

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self.version)


Layer = ResourceLayer | ShardedLayer


def _in_both(one: Layer, other: Layer) -> Iterator[str]:
    # The smaller is walked: most layers are a proxy's own few beside thousands shared by all.
    small, large = (one, other) if len(one) < len(other) else (other, one)
    return (name for name in small if name in large)


class ResourceSet(Mapping[str, Resource]):
    """What a proxy of one class gets of one type: layers, the first to name a resource wins."""

    __slots__ = ("_hidden", "layers", "version")

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        """Stack layers."""
        self.layers = layers
        self.version = content_version("".join(layer.version for layer in layers).encode())
        self._hidden = tuple(
            frozenset(name for above in layers[:depth] for name in _in_both(above, layer))
            for depth, layer in enumerate(layers)
        )

    def __getitem__(self, name: str) -> Resource:
        """Return the resource of that name."""
        for layer in self.layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Yield names in order."""
        for layer, hidden in zip(self.layers, self._hidden, strict=True):
            if hidden:
                yield from (name for name in layer if name not in hidden)
            else:
                yield from layer

    def __len__(self) -> int:
        """Count resources."""
        return sum(map(len, self.layers)) - sum(map(len, self._hidden))

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, ResourceSet) and self.version == other.version

    def __hash__(self) -> int:
        """Hash by content."""
        return hash(self.version)
