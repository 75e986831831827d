"""
Checking files without a store: what `pilothouse validate` runs.

The same functions as the store's, so that both say the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import ConfigRef, Finding
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import CLUSTERS, THE_MESH
from pilothouse.providers.clusters import ClusterView
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

    `changes` are all objects that can be used, in the order read, of all clusters that were added.
    """

    def __init__(
        self, texts: Iterable[tuple[str, str | bytes]], revision: str = DEFAULT_REVISION
    ) -> None:
        """Read the files; objects of another revision are told of and not used."""
        self._texts = dict(texts)
        self._revision = revision
        self._others: dict[str, tuple[ClusterView, FileCheck]] = {}
        self._state = DirectoryState(revision=revision)
        self.changes: list[Change] = []
        for path, content in self._texts.items():
            self.changes.extend(self._state.update(path, content))

    def add_mesh_file(self, path: str, content: str | bytes, kind: str) -> None:
        """Read a file of mesh config or networks, which wins over the ConfigMap's."""
        self.changes.extend(self._state.update_mesh_file(path, content, kind))

    def add_clusters(
        self, others: Mapping[str, Iterable[tuple[str, str | bytes]]], own: str
    ) -> None:
        """Read the files of other clusters, by name; `own` is the name of the config's cluster."""
        for name, texts in others.items():
            view, check = self._others[name] = ClusterView(name), FileCheck(texts, self._revision)
            self.changes.extend(view.take(check.changes))
        known = KnownClusters(own=own, others=tuple(sorted(self._others)))
        self.changes.append(Change(CLUSTERS.name, THE_MESH, known))

    def findings(self) -> tuple[Finding, ...]:
        """Return what is wrong in the files, with file and line."""
        of_others = (
            finding
            for view, check in self._others.values()
            for finding in view.findings(check.findings())
        )
        located = (each if each.ref.file else self._located(each) for each in of_others)
        return (*self._state.findings(), *located)

    def located(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Return findings on objects with the file and line of each."""
        return tuple(map(self._located, findings))

    def _located(self, finding: Finding) -> Finding:
        return replace(finding, ref=self.locate(finding.ref))

    def locate(self, ref: ConfigRef) -> ConfigRef:
        """Return the reference with file and line filled in, if its object is in the files."""
        if ref.cluster in self._others:
            there = self._others[ref.cluster][1].locate(replace(ref, cluster=""))
            return replace(there, cluster=ref.cluster)
        found = self._state.place(ObjectId(ref.kind, ObjectKey(ref.namespace, ref.name)))
        if found is None:
            return ref
        path, place = found
        return located_in(ref, path, place, self._texts[path])


def validate_texts(texts: Iterable[tuple[str, str | bytes]]) -> tuple[Finding, ...]:
    """Return the findings of files given as (path, content), with file and line."""
    return FileCheck(texts).findings()
