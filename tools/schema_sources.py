"""Locate the pinned distributions the schema is read from.

Needs the standard library only: the build backend asks here what is required before anything
of it is installed.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

#: Distributions that supply the schema; `tools/build_backend.py` asks for exactly these.
SCHEMA_PINS = {"xds-protos": "1.85.0", "envoy-data-plane": "2.2.0"}


class SchemaSourceMissing(RuntimeError):
    """A pinned schema distribution is not where the generator was told to look."""


def locate(name: str, search_path: list[str] | None) -> importlib.metadata.Distribution:
    """Return the distribution `name` at its pinned version.

    `search_path` is a list of directories to look in, or None for `sys.path`.
    Raises `SchemaSourceMissing` with the command that would supply it.
    """
    found = (
        importlib.metadata.distributions(name=name)
        if search_path is None
        else importlib.metadata.distributions(name=name, path=search_path)
    )
    pinned = SCHEMA_PINS[name]
    for distribution in found:
        if distribution.version == pinned:
            return distribution
    message = (
        f"{name}=={pinned} is needed to generate pilothouse._pb; run `make protos`, "
        f"or `pip install --no-deps --target DIR {name}=={pinned}` and pass --schema-path DIR"
    )
    raise SchemaSourceMissing(message)


def python_files(distribution: importlib.metadata.Distribution, suffix: str) -> dict[str, Path]:
    """Map each recorded file ending in `suffix` to where it lies on disk, in name order."""
    return {
        str(entry): Path(str(distribution.locate_file(entry)))
        for entry in sorted(distribution.files or [], key=str)
        if str(entry).endswith(suffix)
    }
