"""
Encoded xDS resources, framed for the wire.

A resource is encoded once and framed once, then shared by every proxy that may have it. Bytes are
immutable, a version is the hash of the content, so equal content is never sent twice. Knows how an
`Any` is framed inside a discovery response and nothing else of protobuf.
"""

from collections.abc import Mapping
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

    `pieces` together are an encoded ``google.protobuf.Any``, of `size_bytes` in all. A response is
    the concatenation of `sotw_head` and pieces (DiscoveryResponse.resources) or `delta_head` and
    pieces (DeltaDiscoveryResponse.resources) over its resources. `sources` are the objects that
    made it, the most specific first. `endpoints_name` is the load assignment Envoy waits for after
    this cluster changes. Equal name and version mean equal.
    """

    __slots__ = (
        "_framed", "delta_head", "endpoints_name", "name", "size_bytes", "sotw_head", "sources",
        "type_url", "version",
    )  # fmt: skip

    def __init__(
        self,
        type_url: str,
        name: str,
        data: bytes | tuple[bytes, ...],
        sources: tuple[ConfigRef, ...] = (),
        endpoints_name: str | None = None,
        *,
        version: str | None = None,
    ) -> None:
        """
        Frame `data`, an encoded message of `type_url`.

        Given in pieces it stays in pieces, so that large resources share what they have in common.
        `version` is the hash of the content, or what stands for it; None to work it out.
        """
        self.type_url = type_url
        self.name = name
        self.sources = sources
        self.endpoints_name = endpoints_name
        pieces = (data,) if isinstance(data, bytes) else data
        self.version = version or content_version(b"".join(pieces))
        size = sum(map(len, pieces))
        head = field(1, type_url.encode()) + b"\x12" + varint(size)
        self._framed = head + data if isinstance(data, bytes) else (head, *data)
        self.size_bytes = len(head) + size
        self.sotw_head = b"\x12" + varint(self.size_bytes)
        # Resource{version=1, resource=2 (Any), name=3}: fields may come in any order.
        inner = field(3, name.encode()) + field(1, self.version.encode())
        inner += b"\x12" + varint(self.size_bytes)
        self.delta_head = b"\x12" + varint(len(inner) + self.size_bytes) + inner

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """What an encoded Any of it is joined from."""
        return (self._framed,) if isinstance(self._framed, bytes) else self._framed

    @property
    def any_bytes(self) -> bytes:
        """An encoded ``google.protobuf.Any`` of it."""
        return self._framed if isinstance(self._framed, bytes) else b"".join(self._framed)

    @property
    def data(self) -> bytes:
        """The encoded message, unwrapped."""
        if not isinstance(self._framed, bytes):
            return b"".join(self._framed[1:])
        head = field(1, self.type_url.encode())
        size = self.size_bytes - len(head) - 1
        while len(head) + 1 + len(varint(size)) + size != self.size_bytes:
            size -= 1
        return self._framed[-size:] if size else b""

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
