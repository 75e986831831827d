"""
What is done with a request or connection that found its way, as values.

Durations are `timedelta`; shares and percentages run from 0 to 1.
"""

from dataclasses import dataclass
from datetime import timedelta

from pilothouse.simulator.clusters import Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderAddition:
    """One header set or added; `action` is Envoy's name of the rule, lower case."""

    name: str
    value: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderOperations:
    """Header changes in the order in which they are made (the most specific level first)."""

    request_add: tuple[HeaderAddition, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[HeaderAddition, ...] = ()
    response_remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShare:
    """
    A cluster that may get the request: its `weight` among all, and that as a `share`.

    `host` is what it sees as authority, None where the endpoint's own name is put there.
    """

    cluster: str
    weight: int
    share: float
    reach: Reach
    host: str | None = None
    headers: HeaderOperations = HeaderOperations()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When and how often a request is tried again; `retry_on` as Envoy names conditions."""

    retry_on: tuple[str, ...]
    count: int
    per_try_timeout: timedelta | None
    statuses: tuple[int, ...]
    base_interval: timedelta
    max_interval: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A cluster that gets a copy of a share of the requests."""

    cluster: str
    share: float
    reach: Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class HashPolicy:
    """What of a request decides its endpoint; `kind` as Envoy names it, `name` of the header..."""

    kind: str
    name: str
    is_terminal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpForward:
    """
    A request goes to a cluster: `chosen` at the request's random value, one of `shares`.

    `path` is as the upstream sees it. `timeout` None is no limit.
    """

    shares: tuple[ClusterShare, ...]
    chosen: ClusterShare
    path: str
    timeout: timedelta | None
    retries: Retries | None = None
    mirrors: tuple[Mirror, ...] = ()
    hash_policies: tuple[HashPolicy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpForward:
    """A connection goes to a cluster: `chosen` at the request's random value."""

    shares: tuple[ClusterShare, ...]
    chosen: ClusterShare


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """The client is sent elsewhere."""

    status: int
    location: str
    headers: HeaderOperations = HeaderOperations()


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectResponse:
    """The route itself is the answer; `body` is None where it is a file's."""

    status: int
    body: bytes | None
    headers: HeaderOperations = HeaderOperations()


def at_random_value(shares: tuple[ClusterShare, ...], random_value: int) -> ClusterShare:
    """Return the share that a random value falls into; `shares` is not empty."""
    point = random_value % sum(each.weight for each in shares)
    for each in shares[:-1]:
        point -= each.weight
        if point < 0:
            return each
    return shares[-1]
