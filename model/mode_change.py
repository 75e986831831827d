"""
A change of mutual TLS under way: what held before, and how far it has come.

Servers and clients cannot change in the same instant, so a change between plain text and mutual
TLS goes in steps: servers take both, clients change over, servers take only what is new. The rows
are put by the runtime, which waits between the steps (ADR 21).
"""

from enum import StrEnum

import msgspec

from pilothouse.api.peer_authentication import PeerAuthentication


class Step(StrEnum):
    """Whom a change has reached: servers take both; then clients have changed over too."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    SERVERS = "servers"
    CLIENTS = "clients"


class ModeChange(msgspec.Struct, frozen=True):
    """There is a change under way; the row is gone when it is through."""

    step: Step


class FormerPolicy(msgspec.Struct, frozen=True):
    """What a PeerAuthentication said before the change under way; None: there was none."""

    policy: PeerAuthentication | None
