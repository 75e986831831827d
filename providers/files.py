"""
The file store: a directory of config, read once and then watched.

The shell around `DirectoryState`: it walks, reads and watches, and knows nothing of the content.
Reads only what changed; survives a directory that vanishes and comes back.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from pilothouse.api.kinds import MESH_CONFIG, MESH_NETWORKS
from pilothouse.api.meta import ObjectKey
from pilothouse.errors import SourceError
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.providers.directory_state import (
    DEFAULT_REVISION,
    ROOT_NAMESPACE,
    Change,
    DirectoryState,
    ObjectId,
    located_in,
)
from pilothouse.providers.inotify import Inotify
from pilothouse.providers.walk import (
    UNKNOWN,
    Stamp,
    Tree,
    content_of,
    identity,
    is_config_file,
    stamp_of,
    walk,
)
from pilothouse.providers.yaml_loader import MAX_BYTES, YamlError

LOOK_EVERY_SECONDS: Final = 1.0
LOOK_COST_SHARE: Final = 0.01
"""Looking at the whole tree without a reason takes this part of the time at most."""

MAX_TOGETHER: Final = 1_000
"""So many changed files at most are taken as written together."""

REPLACEMENT_SECONDS: Final = 0.05
"""How long a removal waits for a replacement: tools move the old away and then the new in."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Told:
    """What notices said: changed files, None if folders changed; and what was made of it."""

    paths: frozenset[str] | None
    is_missing: bool = False
    is_more_than_files: bool = False


class FileStore:
    """
    A directory of config files, and optionally files of mesh config and networks beside it.

    Raises SourceError from `scan` if the directory or the mesh config file is not there. That of
    another `cluster` may be away at first: the mesh is served without it.
    """

    def __init__(
        self,
        root: Path,
        *,
        mesh_config: Path | None = None,
        mesh_networks: Path | None = None,
        root_namespace: str = ROOT_NAMESPACE,
        revision: str = DEFAULT_REVISION,
        cluster: str = "",
    ) -> None:
        """Read nothing yet."""
        self._root = root
        self._cluster = cluster
        files = {MESH_CONFIG: mesh_config, MESH_NETWORKS: mesh_networks}
        self._mesh_files = {kind: file for kind, file in files.items() if file is not None}
        self._state = DirectoryState(root_namespace, revision)
        self._stamps: dict[str, Stamp] = {}
        self._mesh_stamps: dict[str, Stamp] = {}
        self._is_gone = False

    def scan(self) -> list[Change]:
        """Read everything once; return every object."""
        if not self._root.is_dir() and not self._cluster:
            raise SourceError(f"The config directory {self._root} does not exist.")
        for file in self._mesh_files.values():
            if not file.is_file():
                raise SourceError(f"The mesh config file {file} does not exist.")
        changes = self.refresh()
        self._state.forget_lines()
        return changes

    def refresh(self, tree: Tree | None = None) -> list[Change]:
        """
        Compare the directory with what was read, read what differs, return what changed.

        `tree` is what was just found there, if somebody looked already.
        """
        changes = self._refresh_mesh_files()
        self._is_gone = not self._root.is_dir()
        if self._is_gone:
            return changes  # a folder that is away for a moment must not take the mesh with it
        present = (tree or walk(str(self._root))).files
        if present == self._stamps:
            return changes
        for name in sorted(self._stamps.keys() - present.keys()):
            del self._stamps[name]
            changes.extend(self._state.update(name, None))
        for name, stamp in sorted(present.items()):
            if self._stamps.get(name) != stamp:
                self._stamps[name] = stamp
                changes.extend(self._read(name))
        return _last_of_each(changes)

    async def watch(self, on_change: Callable[[list[Change]], None]) -> None:
        """
        Call `on_change` with each batch of changes; runs until cancelled.

        The batch is empty if only findings changed. Besides the system's notices it looks by
        itself about once a second: for links to other places, for file systems without notices,
        and for what happened while nobody watched.
        """
        while True:
            while not self._root.is_dir():
                self._report(self.refresh, on_change)
                await asyncio.sleep(LOOK_EVERY_SECONDS / 2)
            try:
                with Inotify() as notices:
                    await self._watch_root(notices, on_change)
            except OSError as error:
                log.warning("files.no_notices", reason=str(error), remedy="Changes take a second.")
                await self._watch_root(None, on_change)

    async def _watch_root(
        self, notices: Inotify | None, on_change: Callable[[list[Change]], None]
    ) -> None:
        """Watch until the directory is another one than at first."""
        clock = asyncio.get_running_loop().time
        root = identity(str(self._root))
        while True:
            began = clock()
            # In a thread: a large tree must not hold up the streams.
            tree = await asyncio.to_thread(walk, str(self._root))
            if root is None or identity(str(self._root)) != root:
                return
            is_new = notices is not None and notices.follow(self._followed(tree))
            self._report(partial(self.refresh, tree), on_change)
            if is_new:
                continue  # what was written there before it was followed has no notice
            wait_seconds = max(LOOK_EVERY_SECONDS, (clock() - began) / LOOK_COST_SHARE)
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._take_notices(notices, on_change)
            except TimeoutError:
                continue

    async def _take_notices(
        self, notices: Inotify | None, on_change: Callable[[list[Change]], None]
    ) -> None:
        """Read files as their notices come, until one says more than that files changed."""
        if notices is None:
            await asyncio.Event().wait()
            return
        while True:
            told = _Told(await notices.changed())
            # No pause before they are handed on: what was read must not be lost to a time-out.
            self._report(partial(self._read_told, notices, told), on_change)
            if told.is_more_than_files:
                return
            if told.is_missing:
                await asyncio.sleep(REPLACEMENT_SECONDS)
                return

    def _read_told(self, notices: Inotify, told: "_Told") -> list[Change]:
        """
        Read the files that notices name, and those named by the time these are read.

        So one changed file waits for no other, and files written together are read together.
        """
        changes: list[Change] = []
        read = 0
        while told.paths:
            # "..data" is how mounted ConfigMaps swap their files.
            if any("/.." in path for path in told.paths):
                told.paths = None
                break
            names = self._names(told.paths)
            told.is_missing = any(stamp_of(self._path(name)) is None for name in names)
            if told.is_missing:
                break
            changes.extend(self._read_again(names))
            read += len(names)
            told.paths = notices.taken() if read < MAX_TOGETHER else frozenset()
        told.is_more_than_files = told.paths is None
        return _last_of_each(changes)

    def _followed(self, tree: Tree) -> list[str]:
        beside = (str(file.absolute().parent) for file in self._mesh_files.values())
        return list(dict.fromkeys((*tree.folders, *beside)))

    def _names(self, paths: frozenset[str]) -> list[str]:
        """Return the config files among paths below the root, by name; note the mesh config."""
        for kind, file in self._mesh_files.items():
            if str(file.absolute()) in paths:
                self._mesh_stamps.pop(kind, None)
        prefix = f"{self._root}/"
        return [
            path.removeprefix(prefix)
            for path in sorted(paths)
            if path.startswith(prefix) and is_config_file(path.rpartition("/")[2])
        ]

    def _read_again(self, names: list[str]) -> list[Change]:
        """Read files even if size and time are the same: clocks of files are coarse."""
        changes = self._refresh_mesh_files()
        for name in names:
            self._stamps[name] = stamp_of(self._path(name)) or UNKNOWN
            changes.extend(self._read(name))
        return _last_of_each(changes)

    def _report(
        self, look: Callable[[], list[Change]], on_change: Callable[[list[Change]], None]
    ) -> None:
        before = self.findings()
        changes = look()
        self._state.forget_lines()
        if changes or self.findings() != before:
            on_change(changes)

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of all files, with file and line."""
        found = self._state.findings()
        if self._is_gone:
            ref = ConfigRef("", "", "", file=str(self._root))
            what = f"directory of cluster {self._cluster}" if self._cluster else "config directory"
            message = f"The {what} is gone; what was read from it stays in use."
            remedy = "Restore it."
            if self._cluster and not self._stamps:
                message = f"The {what} is not there; nothing is known of the cluster."
                remedy = "Make it, or correct --remote-cluster."
            return (Finding(Severity.ERROR, "DirectoryGone", ref, message, remedy), *found)
        return found

    def locate(self, ref: ConfigRef) -> ConfigRef:
        """Return the reference with file and line filled in, as far as they can be found."""
        found = self._state.place(ObjectId(ref.kind, ObjectKey(ref.namespace, ref.name)))
        if found is None:
            return ref
        name, place = found
        try:
            return located_in(ref, name, place, (self._root / name).read_bytes())
        except (OSError, YamlError):
            # The file changed meanwhile; its first line is still the best answer.
            return replace(ref, file=name, line=place.line)

    def _refresh_mesh_files(self) -> list[Change]:
        changes = []
        for kind, file in self._mesh_files.items():
            stamp = stamp_of(str(file))
            if stamp is None or stamp == self._mesh_stamps.get(kind):
                continue  # a file that is away for a moment keeps its last good version
            self._mesh_stamps[kind] = stamp
            with contextlib.suppress(OSError):
                changes += self._state.update_mesh_file(str(file), file.read_bytes(), kind)
        return changes

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _read(self, name: str) -> list[Change]:
        if self._stamps[name].size > MAX_BYTES:
            return self._state.fail(name, f"it is larger than {MAX_BYTES // 2**20} MiB")
        try:
            return self._state.update(name, content_of(self._path(name)))
        except FileNotFoundError:
            del self._stamps[name]
            return self._state.update(name, None)
        except OSError as error:
            return self._state.fail(name, error.strerror or "unknown reason")


def _last_of_each(changes: Iterable[Change]) -> list[Change]:
    """Leave one change per object: the last, in the order of first appearance."""
    last = {(each.kind, each.key): each for each in changes}
    return list(last.values())
