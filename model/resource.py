"""
Encoded xDS resources, and the layers they are shared in.

A resource is encoded once and framed once, then shared by every proxy that may have it. Bytes are
immutable, a version is the hash of the content, so equal content is never sent twice. Knows how an
`Any` is framed inside a discovery response and nothing else of protobuf.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

from pilothouse.graph.findings import ConfigRef

CDS: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS: Final = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SDS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
ECDS: Final = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

PUSH_ORDER: Final = (CDS, EDS, LDS, RDS, SDS, ECDS)
"""Make before break: what is pointed at goes before what points at it (traffic.md PU-08)."""

WILDCARD_TYPES: Final = frozenset({CDS, LDS})
"""Types whose empty first subscription means everything."""

SHORT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS", SDS: "SDS", ECDS: "ECDS"}
)


def varint(number: int) -> bytes:
    """Encode a non-negative integer as a protobuf varint."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """Frame a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def content_version(data: bytes) -> str:
    """Return the version of some bytes: 16 hex digits of their hash."""
    return blake2b(data, digest_size=8).hexdigest()


class Resource:
    """
    One encoded xDS resource.

    `any_bytes` is an encoded ``google.protobuf.Any``. A response is the concatenation of
    ``sotw_head + any_bytes`` (DiscoveryResponse.resources) or ``delta_head + any_bytes``
    (DeltaDiscoveryResponse.resources) over its resources. `sources` are the objects that made it,
    the most specific first. `endpoints_name` is the load assignment Envoy waits for after this
    cluster changes. Equal name and version mean equal.
    """

    __slots__ = (
        "any_bytes", "delta_head", "endpoints_name", "name", "sotw_head", "sources", "type_url",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        type_url: str,
        name: str,
        data: bytes,
        sources: tuple[ConfigRef, ...] = (),
        endpoints_name: str | None = None,
    ) -> None:
        """Frame `data`, an encoded message of `type_url`."""
        self.type_url = type_url
        self.name = name
        self.sources = sources
        self.endpoints_name = endpoints_name
        self.version = content_version(data)
        self.any_bytes = field(1, type_url.encode()) + field(2, data)
        self.sotw_head = b"\x12" + varint(len(self.any_bytes))
        # Resource{version=1, resource=2 (Any), name=3}: fields may come in any order.
        inner = field(3, name.encode()) + field(1, self.version.encode())
        inner += b"\x12" + varint(len(self.any_bytes))
        self.delta_head = b"\x12" + varint(len(inner) + len(self.any_bytes)) + inner

    @property
    def data(self) -> bytes:
        """The encoded message, unwrapped."""
        head = field(1, self.type_url.encode())
        size = len(self.any_bytes) - len(head) - 1
        while len(head) + 1 + len(varint(size)) + size != len(self.any_bytes):
            size -= 1
        return self.any_bytes[-size:] if size else b""

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return (
            isinstance(other, Resource)
            and self.version == other.version
            and self.name == other.name
            and self.type_url == other.type_url
        )

    def __hash__(self) -> int:
        """Hash by content."""
        return hash((self.version, self.name))

    def __repr__(self) -> str:
        """Show what it is, without the bytes."""
        return (
            f"Resource({SHORT_NAMES.get(self.type_url, self.type_url)} {self.name} {self.version})"
        )


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


def _in_both(one: ResourceLayer, other: ResourceLayer) -> Iterator[str]:
    # The smaller is walked: most layers are a proxy's own few beside thousands shared by all.
    small, large = (one, other) if len(one) < len(other) else (other, one)
    return (name for name in small if name in large)


class ResourceSet(Mapping[str, Resource]):
    """
    What a proxy of one class gets of one type: shared layers, the first to name one wins.

    Layers are never merged: there may be as many sets as proxies, each of thousands of names.
    """

    __slots__ = ("_hidden", "layers", "version")

    def __init__(self, layers: tuple[ResourceLayer, ...]) -> None:
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
