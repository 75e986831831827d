"""
Reading YAML and JSON text into data: strict, located and fast.

A file is cut into documents first (document markers are recognisable without parsing), so that
each can be cached by its text. A document goes through the plain reader; if that declines, through
libyaml's events. Duplicate keys, recursive or explosive aliases and unknown tags are errors with
line and column. Nothing here knows what the data means, and positions are found again on demand
instead of being kept.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml
from yaml._yaml import CParser

from pilothouse.api import paths
from pilothouse.errors import InvalidConfig
from pilothouse.providers.yaml_plain import LineMemory, read_plain
from pilothouse.providers.yaml_scalars import resolve

MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest text that is read."""

_MAX_DEPTH: Final = 100
_ALIAS_ALLOWANCE: Final = 100_000
_MAX_LINES: Final = 100_000
_MARKER: Final = re.compile(r"^(?:---(?=[ \t\n]|\Z)|\.\.\.[ \t]*(?:#.*)?$\n?)", re.MULTILINE)
_MERGE: Final = "<<"
_TAG: Final = "tag:yaml.org,2002:"
_KINDS: Final = {int: "int", bool: "bool", type(None): "null"}


class YamlError(InvalidConfig):
    """The text is not acceptable YAML or JSON; `line` and `column` count from 1 (0: unknown)."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        """Keep the sentence and the place."""
        super().__init__(problem, line, column)
        self.problem, self.line, self.column = problem, line, column

    def __str__(self) -> str:
        """Render with the place, if known."""
        return (
            f"line {self.line}, column {self.column}: {self.problem}" if self.line else self.problem
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """The text of one document and the line of the file it begins on (1-based)."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its data, and the line of the file it begins on (1-based)."""

    data: Any
    line: int


def to_text(content: str | bytes) -> str:
    """Return the text with plain line ends and no byte order mark; YamlError if it has none."""
    if len(content) > MAX_BYTES:
        raise YamlError(f"The file is larger than {MAX_BYTES // (1024 * 1024)} MiB.")
    if isinstance(content, bytes):
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise YamlError("The file is not UTF-8 text.", line, 1) from None
    else:
        text = content
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def split(text: str) -> Iterator[Chunk]:
    """Cut text (see `to_text`) into documents; those with nothing but space are left out."""
    if "%" in text and re.search(r"^%", text, re.MULTILINE):
        yield Chunk(text, 1)  # directives belong to the document after them: leave it to libyaml
        return
    start, line = 0, 1
    for marker in _MARKER.finditer(text):
        piece = text[start : marker.start()]
        if _has_content(piece):
            yield Chunk(piece, line)
        line += text.count("\n", start, marker.end() if marker[0][0] == "." else marker.start())
        start = marker.end() if marker[0][0] == "." else marker.start()
    if _has_content(text[start:]):
        yield Chunk(text[start:], line)


def _has_content(piece: str) -> bool:
    stripped = piece.strip()
    return bool(stripped) and stripped != "---"


def parse(content: str | bytes) -> list[Document]:
    """Read all documents; raises YamlError at the first that cannot be read."""
    memory: LineMemory = {}
    documents: list[Document] = []
    for chunk in split(to_text(content)):
        documents.extend(Document(data, chunk.line) for data in parse_chunk(chunk, memory))
    return documents


def parse_chunk(chunk: Chunk, memory: LineMemory) -> list[Any]:
    """
    Read one chunk: one document, or several where directives kept them together.

    `memory` is the memory of lines shared between chunks of one reading. Raises YamlError with
    the line counted in the file.
    """
    if len(memory) > _MAX_LINES:
        memory.clear()
    done, data = read_plain(chunk.text, memory)
    if done:
        return [] if data is None else [data]
    return [each for each in _Reader(chunk).documents() if each is not None]


def parse_full(content: str | bytes) -> list[Any]:
    """Read all documents by libyaml alone: the reference the plain reader is tested against."""
    return [
        data
        for chunk in split(to_text(content))
        for data in _Reader(chunk).documents()
        if data is not None
    ]


def parse_json(content: str | bytes) -> Any:
    """Read one JSON document; raises YamlError."""
    text = to_text(content)
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        found = re.search(r"\(byte (\d+)\)", str(error))
        offset = int(found[1]) if found else len(text.encode())
        before = text.encode()[:offset].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        reason = re.sub(r"\s*\(byte \d+\)", "", str(error))
        raise YamlError(f"This is not JSON: {reason}.", line, column) from None


def line_of(chunk: Chunk, path: str) -> int:
    """
    Return the line of the file a field path stands on, else that of its nearest parent.

    For a member of a map it is the line of its key. Parses again; keeps nothing.
    """
    lines: dict[str, int] = {}
    reader = _Reader(chunk, lines)
    try:
        for _ in reader.documents():
            pass
    except YamlError:
        pass
    while path and path not in lines:
        path = paths.parent(path)
    return lines.get(path, chunk.line)


def first_line(chunk: Chunk) -> int:
    """Return the line of the first line of the chunk that is neither marker, space nor comment."""
    for offset, line in enumerate(chunk.text.split("\n")):
        content = line.removeprefix("---").strip()
        if content and not content.startswith("#"):
            return chunk.line + offset
    return chunk.line


@dataclass(slots=True)
class _Open:
    """A collection being read: `key` is the key a value is awaited for."""

    value: Any
    anchor: str | None
    path: str
    key: str | None = None
    merges: list[Any] | None = None


class _Reader:
    """Builds data from libyaml's events, without recursion; optionally notes lines by path."""

    def __init__(self, chunk: Chunk, lines: dict[str, int] | None = None) -> None:
        self._chunk = chunk
        self._lines = lines
        self._anchors: dict[str, Any] = {}
        self._budget = len(chunk.text) + _ALIAS_ALLOWANCE

    def documents(self) -> Iterator[Any]:
        """Yield the data of each document."""
        try:
            parser = CParser(self._chunk.text)
            while True:
                event = parser.get_event()
                if isinstance(event, yaml.StreamEndEvent):
                    return
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors.clear()
                    yield self._document(parser)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(part for part in (error.problem, error.context) if part)
            raise self._error(f"This is not valid YAML: {problem}.", mark) from None
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise YamlError(f"This is not valid YAML: {reason}.", self._chunk.line, 1) from None

    def _error(self, problem: str, mark: Any) -> YamlError:
        if mark is None:
            return YamlError(problem, self._chunk.line, 1)
        lines = self._chunk.text.rstrip("\n").split("\n")
        if mark.line >= len(lines):  # libyaml puts the end of the text on a line of its own
            return YamlError(problem, self._chunk.line + len(lines) - 1, len(lines[-1]) + 1)
        return YamlError(problem, self._chunk.line + mark.line, mark.column + 1)

    def _line(self, event: Any) -> int:
        line: int = event.start_mark.line
        return self._chunk.line + line

    def _document(self, parser: Any) -> Any:
        opened: list[_Open] = []
        root: Any = None
        while True:
            event = parser.get_event()
            if isinstance(event, yaml.DocumentEndEvent):
                return root
            if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                closed = opened.pop()
                if closed.merges:
                    _merge(closed.value, closed.merges)
                if not opened:
                    root = closed.value
                continue
            top = opened[-1] if opened else None
            if top is not None and top.key is None and isinstance(top.value, dict):
                top.key = self._key(event, top)
                continue
            value = self._value(event, opened)
            path = self._place(top, value, event)
            if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                if len(opened) >= _MAX_DEPTH:
                    raise self._error("This is nested too deeply.", event.start_mark)
                opened.append(_Open(value, event.anchor, path))
            elif top is None:
                root = value

    def _key(self, event: Any, top: _Open) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error("A key must be a plain text.", event.start_mark)
        key = self._scalar(event)
        if isinstance(key, bool):
            key = "true" if key else "false"
        elif isinstance(key, int | float):
            key = str(key)
        elif key is None:
            raise self._error("A key is missing.", event.start_mark)
        if event.anchor:
            self._anchors[event.anchor] = key
        if key == _MERGE and event.implicit[0]:
            return _MERGE
        if key in top.value:
            raise self._error(f'The key "{key}" is there twice.', event.start_mark)
        if self._lines is not None:
            path = paths.child(top.path, key)
            self._lines[path] = self._line(event)
        return str(key)

    def _value(self, event: Any, opened: list[_Open]) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(f'No "&{event.anchor}" comes before this.', event.start_mark)
            value = self._anchors[event.anchor]
            if any(each.value is value for each in opened):
                raise self._error(f'"*{event.anchor}" contains itself.', event.start_mark)
            value = self._copy(value, event, len(opened))
        else:
            is_list = isinstance(event, yaml.SequenceStartEvent)
            plain = _TAG + ("seq" if is_list else "map")
            if event.tag not in (None, "!", plain):
                raise self._error(f"The tag {event.tag} is not known here.", event.start_mark)
            value = [] if is_list else {}
        anchor = event.anchor
        if anchor and not isinstance(event, yaml.AliasEvent):
            self._anchors[anchor] = value
        return value

    def _copy(self, value: Any, event: Any, depth: int) -> Any:
        # Copies, so that no two fields share a collection; the budget stops an alias bomb.
        self._budget -= 1
        if self._budget < 0 or depth > _MAX_DEPTH:
            raise self._error("The aliases here expand to too much.", event.start_mark)
        if isinstance(value, dict):
            return {key: self._copy(each, event, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self._copy(each, event, depth + 1) for each in value]
        return value

    def _place(self, top: _Open | None, value: Any, event: Any) -> str:
        if top is None:
            return ""
        if isinstance(top.value, list):
            top.value.append(value)
            if self._lines is None:
                return ""
            path = paths.item(top.path, len(top.value) - 1)
            self._lines[path] = self._line(event)
            return path
        key = top.key or ""
        top.key = None
        if key == _MERGE:
            if not isinstance(event, (yaml.AliasEvent, yaml.SequenceStartEvent)):
                raise self._error("A merge needs an alias, or a list of them.", event.start_mark)
            top.merges = [*(top.merges or ()), value]
            return paths.child(top.path, key) if self._lines is not None else ""
        top.value[key] = value
        return paths.child(top.path, key) if self._lines is not None else ""

    def _scalar(self, event: Any) -> Any:
        tag: str | None = event.tag
        if tag is None or tag == "!":
            return resolve(event.value) if event.implicit[0] and tag is None else event.value
        kind = tag.removeprefix(_TAG)
        if kind in ("str", "binary"):
            return event.value
        value = resolve(event.value)
        if kind not in ("int", "float", "bool", "null"):
            raise self._error(f"The tag {tag} is not known here.", event.start_mark)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "float" and is_number:
            return float(value or 0)
        if kind != _KINDS.get(type(value)):
            raise self._error(f'"{event.value}" is not a {kind}.', event.start_mark)
        return value


def _merge(target: dict[str, Any], merges: list[Any]) -> None:
    """Add the keys of the merged maps that the map itself (or an earlier one) does not have."""
    for merged in merges:
        for each in merged if isinstance(merged, list) else (merged,):
            if isinstance(each, dict):
                for key, value in each.items():
                    target.setdefault(key, value)
