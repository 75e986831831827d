"""
Who is registered, on disk, so that a server that starts anew has its endpoints at once.

Workloads come back by themselves, but not before those who call them: without this, callers would
be told for seconds that nobody is there. What is lost or damaged is only that time. Holds no
secrets; it is private all the same, as what it says is believed.
"""

from pathlib import Path
from typing import Final

import msgspec
import structlog

from pilothouse.certs.private_files import write_private
from pilothouse.model.registration_book import Remembered

FILE_NAME: Final = "registrations.json"
MAX_BYTES: Final = 256 * 1024 * 1024

_decoder = msgspec.json.Decoder(tuple[Remembered, ...])
_encoder = msgspec.json.Encoder()

log = structlog.get_logger()


class RegistrationsFile:
    """The file in a directory of the server's own; without one nothing is remembered."""

    def __init__(self, directory: Path | None) -> None:
        """Nothing is read yet."""
        self._path = directory / FILE_NAME if directory is not None else None
        self._is_failing = False

    def read(self) -> tuple[Remembered, ...]:
        """Return what was written last, nothing if it cannot be read."""
        if self._path is None:
            return ()
        try:
            if self._path.stat().st_size > MAX_BYTES:
                log.warning("registrations.not_read", problem="the file is too large")
                return ()
            return _decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError) as problem:
            log.warning("registrations.not_read", problem=str(problem)[:200])
            return ()

    def write(self, workloads: tuple[Remembered, ...]) -> bool:
        """Replace the file; tell whether that went well."""
        if self._path is None:
            return True
        try:
            write_private(self._path, _encoder.encode(workloads))
        except OSError as failure:
            if not self._is_failing:
                log.error("registrations.not_written", problem=failure.strerror)  # noqa: TRY400
            self._is_failing = True
            return False
        self._is_failing = False
        return True
