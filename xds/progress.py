"""How far a client has followed a type, as values for people and metrics."""

from dataclasses import dataclass

import msgspec


@dataclass(slots=True)
class Progress:
    """What was sent and answered last; times are seconds of the session's clock, 0 never."""

    sent_nonce: str = ""
    sent_at: float = 0.0
    acked_nonce: str = ""
    acked_at: float = 0.0
    error: str = ""
    error_nonce: str = ""
    error_at: float = 0.0


class Acked(msgspec.Struct, frozen=True, kw_only=True):
    """
    A message was accepted.

    `round_trip_seconds` is from send to ACK; `convergence_seconds` from the commit of the oldest
    change in it to the ACK, None for answers to requests.
    """

    type_url: str
    nonce: str
    round_trip_seconds: float
    convergence_seconds: float | None
