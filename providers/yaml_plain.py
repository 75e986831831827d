"""
A fast reader for the plain part of YAML that almost all config is written in.

It knows block maps and lists, one-line plain scalars, one-line quoted scalars without escapes,
``[]``, ``{}`` and comments, in printable ASCII. Whatever else it meets, and whatever might be an
error, it gives back unread: the full reader then decides. So it may be incomplete, but what it
returns must equal what the full reader returns (a property test compares them).

Lines repeat a great deal in config, so what a line means is remembered across documents; the
structure is then rebuilt from columns alone.
"""

import re
from typing import Any, Final, NamedTuple

from pilothouse.providers.yaml_scalars import WORDS, resolve

_VALUE: Final = r"""
    (?:[A-Za-z0-9_./~^$(+\\]|-(?=[!-~])) [!-"$-9;-~]*+
    (?:(?: :(?=[!-~]) | (?<=[!-~])\# | [ ]+(?=[!-"$-9;-~]) ) [!-"$-9;-~]*+ )*+
  | "[ !#-\[\]-~]*" | '[ -&(-~]*' | \[\] | \{\}
"""
_LINE: Final = re.compile(
    rf"""
    ([ ]*)                                              # indent
    ((?:-(?:[ ]+|\Z))*)                                 # dashes, each opening a list item
    (?:
        ([A-Za-z_][\w./-]{{0,200}} | "[ !#-\[\]-~]{{1,200}}" | '[ -&(-~]{{1,200}}') :
        (?:[ ]+({_VALUE}))?
      | ({_VALUE})
    )?
    (?:[ ]*|[ ]+\#[ -~]*)
    """,
    re.VERBOSE | re.ASCII,
)
_BLANK_LINE: Final = re.compile(r"[ ]*(?:#[ -~]*)?", re.ASCII)
_MARKER: Final = re.compile(r"---[ ]*(?:#[ -~]*)?(?:\n|\Z)", re.ASCII)
_DEEPEST: Final = 60
_MAYBE_WORD_OR_NUMBER: Final = frozenset("0123456789+-.~yYnNtTfFoO")


class Line(NamedTuple):
    """
    What a line says: the columns of its dashes, and of its key or scalar.

    `key` is None for a list item that is a scalar or a lone dash. `empty` is set when no value
    stands on the line; `fresh` when the value is a collection that must not be shared.
    """

    dashes: tuple[int, ...]
    column: int
    key: str | None
    empty: bool
    value: Any
    fresh: bool


LineMemory = dict[str, Line | None]
"""Lines by their text; None is a line without content."""


class _Unread(Exception):
    """The text is not of the plain kind."""


def read_plain(text: str, memory: LineMemory) -> tuple[bool, Any]:
    """
    Read one document; return (True, data), or (False, None) if the full reader must.

    `memory` is filled on the way and makes equal strings one object; the caller decides how long
    it lives and may clear it at any time.
    """
    marker = _MARKER.match(text)
    lines = (text[marker.end() :] if marker else text).split("\n")
    try:
        return True, _build(lines, memory)
    except _Unread:
        return False, None


def _read_line(text: str) -> Line | None:
    if _BLANK_LINE.fullmatch(text):
        return None
    found = _LINE.fullmatch(text)
    if found is None:
        raise _Unread
    indent, dashes, key, value, item = found.groups()
    at = len(indent)
    columns = tuple(at + position for position, char in enumerate(dashes) if char == "-")
    raw = value if key is not None else item
    if key is not None:
        if key[0] in "\"'":
            key = key[1:-1]
        elif key in WORDS:
            raise _Unread
    elif item is not None and not columns:
        raise _Unread
    return Line(
        columns,
        at + len(dashes),
        key,
        raw is None,
        None if raw is None else _scalar(raw),
        raw in ("[]", "{}"),
    )


def _scalar(raw: str) -> Any:
    first = raw[0]
    if first in "\"'":
        return raw[1:-1]
    if first == "[":
        return []
    if first == "{":
        return {}
    return resolve(raw) if first in _MAYBE_WORD_OR_NUMBER else raw


def _build(lines: list[str], memory: LineMemory) -> Any:  # noqa: C901, PLR0912, PLR0915
    # One loop on purpose: it runs once a line, and a call per step would double the cost.
    root: list[Any] = [None]
    # The innermost open collection is in the variables, the outer ones on the stack.
    stack: list[tuple[int, Any, bool]] = []
    column: int = -1
    inner: Any = root
    in_list = True
    waiting = True  # the last key or dash has had no value yet
    last_key = ""
    for text in lines:
        try:
            line = memory[text]
        except KeyError:
            line = memory[text] = _read_line(text)
        if line is None:
            continue
        dashes, content, key, empty, value, fresh = line
        for at in dashes:
            if waiting and (at > column or (at == column and not in_list)):
                if len(stack) > _DEEPEST:
                    raise _Unread
                opened: Any = []
                if in_list:
                    inner[-1] = opened
                else:
                    inner[last_key] = opened
                stack.append((column, inner, in_list))
                column, inner, in_list = at, opened, True
            else:
                while column > at:
                    column, inner, in_list = stack.pop()
                if column != at or not in_list:
                    raise _Unread
            inner.append(None)
            waiting = True
        if key is not None:
            if waiting and content > column:
                if len(stack) > _DEEPEST:
                    raise _Unread
                opened = {}
                if in_list:
                    inner[-1] = opened
                else:
                    inner[last_key] = opened
                stack.append((column, inner, in_list))
                column, inner, in_list = content, opened, False
            else:
                while column > content or (in_list and column == content):
                    column, inner, in_list = stack.pop()
                if column != content or in_list or key in inner:
                    raise _Unread
            last_key = key
            inner[key] = value.copy() if fresh else value
            waiting = empty
        elif not empty:
            inner[-1] = value.copy() if fresh else value
            waiting = False
    return root[0]
