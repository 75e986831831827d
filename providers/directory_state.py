"""
What a directory of config holds: which object comes from which file, and its last good version.

Sans-IO: somebody else reads and watches; `update` takes a file's new content and answers with the
objects that changed. The rules: an object in two files belongs to the first file by path; what
cannot be read or used leaves the last good version in place and yields a finding; a file that is
gone takes its objects with it.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pilothouse.api.kinds import KINDS, MESH_CONFIG
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.providers.documents import (
    MESH_PARTS,
    DocumentReading,
    MeshPart,
    MeshReading,
    chunks_of,
    digest_of,
    findings_of,
    object_line,
    read_documents,
    read_mesh_file,
    read_mesh_text,
)
from pilothouse.providers.yaml_loader import Chunk
from pilothouse.providers.yaml_plain import LineMemory

ROOT_NAMESPACE: Final = "istio-system"
MESH_KEY: Final = ObjectKey("", "mesh")
DEFAULT_REVISION: Final = "default"
"""The revision of a control plane that names none."""

REVISION_LABEL: Final = "istio.io/rev"
_ISTIO_KINDS: Final = frozenset(kind.name for kind in KINDS if kind.is_istio)
_MESH_CONFIG_MAP: Final = "istio"


class Change(NamedTuple):
    """An object appeared or changed (row) or is gone (None)."""

    kind: str
    key: ObjectKey
    row: Any | None


class ObjectId(NamedTuple):
    """Kind and key of an object."""

    kind: str
    key: ObjectKey

    def ref(self, file: str, line: int) -> ConfigRef:
        """Return a reference to the object where it is written."""
        return ConfigRef(self.kind, self.key.namespace, self.key.name, file=file, line=line)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is written: a document by digest and first line, and the path in it."""

    digest: bytes
    line: int
    path: str


@dataclass(slots=True)
class _File:
    readings: tuple[DocumentReading, ...] = ()
    rows: dict[ObjectId, Any] = field(default_factory=dict)
    places: dict[ObjectId, Place] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _MeshState:
    """The mesh config or its networks: as a file has it, as the ConfigMap does, and in use."""

    part: MeshPart
    lines: dict[str, int] = field(default_factory=dict)
    from_file: MeshReading | None = None
    from_map: MeshReading | None = None
    row: Any | None = None

    def change(self) -> list[Change]:
        """Return what changed since it was asked last; the file wins over the ConfigMap."""
        readings = (each for each in (self.from_file, self.from_map) if each is not None)
        row = next((each.row for each in readings if each.row is not None), None)
        if row == self.row:
            return []
        self.row = row
        return [Change(self.part.kind, MESH_KEY, row)]


def _kept(reading: MeshReading, last: MeshReading | None) -> MeshReading:
    """Return the reading, with the last good row if it has none."""
    row = reading.row if reading.row is not None else (last.row if last else None)
    return replace(reading, row=row)


class DirectoryState:
    """
    The objects of a set of files, by the path each was read from.

    `root_namespace` is where the ConfigMap `istio` is the mesh config and its networks. Objects of
    the Istio API that are labelled with a revision are used by that `revision` only (K8-19).
    """

    def __init__(
        self, root_namespace: str = ROOT_NAMESPACE, revision: str = DEFAULT_REVISION
    ) -> None:
        """Start without files."""
        self._revision = revision
        self._config_map = ObjectId("ConfigMap", ObjectKey(root_namespace, _MESH_CONFIG_MAP))
        self._files: dict[str, _File] = {}
        self._owners: dict[ObjectId, list[str]] = {}
        # What findings are made of, so that asking for them costs as much as there are.
        self._faulty: set[str] = set()
        self._contested: set[ObjectId] = set()
        self._memory: LineMemory = {}
        self._mesh = {part.kind: _MeshState(part) for part in MESH_PARTS}

    def update(self, path: str, content: str | bytes | None) -> list[Change]:
        """Take a file's content, or None if it is gone; return what changed."""
        if content is None:
            return self._replace(path, None)
        before = self._files.get(path) or _File()
        if not content and before.rows:
            # An editor that truncates before it writes; an intended removal removes the file.
            ref = ConfigRef("", "", "", file=path, line=1)
            finding = Finding(
                Severity.WARNING,
                "EmptyFile",
                ref,
                "The file is empty; its objects stay in use.",
                "Remove the file to remove its objects.",
            )
            return self._replace(path, _with_findings(before, (finding,)))
        known = {each.digest: each for each in before.readings}
        readings = read_documents(path, content, self._memory, known)
        after = _filed(path, readings, before, self._revision)
        at = after.places.get(self._config_map)
        if at is not None:
            for mesh in self._mesh.values():
                mesh.lines[path] = _value_line(path, content, at, mesh.part.key)
        return self._replace(path, after)

    def fail(self, path: str, reason: str) -> list[Change]:
        """Say that a file cannot be read at all; its objects stay as they were."""
        ref = ConfigRef("", "", "", file=path)
        message = f"The file cannot be read: {reason}."
        finding = Finding(Severity.ERROR, "Unreadable", ref, message, "Make it readable.")
        before = self._files.get(path) or _File()
        return self._replace(path, _with_findings(before, (finding,)))

    def forget_lines(self) -> None:
        """Drop the memory of lines, which pays only while many files are read."""
        self._memory.clear()

    def update_mesh_file(
        self, path: str, content: str | bytes | None, kind: str = MESH_CONFIG
    ) -> list[Change]:
        """Take the content of the file of mesh config or networks; it wins over the ConfigMap."""
        mesh = self._mesh[kind]
        if content is None:
            mesh.from_file = None
        else:
            mesh.from_file = _kept(read_mesh_file(mesh.part, path, content), mesh.from_file)
        return mesh.change()

    def files(self) -> frozenset[str]:
        """Return the paths that are known."""
        return frozenset(self._files)

    def rows(self) -> dict[ObjectId, Any]:
        """Return every object in use."""
        return {
            identity: self._files[owners[0]].rows[identity]
            for identity, owners in self._owners.items()
        }

    def place(self, identity: ObjectId) -> tuple[str, Place] | None:
        """Return the file and place of an object in use."""
        owners = self._owners.get(identity)
        if not owners:
            return None
        return owners[0], self._files[owners[0]].places[identity]

    def findings(self) -> tuple[Finding, ...]:
        """Return all findings with file and line, in the order of files and lines."""
        found = [finding for path in self._faulty for finding in self._files[path].findings]
        found.extend(self._duplicates())
        for mesh in self._mesh.values():
            for reading in (mesh.from_map, mesh.from_file):
                if reading is not None:
                    found.extend(reading.findings)
        return tuple(sorted(found, key=lambda each: (each.ref.file, each.ref.line, each)))

    def _duplicates(self) -> Iterator[Finding]:
        for identity in self._contested:
            owners = self._owners[identity]
            for path in owners[1:]:
                place = self._files[path].places[identity]
                yield _duplicate(identity, path, place.line, owners[0])

    def _replace(self, path: str, file: _File | None) -> list[Change]:
        before = self._files.get(path) or _File()
        after = file or _File()
        touched = before.rows.keys() | after.rows.keys()
        was = {identity: self._in_use(identity) for identity in touched}
        if file is None:
            self._files.pop(path, None)
        else:
            self._files[path] = file
        for identity in before.rows.keys() - after.rows.keys():
            owners = self._owners[identity]
            owners.remove(path)
            if not owners:
                del self._owners[identity]
        for identity in after.rows.keys() - before.rows.keys():
            insort(self._owners.setdefault(identity, []), path)
        self._faulty.discard(path)
        if after.findings:
            self._faulty.add(path)
        self._contested -= touched
        self._contested |= {each for each in touched if len(self._owners.get(each, ())) > 1}
        changes = []
        for identity in sorted(touched):
            row = self._in_use(identity)
            if row != was[identity]:
                changes.append(Change(identity.kind, identity.key, row))
        if self._config_map in touched:
            for mesh in self._mesh.values():
                changes.extend(self._read_config_map(mesh))
        return changes

    def _in_use(self, identity: ObjectId) -> Any | None:
        owners = self._owners.get(identity)
        return self._files[owners[0]].rows[identity] if owners else None

    def _read_config_map(self, mesh: _MeshState) -> list[Change]:
        row = self._in_use(self._config_map)
        place = self.place(self._config_map)
        key = mesh.part.key
        if row is None or place is None or key not in row.data:
            mesh.from_map = None
        else:
            path, at = place
            line = mesh.lines.get(path, at.line)
            reading = read_mesh_text(mesh.part, path, row.data[key], line)
            mesh.from_map = _kept(reading, mesh.from_map)
        return mesh.change()


def located_in(ref: ConfigRef, path: str, place: Place, content: str | bytes) -> ConfigRef:
    """Return a reference with the file and the line of its field there; raises YamlError."""
    line = place.line
    for chunk in chunks_of(path, content):
        if digest_of(chunk) == place.digest:
            line = place.line + object_line(Chunk(chunk.text, 1), place.path, ref.path) - 1
            break
    return replace(ref, file=path, line=line)


def _value_line(path: str, content: str | bytes, at: Place, key: str) -> int:
    """Return the line on which a key of the ConfigMap at a place stands."""
    for chunk in chunks_of(path, content):
        if digest_of(chunk) == at.digest:
            return at.line + object_line(Chunk(chunk.text, 1), at.path, f"data.{key}") - 1
    return at.line


def _is_of_revision(row: Any, kind: str, revision: str) -> bool:
    if kind not in _ISTIO_KINDS:
        return True
    return bool(row.meta.labels.get(REVISION_LABEL, revision) == revision)


def _of_another_revision(identity: ObjectId, path: str, line: int) -> Finding:
    ref = identity.ref(path, line)
    return Finding(
        Severity.INFO,
        "AnotherRevision",
        ref,
        f"The label {REVISION_LABEL} keeps the object for another control plane; it is not used.",
        "Remove the label, or name the revision with --revision.",
    )


def _with_findings(file: _File, findings: tuple[Finding, ...]) -> _File:
    """Return the file as it was, with other findings."""
    return replace(file, findings=findings)


def _duplicate(identity: ObjectId, path: str, line: int, winner: str) -> Finding:
    ref = identity.ref(path, line)
    where = f"in {winner}" if winner != path else "earlier in this file"
    return Finding(
        Severity.WARNING,
        "DuplicateObject",
        ref,
        f"The object is there {where} too, and that one is used.",
        "Remove one of them.",
    )


def _filed(path: str, readings: tuple[DocumentReading, ...], before: _File, revision: str) -> _File:
    """Put a file's objects together with the last good versions that must stay."""
    rows: dict[ObjectId, Any] = {}
    places: dict[ObjectId, Place] = {}
    repeated: list[Finding] = []
    unusable: set[ObjectId] = set()
    foreign: set[ObjectId] = set()
    someone_unknown = False
    for reading in readings:
        someone_unknown |= reading.broken is not None
        for item in reading.items:
            ref = item.decoded.ref
            identity = ObjectId(ref.kind, ObjectKey(ref.namespace, ref.name))
            if item.decoded.object is None:
                if item.decoded.is_broken:
                    unusable.add(identity)
                    someone_unknown |= not (ref.kind and ref.name)
                continue
            place = Place(reading.digest, reading.line, item.path)
            if not _is_of_revision(item.decoded.object, ref.kind, revision):
                repeated.append(_of_another_revision(identity, path, reading.line))
                foreign.add(identity)
                continue
            if identity in rows:
                repeated.append(_duplicate(identity, path, reading.line, path))
                continue
            rows[identity] = item.decoded.object
            places[identity] = place
    for identity, row in before.rows.items():
        # A document that cannot be read may have been any of the objects that are missing now.
        if identity in foreign:
            continue
        if identity not in rows and (someone_unknown or identity in unusable):
            rows[identity] = row
            places[identity] = before.places[identity]
    findings = (*findings_of(path, readings), *repeated)
    return _File(readings, rows, places, findings)
