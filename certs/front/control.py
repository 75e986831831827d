"""
What the main process and the front tell each other, over a socket pair that only they have.

Frames are a four-byte length and JSON. Private keys cross it: no message with one has a repr of
its content, and nothing here logs.
"""

import asyncio
import resource
from typing import Final

import msgspec

_LENGTH_BYTES: Final = 4
DESCRIPTORS_PER_CONNECTION: Final = 2
SPARE_DESCRIPTORS: Final = 64
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""A trust bundle with a large revocation list fits."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """
    Bounds on what strangers may cost.

    Half-open connections are those whose handshake has not ended or who were not admitted yet.
    A connection younger than `grace_seconds` is not dropped for a newer one, which is refused
    then: a storm of honest clients must not starve itself.
    """

    handshake_seconds: float = 10.0
    half_open: int = 2_048
    half_open_by_address: int = 1_024
    grace_seconds: float = 1.0
    connections: int = 20_000
    buffer_bytes: int = 256 * 1024

    def most_connections(self, descriptors: int) -> int:
        """Return how many connections there may be with so many open files."""
        own = (descriptors - SPARE_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION
        return min(self.connections, max(own, 1))

    def most_strangers(self) -> int:
        """Return how many of them may be of callers that have not said yet who they are."""
        _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)  # the front takes them all
        return max(self.most_connections(descriptors) // 2, 1)


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the front serves with; all PEM.

    `ciphers`, `curve` and `is_tls12_only` are as in `ciphers.PortTls`.

    `crl_pem` empty means that no revocation list is asked for; otherwise each authority in a
    client's chain must have a current one, as in Envoy.
    """

    certificate_pem: str
    key_pem: str
    roots_pem: str
    crl_pem: str = ""
    ciphers: str = ""
    curve: str = ""
    is_tls12_only: bool = False

    def __repr__(self) -> str:
        """Show nothing."""
        return "Material()"


class Configure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: serve new handshakes with this."""

    material: Material
    limits: Limits

    def __repr__(self) -> str:
        """Show nothing."""
        return "Configure()"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: let a connection in, or close it."""

    name: str
    is_admitted: bool


class Close(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: close a connection that was let in."""

    name: str


class WantsCertificates(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: whether a connection is there for certificates only, as far as is known."""

    name: str
    is_all: bool


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: pass nothing on from such connections and take no new ones, or do so again."""

    is_on: bool


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To the front: the end of the socket pair that follows is meant."""


class Configured(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From the front: the material is in use, or why it is not ("" it is)."""

    problem: str = ""


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """
    From the front: a handshake is done. `certificate` is the verified leaf, DER; b"" none.

    `root` is the SHA-256 of the root that it was verified by, in hex; "" if that is not known.
    """

    name: str
    address: str
    certificate: bytes = b""
    root: str = ""


class Closed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """From the front: a connection that was opened is no more."""

    name: str


class Turned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """
    From the front, once a second at most: connections that came to nothing since the last.

    `counts` are by `Turn`; `address` and `detail` are of one of them, an example for the log.
    """

    counts: dict[str, int]
    address: str
    detail: str


ToFront = Configure | Verdict | Close | WantsCertificates | Hold | Leave
FromFront = Configured | Opened | Closed | Turned


def encode(message: ToFront | FromFront) -> bytes:
    """Return a frame."""
    data = msgspec.json.encode(message)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """
    Return the content of the next frame, None at the end.

    Raises: ValueError: The frame is too large.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
