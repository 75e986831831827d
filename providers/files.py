"""
The file store: a directory of config, read once and then watched.

The shell around `DirectoryState`: it walks, reads and watches, and knows nothing of the content.
Reads only what changed; survives a directory that vanishes and comes back.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import watchfiles

from pilothouse.api.meta import ObjectKey
from pilothouse.errors import SourceError
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.providers.directory_state import (
    ROOT_NAMESPACE,
    Change,
    DirectoryState,
    ObjectId,
)
from pilothouse.providers.documents import chunks_of, digest_of, object_line
from pilothouse.providers.yaml_loader import MAX_BYTES, YamlError

SUFFIXES: Final = (".yaml", ".yml", ".json")
_BACKUPS: Final = ("~", ".swp", ".swx", ".bak", ".orig", ".tmp")
_STEP_MS: Final = 20
_DEBOUNCE_MS: Final = 50
_TICK_MS: Final = 200
_TICKS_PER_LOOK: Final = 5
_IDLE_LOOK_SECONDS: Final = 0.5

Stamp = tuple[int, int, int, int]
"""What tells that a file changed: device, inode, size, modification time in ns."""

_UNKNOWN: Final[Stamp] = (0, 0, -1, 0)


class FileStore:
    """
    A directory of config files, and optionally a mesh config file beside it.

    Raises SourceError from `scan` if the directory or the mesh config file is not there.
    """

    def __init__(
        self, root: Path, *, mesh_config: Path | None = None, root_namespace: str = ROOT_NAMESPACE
    ) -> None:
        """Read nothing yet."""
        self._root = root
        self._mesh_config = mesh_config
        self._state = DirectoryState(root_namespace)
        self._stamps: dict[str, Stamp] = {}
        self._mesh_stamp: Stamp | None = None
        self._is_gone = False

    def scan(self) -> list[Change]:
        """Read everything once; return every object."""
        if not self._root.is_dir():
            raise SourceError(f"The config directory {self._root} does not exist.")
        if self._mesh_config is not None and not self._mesh_config.is_file():
            raise SourceError(f"The mesh config file {self._mesh_config} does not exist.")
        changes = self.refresh()
        self._state.forget_lines()
        return changes

    def refresh(self) -> list[Change]:
        """Compare the directory with what was read, read what differs, return what changed."""
        changes = self._refresh_mesh_config()
        self._is_gone = not self._root.is_dir()
        if self._is_gone:
            return changes  # a folder that is away for a moment must not take the mesh with it
        present = dict(_walk(self._root))
        for name in sorted(self._stamps.keys() - present.keys()):
            del self._stamps[name]
            changes.extend(self._state.update(name, None))
        for name, (path, stamp) in sorted(present.items()):
            if self._stamps.get(name) != stamp:
                self._stamps[name] = stamp
                changes.extend(self._read(name, path))
        return _last_of_each(changes)

    async def watch(self, on_change: Callable[[list[Change]], None]) -> None:
        """
        Call `on_change` with each batch of changes; runs until cancelled.

        The batch is empty if only findings changed. Besides the system's notices it looks by
        itself once a second: for links to other places, and for what happened while no watcher
        ran.
        """
        while True:
            while not self._root.is_dir():
                self._look(on_change)
                await asyncio.sleep(_IDLE_LOOK_SECONDS)
            root = _identity(self._root)
            try:
                await self._watch_one(root, on_change)
            except FileNotFoundError:
                continue  # it vanished again before the watcher ran

    async def _watch_one(
        self, root: tuple[int, int] | None, on_change: Callable[[list[Change]], None]
    ) -> None:
        watched = {self._root}
        if self._mesh_config is not None:
            watched.add(self._mesh_config.absolute().parent)
        ticks = 0
        async for events in watchfiles.awatch(
            *watched,
            watch_filter=None,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
        ):
            if events:
                self._distrust(path for _, path in events)
            # The first tick looks too: a change just before the watcher ran has no event.
            if events or ticks % _TICKS_PER_LOOK == 0:
                self._look(on_change)
            ticks += 1
            if _identity(self._root) != root:
                return

    def _look(self, on_change: Callable[[list[Change]], None]) -> None:
        before = self.findings()
        changes = self.refresh()
        self._state.forget_lines()
        if changes or self.findings() != before:
            on_change(changes)

    def _distrust(self, changed: Iterable[str]) -> None:
        """Read these again even if size and time are the same: clocks of files are coarse."""
        for path in changed:
            name = os.path.relpath(path, self._root)
            if name in self._stamps:
                self._stamps[name] = _UNKNOWN
            if self._mesh_config is not None and Path(path) == self._mesh_config.absolute():
                self._mesh_stamp = None

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of all files, with file and line."""
        found = self._state.findings()
        if self._is_gone:
            ref = ConfigRef("", "", "", file=str(self._root))
            message = "The config directory is gone; what was read from it stays in use."
            return (Finding(Severity.ERROR, "DirectoryGone", ref, message, "Restore it."), *found)
        return found

    def locate(self, ref: ConfigRef) -> ConfigRef:
        """Return the reference with file and line filled in, as far as they can be found."""
        found = self._state.place(ObjectId(ref.kind, ObjectKey(ref.namespace, ref.name)))
        if found is None:
            return ref
        name, place = found
        line = place.line
        try:
            content = (self._root / name).read_bytes()
            for chunk in chunks_of(name, content):
                if digest_of(chunk) == place.digest:
                    line = object_line(chunk, place.path, ref.path)
                    break
        except (OSError, YamlError):
            pass  # the file changed meanwhile; its first line is still the best answer
        return replace(ref, file=name, line=line)

    def _refresh_mesh_config(self) -> list[Change]:
        path = self._mesh_config
        if path is None:
            return []
        stamp = _stamp(path)
        if stamp is None or stamp == self._mesh_stamp:
            return []  # a file that is away for a moment keeps its last good version
        self._mesh_stamp = stamp
        try:
            return self._state.update_mesh_file(str(path), path.read_bytes())
        except OSError:
            return []

    def _read(self, name: str, path: Path) -> list[Change]:
        if self._stamps[name][2] > MAX_BYTES:
            return self._state.fail(name, f"it is larger than {MAX_BYTES // 2**20} MiB")
        try:
            return self._state.update(name, path.read_bytes())
        except FileNotFoundError:
            del self._stamps[name]
            return self._state.update(name, None)
        except OSError as error:
            return self._state.fail(name, error.strerror or "unknown reason")


def _last_of_each(changes: Iterable[Change]) -> list[Change]:
    """Leave one change per object: the last, in the order of first appearance."""
    last = {(each.kind, each.key): each for each in changes}
    return list(last.values())


def is_config_file(name: str) -> bool:
    """Tell whether a file name is that of config, and not hidden or an editor's backup."""
    return (
        name.endswith(SUFFIXES) and not name.startswith((".", "#")) and not name.endswith(_BACKUPS)
    )


def _walk(root: Path) -> Iterator[tuple[str, tuple[Path, Stamp]]]:
    """Yield (path below the root, (path, stamp)) of each config file; links are followed once."""
    seen: set[tuple[int, int]] = set()
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link back to where we have been
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue  # it vanished, or is not ours to read
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    folders.append((f"{prefix}{entry.name}/", Path(entry.path)))
                elif is_config_file(entry.name):
                    stamp = _stamp(Path(entry.path))
                    if stamp is not None:
                        yield prefix + entry.name, (Path(entry.path), stamp)
            except OSError:
                continue


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
