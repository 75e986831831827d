"""
How the operator and the server talk about rotation: two files in the directory of roots.

    rotation.request   what ``pilothouse ca rotate`` asks for; the server takes it away
    rotation.status    how far it is, for ``pilothouse ca status``

No network endpoint: whoever may write to that directory holds the keys anyway.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.private_files import write_private
from pilothouse.certs.root_store import RootStore
from pilothouse.certs.rotation import Cancelled, Hastened, Phase, RotationRefused

REQUEST_FILE: Final = "rotation.request"
STATUS_FILE: Final = "rotation.status"


class Action(StrEnum):
    """What the operator may ask for."""

    ROTATE = "rotate"
    GO_ON = "go-on"
    CANCEL = "cancel"


class RotationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request, made in view of a phase: it is refused in any other, so it counts once.

    `algorithm` is of the new root's key, None as configured.
    """

    action: Action
    phase: Phase
    algorithm: KeyAlgorithm | None = None


class RotationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the server knows: the phase, and for how many holders it waits.

    `waiting` counts connected proxies that lack what this step brings, `absent` those that are
    away and may still use what they had, until `absent_until` at the latest. `refused` says why
    the last request was not taken, "" if it was. `behind` names some of those that it waits for,
    the absent ones first. `has_authority` is false if the last server here has none of its own.
    """

    phase: Phase
    at: datetime
    waiting: int = 0
    absent: int = 0
    absent_until: datetime | None = None
    holders: int = 0
    refused: str = ""
    behind: tuple[str, ...] = ()
    has_authority: bool = True


def write_request(directory: Path, request: RotationRequest) -> None:
    """Leave a request for the server. Raises: OSError."""
    write_private(directory / REQUEST_FILE, msgspec.json.encode(request) + b"\n")


def take(
    store: RootStore,
    request: RotationRequest,
    trust_domain: str,
    algorithm: KeyAlgorithm,
    now: datetime,
) -> None:
    """
    Do what a request asks for; a new root is of `algorithm` unless the request names one.

    Raises: RotationRefused: It was made in another phase, or cannot be done in this one. OSError.
    """
    phase = store.rotation.phase
    if request.phase is not phase:
        raise RotationRefused(phase, f"the request was made in the phase {request.phase.value}.")
    match request.action:
        case Action.ROTATE:
            store.request(trust_domain, now, request.algorithm or algorithm)
        case Action.GO_ON:
            store.advance(Hastened(), now)
        case Action.CANCEL:
            store.advance(Cancelled(), now)


def request_waits(directory: Path) -> bool:
    """Whether a request was not taken yet."""
    return (directory / REQUEST_FILE).exists()


def read_request(directory: Path) -> RotationRequest | None:
    """Return the request that waits, None if there is none. Raises: msgspec.DecodeError."""
    try:
        text = (directory / REQUEST_FILE).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(text, type=RotationRequest)


def remove_request(directory: Path) -> None:
    """Take the request away: it has been acted upon."""
    (directory / REQUEST_FILE).unlink(missing_ok=True)


def write_status(directory: Path, status: RotationStatus) -> None:
    """Tell how far it is. Raises: OSError."""
    write_private(directory / STATUS_FILE, msgspec.json.encode(status) + b"\n")


def remove_status(directory: Path) -> None:
    """Forget what an earlier server told. Raises: OSError."""
    (directory / STATUS_FILE).unlink(missing_ok=True)


def read_status(directory: Path) -> RotationStatus | None:
    """Return what the server told last, None if it has not or cannot be read."""
    try:
        return msgspec.json.decode((directory / STATUS_FILE).read_bytes(), type=RotationStatus)
    except (OSError, msgspec.DecodeError):
        return None
