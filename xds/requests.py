"""
What a client asks, as values: the input of the session.

Parsing bytes into these is the business of `pilothouse.xds.wire`. Nothing here knows protobuf,
sockets or clocks.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from pilothouse.errors import ProtocolError


class Variant(StrEnum):
    """The two dialects of xDS."""

    SOTW = "sotw"
    DELTA = "delta"


class SotwRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A DiscoveryRequest; `error` is None unless it is a NACK."""

    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    version: str = ""
    error: str | None = None


class DeltaRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A DeltaDiscoveryRequest; `initial_versions` counts only in the first request of a type."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    nonce: str = ""
    error: str | None = None
    initial_versions: Mapping[str, str] = {}


Request = SotwRequest | DeltaRequest


class InvalidRequest(ProtocolError):
    """A discovery request that cannot be served; ends the stream with INVALID_ARGUMENT."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence for the client."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Say what is wrong."""
        return self.problem
