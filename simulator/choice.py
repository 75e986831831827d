"""
How a choice among candidates is told: what was taken, what lost, and why.

Values only, made for programs (`Reason`, names, objects) and people (`text`) alike.
"""

from dataclasses import dataclass
from enum import StrEnum

from pilothouse.graph.findings import ConfigRef


class Step(StrEnum):
    """Where on its way something was chosen among candidates."""

    LISTENER = "listener"
    FILTER_CHAIN = "filter chain"
    VIRTUAL_HOST = "virtual host"
    ROUTE = "route"


class Reason(StrEnum):
    """Why a candidate was not taken."""

    ADDRESS = "address"
    PORT = "port"
    NOT_BOUND = "not bound"
    HANDED_OFF = "handed off"
    CAPTURED = "captured by another"
    SERVER_NAME = "server name"
    TRANSPORT = "transport protocol"
    APPLICATION_PROTOCOL = "application protocol"
    SOURCE = "source"
    FALLBACK = "fallback"
    DUPLICATE = "duplicate"
    DOMAIN = "domain"
    LESS_SPECIFIC = "less specific"
    PATH = "path"
    HEADER = "header"
    QUERY = "query parameter"
    COOKIE = "cookie"
    GRPC = "grpc"
    CHANCE = "chance"
    TLS_CONTEXT = "tls context"
    METADATA = "metadata"
    EARLIER = "an earlier one took it"
    NOT_SIMULATED = "not simulated"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One condition that a candidate failed, in a sentence."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A candidate that was not taken; `index` is its place, `mismatches` is never empty."""

    step: Step
    candidate: str
    index: int
    mismatches: tuple[Mismatch, ...]
    made_by: tuple[ConfigRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """
    A candidate that was taken; `index` is its place in its list, -1 for a default.

    `made_by` are the objects behind it, the most specific as served.
    """

    name: str
    index: int
    why: str
    made_by: tuple[ConfigRef, ...] = ()
