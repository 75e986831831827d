"""
Which files of some folders changed, told by the kernel at once.

Linux only, through the C library: the packages for it look at their queue every few milliseconds,
which costs either time or a busy thread, and a changed endpoint should wait for neither. It may
miss changes (links to elsewhere, network file systems, a full queue), so whoever uses it looks by
himself now and then. Reads no file and knows no config.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterable
from typing import Final, Self

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_Q_OVERFLOW, _IGNORED, _IS_DIR = 0x4000, 0x8000, 0x4000_0000
_ONLY_DIR: Final = 0x0100_0000
_INTEREST: Final = (
    _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
)
_STRUCTURE: Final = _Q_OVERFLOW | _IGNORED | _IS_DIR | _DELETE_SELF | _MOVE_SELF
_HEAD: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER_BYTES: Final = 64 * 1024


class Inotify:
    """
    A kernel queue of changes in folders; use it as a context manager, on one event loop.

    Raises OSError from the constructor where the kernel or the C library has none to give.
    """

    def __init__(self) -> None:
        """Open the queue; nothing is followed yet."""
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._add_watch = libc.inotify_add_watch
            self._queue: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError as error:
            raise OSError("this system has no inotify") from error
        if self._queue < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._folders: dict[int, dict[str, None]] = {}
        self._changed: set[str] = set()
        self._is_restructured = False
        self._arrived = asyncio.Event()

    def __enter__(self) -> Self:
        """Listen to the queue."""
        asyncio.get_running_loop().add_reader(self._queue, self._read)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the queue."""
        asyncio.get_running_loop().remove_reader(self._queue)
        os.close(self._queue)

    def follow(self, folders: Iterable[str]) -> bool:
        """
        Follow these folders too, those inside not included; tell whether any is new.

        One that is gone, or too many for the kernel, is left out.
        """
        is_new = False
        for folder in folders:
            watch = self._add_watch(self._queue, os.fsencode(folder), _INTEREST | _ONLY_DIR)
            if watch >= 0:
                paths = self._folders.setdefault(watch, {})
                is_new = is_new or folder not in paths
                paths[folder] = None
        return is_new

    async def changed(self) -> frozenset[str] | None:
        """
        Wait for changes; return the paths of changed files.

        None means that folders changed: look everywhere. A file counts as changed once it is whole,
        that is when its writer closes it or renames it into place.
        """
        await self._arrived.wait()
        return self.taken()

    def taken(self) -> frozenset[str] | None:
        """Return what `changed` would, without waiting: empty if nothing has changed since."""
        self._read()
        changed, self._changed = frozenset(self._changed), set()
        is_restructured, self._is_restructured = self._is_restructured, False
        self._arrived.clear()
        return None if is_restructured else changed

    def _read(self) -> None:
        try:
            data = os.read(self._queue, _BUFFER_BYTES)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, position)
            start = position + _HEAD.size
            position = start + length
            self._note(watch, mask, os.fsdecode(data[start:position].rstrip(b"\0")))

    def _note(self, watch: int, mask: int, name: str) -> None:
        if mask & _IGNORED:
            self._folders.pop(watch, None)
        if mask & _STRUCTURE:
            self._is_restructured = True
            self._arrived.set()
            return
        for folder in self._folders.get(watch, ()):
            path = f"{folder}/{name}"
            if mask & _CREATE and not _is_link(path):
                continue  # still empty; its writer will close it
            self._changed.add(path)
            self._arrived.set()


def _is_link(path: str) -> bool:
    """Tell whether a new name is a link, soft or hard, and so whole from the beginning."""
    try:
        return os.path.islink(path) or os.stat(path).st_nlink > 1
    except OSError:
        return True
