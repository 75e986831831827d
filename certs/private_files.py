"""
Files that nobody else may read, written so that they are there whole or not at all.

Every write survives being killed at any moment: content goes to a new file of mode 0600, is
flushed to the disk, and takes the name in one step.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from pilothouse.errors import SourceError

_OTHERS: Final = 0o077


class NotPrivate(SourceError):
    """Other users may read a directory that holds keys; `problem` says why and what to do."""

    def __init__(self, directory: Path, problem: str) -> None:
        """Keep the directory."""
        super().__init__(directory, problem)
        self.directory = directory
        self.problem = problem

    def __str__(self) -> str:
        """Say what to do."""
        return f"{self.directory} holds keys, but {self.problem}"


def make_private_directory(directory: Path) -> None:
    """
    Make a directory of mode 0700 if there is none.

    Raises: NotPrivate: It is there and open to others, or theirs. OSError: It cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_mode & _OTHERS:
        raise NotPrivate(directory, "other users may read it; run chmod 700 on it.")
    if found.st_uid != os.geteuid():
        # Only root gets here; somebody else made it, perhaps where everybody may.
        raise NotPrivate(
            directory, f"it belongs to user {found.st_uid}; run chown on it, or run as that user."
        )


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all. Raises: OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync_directory(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Make names in a directory survive a crash of the machine."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
