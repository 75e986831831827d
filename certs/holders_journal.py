"""
The ledger of holders on disk, so that a rotation survives its server.

A journal: each line is what one holder has since then, or that it is forgotten. Lines are written
before anything is handed out and need no flush to survive a kill; a line cut short by a crash of
the machine is skipped. It is written anew, shorter, when most of its lines are old.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from pilothouse.certs.holders import Holders, Holding
from pilothouse.certs.private_files import write_private

JOURNAL_FILE: Final = "holders.journal"
_SPARE_LINES: Final = 1_000

log = structlog.get_logger()


class _Line(msgspec.Struct, frozen=True, array_like=True):
    """A line; without `until` the holder is forgotten."""

    key: str
    trusts: tuple[str, ...] | None = None
    uses: tuple[str, ...] | None = None
    until: datetime | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


class HoldersJournal:
    """A ledger that is kept in a directory, or in memory only if there is none."""

    def __init__(self, directory: Path | None) -> None:
        """Read what is kept. Raises: OSError."""
        self._path = directory / JOURNAL_FILE if directory is not None else None
        self._file = -1
        self._lines = 0
        self._is_failing = False
        self.holders = Holders(_read(self._path) if self._path is not None else None)
        self._rewrite()

    def note(self, key: str, holding: Holding) -> None:
        """Note what a holder has now."""
        if self.holders.note(key, holding):
            self._append(_line(key, holding))

    def may_use(self, key: str, root: str, until: datetime) -> None:
        """Note that a holder is about to be given a certificate of a root, beside what it has."""
        before = self.holders.get(key)
        if before is None:
            self.note(key, Holding(until=until))
            return
        uses = None if before.uses is None else before.uses | {root}
        until = max(until, before.until)
        self.note(key, Holding(trusts=before.trusts, uses=uses, until=until))

    def forget(self, key: str) -> None:
        """Forget a holder."""
        if self.holders.forget(key):
            self._append(_Line(key))

    def drop_ended(self, now: datetime) -> None:
        """Forget holders whose certificates have ended; their lines go when it is next shorter."""
        self.holders.drop_ended(now)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, line: _Line) -> None:
        if self._path is None:
            return
        try:
            if self._lines > 2 * len(self.holders) + _SPARE_LINES:
                self._rewrite()
                return
            os.write(self._file, _encoder.encode(line) + b"\n")
            self._lines += 1
            self._is_failing = False
        except OSError as failure:
            if not self._is_failing:
                log.error("rotation.journal_not_written", problem=failure.strerror)  # noqa: TRY400
            self._is_failing = True

    def _rewrite(self) -> None:
        if self._path is None:
            return
        self.close()
        lines = [_encoder.encode(_line(key, holding)) + b"\n" for key, holding in self.holders]
        write_private(self._path, b"".join(lines))
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(lines)


def _line(key: str, holding: Holding) -> _Line:
    return _Line(
        key,
        tuple(sorted(holding.trusts)) if holding.trusts is not None else None,
        tuple(sorted(holding.uses)) if holding.uses is not None else None,
        holding.until,
    )


def _read(path: Path) -> dict[str, Holding]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    found: dict[str, Holding] = {}
    for raw in text.splitlines():
        try:
            line = _decoder.decode(raw)
        except msgspec.DecodeError:
            log.warning("rotation.journal_line_skipped")
            continue
        if line.until is None:
            found.pop(line.key, None)
        else:
            found[line.key] = Holding(
                trusts=frozenset(line.trusts) if line.trusts is not None else None,
                uses=frozenset(line.uses) if line.uses is not None else None,
                until=line.until,
            )
    return found
