"""
Checking files without a store: what `pilothouse validate` runs.

The same functions as the store's, so that both say the same.
"""

from collections.abc import Iterable
from dataclasses import replace

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import ConfigRef, Finding
from pilothouse.providers.directory_state import (
    DEFAULT_REVISION,
    Change,
    DirectoryState,
    ObjectId,
    located_in,
)


class FileCheck:
    """
    Files given as (path, content), looked at together, so that an object in two of them is found.

    `changes` are all objects that can be used, in the order read.
    """

    def __init__(
        self, texts: Iterable[tuple[str, str | bytes]], revision: str = DEFAULT_REVISION
    ) -> None:
        """Read the files; objects of another revision are told of and not used."""
        self._texts = dict(texts)
        self._state = DirectoryState(revision=revision)
        self.changes: list[Change] = []
        for path, content in self._texts.items():
            self.changes.extend(self._state.update(path, content))

    def add_mesh_file(self, path: str, content: str | bytes, kind: str) -> None:
        """Read a file of mesh config or networks, which wins over the ConfigMap's."""
        self.changes.extend(self._state.update_mesh_file(path, content, kind))

    def findings(self) -> tuple[Finding, ...]:
        """Return what is wrong in the files, with file and line."""
        return self._state.findings()

    def located(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Return findings on objects with the file and line of each."""
        return tuple(replace(each, ref=self._locate(each.ref)) for each in findings)

    def _locate(self, ref: ConfigRef) -> ConfigRef:
        found = self._state.place(ObjectId(ref.kind, ObjectKey(ref.namespace, ref.name)))
        if found is None:
            return ref
        path, place = found
        return located_in(ref, path, place, self._texts[path])


def validate_texts(texts: Iterable[tuple[str, str | bytes]]) -> tuple[Finding, ...]:
    """Return the findings of files given as (path, content), with file and line."""
    return FileCheck(texts).findings()
