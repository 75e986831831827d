"""
From a file's text to objects with located findings.

One function that the file store, `pilothouse validate` and anyone else who reads files share, so
that they cannot disagree. Documents whose text is unchanged are not read again. No I/O.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from pilothouse.api import paths
from pilothouse.api.decode import (
    Decoded,
    decode,
    decode_mesh_config,
    decode_mesh_networks,
    expand,
)
from pilothouse.api.kinds import MESH_CONFIG, MESH_NETWORKS
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.providers.yaml_loader import (
    Chunk,
    YamlError,
    first_line,
    line_of,
    parse_chunk,
    parse_json,
    split,
    to_text,
)
from pilothouse.providers.yaml_plain import LineMemory

_UNREADABLE = "The last good version stays in use until this is corrected."


@dataclass(frozen=True, slots=True)
class Item:
    """
    An object of a document: `path` leads to it (empty, or ``items[3]`` of a List).

    The lines of its findings count from the document's first line.
    """

    path: str
    decoded: Decoded
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class DocumentReading:
    """
    A document as read: its objects, or (`broken`) only a finding, its content being unknown.

    `line` is the document's first line in its file, `digest` identifies its text.
    """

    digest: bytes
    line: int
    items: tuple[Item, ...]
    broken: Finding | None = None


Cache = Mapping[bytes, DocumentReading]


def is_json(path: str) -> bool:
    """Tell whether a file is read as JSON."""
    return path.endswith(".json")


def chunks_of(path: str, content: str | bytes) -> Iterator[Chunk]:
    """Cut a file into documents; raises YamlError if it is not text."""
    text = to_text(content)
    return iter((Chunk(text, 1),)) if is_json(path) else split(text)


def digest_of(chunk: Chunk) -> bytes:
    """Return what identifies a document's text."""
    return hashlib.blake2b(chunk.text.encode(), digest_size=16).digest()


def read_documents(
    path: str, content: str | bytes, memory: LineMemory, known: Cache
) -> tuple[DocumentReading, ...]:
    """
    Read a file; what cannot be read becomes a `broken` document, never an exception.

    `memory` is shared while many files are read; `known` are documents read before, by digest.
    """
    try:
        chunks = list(chunks_of(path, content))
    except YamlError as error:
        return (_broken(b"", 1, error),)
    readings = []
    for chunk in chunks:
        digest = digest_of(chunk)
        before = known.get(digest)
        if before is not None:
            readings.append(before if before.line == chunk.line else _moved(before, chunk.line))
        else:
            readings.append(_read(path, chunk, digest, memory))
    return tuple(readings)


def _read(path: str, chunk: Chunk, digest: bytes, memory: LineMemory) -> DocumentReading:
    # The line is counted from the document, so that an unchanged document can be moved.
    own = Chunk(chunk.text, 1)
    try:
        documents = [parse_json(own.text)] if is_json(path) else parse_chunk(own, memory)
    except YamlError as error:
        return _moved(_broken(digest, 1, error), chunk.line)
    items = []
    for document in documents:
        for at, data in expand(document):
            decoded = decode(data)
            items.append(Item(at, decoded, tuple(_located(own, at, decoded.findings))))
    return DocumentReading(digest, chunk.line, tuple(items))


def _located(chunk: Chunk, at: str, findings: tuple[Finding, ...]) -> Iterator[Finding]:
    for finding in findings:
        line = object_line(chunk, at, finding.ref.path)
        yield replace(finding, ref=replace(finding.ref, line=line))


def object_line(chunk: Chunk, at: str, path: str) -> int:
    """Return the line of a field of the object at `at` in a document; empty path: its first."""
    whole = paths.join(at, path)
    return line_of(chunk, whole) if whole else first_line(chunk)


def _broken(digest: bytes, line: int, error: YamlError) -> DocumentReading:
    ref = ConfigRef("", "", "", line=error.line or line)
    column = f" (column {error.column})" if error.line else ""
    finding = Finding(Severity.ERROR, "Unreadable", ref, error.problem + column, _UNREADABLE)
    return DocumentReading(digest, line, (), finding)


def _moved(reading: DocumentReading, line: int) -> DocumentReading:
    broken = reading.broken
    if broken is not None:
        at = broken.ref.line + line - reading.line
        broken = replace(broken, ref=replace(broken.ref, line=at))
    return replace(reading, line=line, broken=broken)


def findings_of(path: str, readings: tuple[DocumentReading, ...]) -> Iterator[Finding]:
    """Yield a file's findings with file and line."""
    for reading in readings:
        if reading.broken is not None:
            ref = replace(reading.broken.ref, file=path)
            yield replace(reading.broken, ref=ref)
        for item in reading.items:
            for finding in item.findings:
                line = finding.ref.line + reading.line - 1
                yield replace(finding, ref=replace(finding.ref, file=path, line=line))


@dataclass(frozen=True, slots=True)
class MeshReading:
    """The mesh config or its networks as read; findings have the lines of the file."""

    row: Any
    findings: tuple[Finding, ...]


class MeshPart(NamedTuple):
    """One of the two things a mesh's ConfigMap holds: its kind here, and the key it is under."""

    kind: str
    key: str

    def decode(self, data: Any) -> Decoded:
        """Decode the part's data."""
        return (decode_mesh_config if self.kind == MESH_CONFIG else decode_mesh_networks)(data)


MESH_PARTS: Final = (MeshPart(MESH_CONFIG, "mesh"), MeshPart(MESH_NETWORKS, "meshNetworks"))


def read_mesh_file(part: MeshPart, path: str, content: str | bytes) -> MeshReading:
    """Read a file with a part itself, or with a ConfigMap that has it under its key."""
    try:
        chunks = list(chunks_of(path, content))
        if not chunks:
            return MeshReading(part.decode({}).object, ())
        chunk = chunks[0]
        found = [parse_json(chunk.text)] if is_json(path) else parse_chunk(chunk, {})
    except YamlError as error:
        broken = _broken(b"", 1, error).broken
        assert broken is not None  # noqa: S101 (for the type checker: it was just made)
        ref = replace(broken.ref, kind=part.kind, name="mesh", file=path)
        return MeshReading(None, (replace(broken, ref=ref),))
    data = found[0] if found else {}
    if isinstance(data, dict) and data.get("kind") == "ConfigMap":
        inner = data.get("data")
        text = inner.get(part.key, "") if isinstance(inner, dict) else ""
        return read_mesh_text(part, path, str(text), line_of(chunk, f"data.{part.key}"))
    decoded = part.decode(data)
    located = _in_file(path, chunk, decoded.findings, 0)
    return MeshReading(decoded.object, tuple(located))


def read_mesh_text(part: MeshPart, path: str, text: str, line_before: int) -> MeshReading:
    """Read a part from a ConfigMap's value, which begins after a line of its file."""
    inner = Chunk(to_text(text), 1)
    try:
        found = parse_chunk(inner, {})
    except YamlError as error:
        ref = ConfigRef(part.kind, "", "mesh", "", path, line_before + error.line)
        finding = Finding(Severity.ERROR, "Unreadable", ref, error.problem, _UNREADABLE)
        return MeshReading(None, (finding,))
    decoded = part.decode(found[0] if found else {})
    located = _in_file(path, inner, decoded.findings, line_before)
    return MeshReading(decoded.object, tuple(located))


def _in_file(
    path: str, chunk: Chunk, findings: tuple[Finding, ...], line_before: int
) -> Iterator[Finding]:
    for finding in findings:
        line = line_before + object_line(chunk, "", finding.ref.path)
        yield replace(finding, ref=replace(finding.ref, file=path, line=line))
