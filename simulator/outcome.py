"""
What the simulator answers: each thing taken on the way, why the others lost, and what happens.

Values only; the choices themselves are told in `pilothouse.simulator.choice`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from pilothouse.simulator.actions import DirectResponse, HttpForward, Redirect, TcpForward
from pilothouse.simulator.choice import Loss, Taken
from pilothouse.simulator.faults import Fault


class ReplyReason(StrEnum):
    """Why Envoy answers a request itself though no route says so."""

    BAD_REQUEST = "the request is malformed"
    UPGRADE_REQUIRED = "HTTP/1.0 is not accepted"
    UPGRADE_REFUSED = "the protocol upgrade is not allowed"
    NO_VIRTUAL_HOST = "no virtual host is for this host"
    NO_ROUTE = "no route matches"
    TLS_REQUIRED = "the virtual host wants TLS"
    CLUSTER_NOT_FOUND = "the cluster does not exist"
    PREFLIGHT = "a CORS preflight is answered by the proxy"
    FAULT = "a fault aborts the request"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply:
    """Envoy answers itself; `cluster` is the one that does not exist."""

    status: int
    reason: ReplyReason
    text: str
    location: str = ""
    cluster: str = ""


class CloseReason(StrEnum):
    """Why a connection is not served."""

    NO_LISTENER = "no listener"
    NO_FILTER_CHAIN = "no filter chain"
    NOT_HTTP = "not HTTP"
    NOT_TLS = "not TLS"
    CLUSTER_NOT_FOUND = "the cluster does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The connection ends without an answer to the request."""

    reason: CloseReason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSimulated:
    """The config uses something whose effect cannot be told here."""

    text: str


Action: TypeAlias = (
    HttpForward | TcpForward | Redirect | DirectResponse | LocalReply | Closed | NotSimulated
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    The way of a request through one proxy.

    What was not reached is None. `losses` are in the order in which they were decided. `fault` is
    what may happen to the request before `action`. `notes` say what the answer leaves out.
    """

    action: Action
    listener: Taken | None = None
    filter_chain: Taken | None = None
    route_configuration: str = ""
    virtual_host: Taken | None = None
    route: Taken | None = None
    fault: Fault | None = None
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> int | None:
        """The HTTP status if the proxy itself gives the answer; None if an upstream does."""
        match self.action:
            case Redirect() | DirectResponse() | LocalReply():
                return self.action.status
            case HttpForward() if not self.action.chosen.reach.is_reachable:
                return 503
            case _:
                return None

    @property
    def clusters(self) -> tuple[str, ...]:
        """Every cluster that may get the request."""
        match self.action:
            case HttpForward() | TcpForward():
                return tuple(share.cluster for share in self.action.shares)
            case _:
                return ()
