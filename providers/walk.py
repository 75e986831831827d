"""
A look at a directory tree: its config files and what tells that one changed.

Works on plain strings and the directory's own entries, as the whole tree is looked at every second
and thousands of path objects would be the larger part of it.
"""

import os
import stat
from typing import Final, NamedTuple

SUFFIXES: Final = (".yaml", ".yml", ".json")
_BACKUPS: Final = ("~", ".swp", ".swx", ".bak", ".orig", ".tmp")


class Stamp(NamedTuple):
    """What tells that a file changed; size in bytes, modification time in ns."""

    device: int
    inode: int
    size: int
    modified_ns: int


UNKNOWN: Final = Stamp(0, 0, -1, 0)
"""Equal to no file's: what carries it is read again."""


class Tree(NamedTuple):
    """The folders of a tree by path, and the stamps of its config files by path below its root."""

    folders: list[str]
    files: dict[str, Stamp]


def walk(root: str) -> Tree:
    """Look at everything below `root`; links are followed, but no folder is entered twice."""
    tree = Tree([], {})
    entered: set[tuple[int, int]] = set()
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=_name)
        except OSError:
            continue  # it vanished, or is not ours to read
        tree.folders.append(folder)
        for entry in entries:
            _enter(entry, prefix, tree, waiting)
    return tree


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _enter(
    entry: os.DirEntry[str], prefix: str, tree: Tree, waiting: list[tuple[str, str]]
) -> None:
    name = entry.name
    if name[0] == ".":
        return
    try:
        if entry.is_dir():
            waiting.append((f"{prefix}{name}/", entry.path))
        elif is_config_file(name):
            found = _regular(entry.stat())
            if found is not None:
                tree.files[prefix + name] = found
    except OSError:
        return


def is_config_file(name: str) -> bool:
    """Tell whether a file name is that of config, and not hidden or an editor's backup."""
    return (
        name.endswith(SUFFIXES) and not name.startswith((".", "#")) and not name.endswith(_BACKUPS)
    )


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a regular file, None if there is none."""
    try:
        return _regular(os.stat(path))
    except OSError:
        return None


def _regular(status: os.stat_result) -> Stamp | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def identity(folder: str) -> tuple[int, int] | None:
    """Return what tells a folder from another of its name, None if it is gone."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def content_of(path: str) -> bytes:
    """Read a file; raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()
