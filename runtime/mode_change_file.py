"""
What a server must know of a change of modes that an earlier one had begun, on disk.

Which PeerAuthentications all proxies live by, and which ones they are on their way to. Config says
where the mesh is to go, never where it is: a server that starts anew needs both. Written before
what it tells of is handed out, so a kill leaves at worst a step that is taken again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from pilothouse.api.meta import ObjectKey
from pilothouse.api.peer_authentication import PeerAuthentication
from pilothouse.certs.private_files import write_private
from pilothouse.model.mode_change import Step

STATE_FILE: Final = "modes.json"

Policies = Mapping[ObjectKey, PeerAuthentication]

log = structlog.get_logger()


class ChangeUnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """Where a change goes, whom it has reached, and how many proxies there are (None: unknown)."""

    target: tuple[PeerAuthentication, ...]
    step: Step
    proxies: int | None


class KnownModes(msgspec.Struct, frozen=True, kw_only=True):
    """What the policies said when all proxies last lived by them, and the change since then."""

    settled: tuple[PeerAuthentication, ...] = ()
    change: ChangeUnderWay | None = None


def by_key(policies: tuple[PeerAuthentication, ...]) -> dict[ObjectKey, PeerAuthentication]:
    """Return policies by their keys."""
    return {each.meta.key: each for each in policies}


class ModeChangeFile:
    """The file in a directory; without a directory nothing is kept. Blocking, small."""

    def __init__(self, directory: Path | None) -> None:
        """Keep it in `directory`, which is there and private when something is written."""
        self._path = directory / STATE_FILE if directory is not None else None

    def read(self) -> KnownModes | None:
        """Return what an earlier server knew, None if there was none or it cannot be read."""
        if self._path is None:
            return None
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=KnownModes)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as failure:
            log.warning(
                "mutual_tls.modes_unknown",
                problem=str(failure),
                remedy="Modes take effect at once, as if there were no proxies yet.",
            )
            return None

    def write(self, known: KnownModes) -> None:
        """Replace the file. A failure is logged: a change goes on as it would without a file."""
        if self._path is None:
            return
        try:
            write_private(self._path, msgspec.json.encode(known))
        except OSError as failure:
            log.error("mutual_tls.modes_not_kept", problem=str(failure))  # noqa: TRY400
