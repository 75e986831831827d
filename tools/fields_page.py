"""
Write docs/reference/fields.md: what becomes of every field of the Istio API, and what proves it.

The ledger (`pilothouse.api.support`) says what becomes of a field. A golden story proves a field
that its input sets; otherwise a test does whose docstring names the field's row.

    python tools/fields_page.py           write the page
    python tools/fields_page.py --check   exit 1 if the page is stale
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import yaml
from msgspec import inspect

from field_rows import row_of
from pilothouse.api.kinds import KINDS
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.api.opaque import Opaque
from pilothouse.api.support import LEDGER, Fate, Outcome, struct_within

Data: TypeAlias = Any
"""Of a YAML document."""

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "fields.md"
GOLDEN: Final = ROOT / "tests" / "golden"
BAD: Final = "bad_input"
"""The story of what is refused proves nothing of what is translated."""
MESH: Final = "MeshConfig"
NETWORKS: Final = "MeshNetworks"
SHOWN_STORIES: Final = 2

_SAID: Final = {
    Outcome.TRANSLATED: "translated",
    Outcome.ELSEWHERE: "no effect here: another program reads it",
    Outcome.NO_EFFECT: "no effect here",
    Outcome.NOT_YET: "not yet; setting it is reported",
}
_ROW: Final = re.compile(r"\b([A-Z][A-Z0-9]-\d\d)\b")
_RANGE: Final = re.compile(r"\b([A-Z][A-Z0-9])-(\d\d)\.\.(?:[A-Z][A-Z0-9]-)?(\d\d)\b")
_TEST: Final = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)
_HEAD: Final = """\
# Fields

What becomes of every field of Istio's networking API and of its mesh config. Made by
`make docs` from the [ledger](../../api/support.py); a test fails when it is stale.

*Translated*: it changes what proxies get. *No effect here*: nothing to do for a control plane, or
nothing in Istio either. *Not yet*: it has an effect in Istio and none here, and whoever sets it is
told so by a finding. A value that cannot be accepted is refused with its object, whatever the
field. Rows are ids of our requirements. A field is proven by a golden story that sets it, or by a
test of its row.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    told: set[type[msgspec.Struct]] = set()
    for name, root in _roots():
        messages = [each for each in _reachable(root) if each not in told]
        told.update(messages)
        parts.append(f"\n## {name}\n{_summary(messages)}")
        parts.extend(_section(message) for message in messages)
    return "".join(parts)


def proof_of(message: type[msgspec.Struct], field: str) -> tuple[str, ...]:
    """Return paths of the stories that set a field, else of the tests that name its row."""
    stories = _stories_by_field().get((message.__name__, field), ())
    if stories:  # what they show is compared byte for byte
        return tuple(f"tests/golden/{story}" for story in stories)
    return _tests_by_row().get(row_of(message.__name__, field), ())


def _roots() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    for kind in KINDS:
        if kind.is_istio and kind.row is not Opaque:
            yield kind.name, _spec(kind.row)
    yield MESH, MeshConfig
    yield NETWORKS, MeshNetworks


def _spec(row: type[msgspec.Struct]) -> type[msgspec.Struct]:
    found = struct_within(_described(row).fields[1].type)
    if found is None:
        raise TypeError(row)
    return found


@cache
def _described(of: type[msgspec.Struct]) -> inspect.StructType:
    described = inspect.type_info(of)
    if not isinstance(described, inspect.StructType):
        raise TypeError(of)
    return described


def _reachable(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    found: dict[type[msgspec.Struct], None] = {}
    waiting = [root]
    while waiting:
        message = waiting.pop(0)
        if message in found or message not in LEDGER:
            continue
        found[message] = None
        for field in _described(message).fields:
            inner = struct_within(field.type)
            has_effect = LEDGER[message][field.name].outcome is not Outcome.NO_EFFECT
            # What has no effect here, and elsewhere has, is shown there.
            if inner is not None and (has_effect or not _has_effect(inner)):
                waiting.append(inner)
    return list(found)


def _has_effect(message: type[msgspec.Struct]) -> bool:
    return any(fate.outcome is not Outcome.NO_EFFECT for fate in LEDGER[message].values())


def _summary(messages: list[type[msgspec.Struct]]) -> str:
    fates = [fate for message in messages for fate in LEDGER[message].values()]
    counts = dict.fromkeys(Outcome, 0)
    for fate in fates:
        counts[fate.outcome] += 1
    without = counts[Outcome.ELSEWHERE] + counts[Outcome.NO_EFFECT]
    return (
        f"\n{len(fates)} fields: {counts[Outcome.TRANSLATED]} translated, {without} without "
        f"effect here, {counts[Outcome.NOT_YET]} not yet.\n"
    )


def _section(message: type[msgspec.Struct]) -> str:
    lines = ["", f"### {message.__name__.removesuffix('Spec')}", ""]
    lines += ["| Field | Here | Row | Proven by |", "|---|---|---|---|"]
    for field in _described(message).fields:
        fate = LEDGER[message][field.name]
        row = row_of(message.__name__, field.name)
        shown = _shown(message, field.name, fate)
        lines.append(f"| `{field.encode_name}` | {_said(fate)} | {row} | {shown} |")
    return "\n".join(lines) + "\n"


def _said(fate: Fate) -> str:
    reason = fate.reason.replace("|", "\\|")
    return f"{_SAID[fate.outcome]}: {reason}" if reason else _SAID[fate.outcome]


def _shown(message: type[msgspec.Struct], field: str, fate: Fate) -> str:
    if fate.outcome is not Outcome.TRANSLATED:
        return ""
    links = []
    for path in proof_of(message, field)[:SHOWN_STORIES]:
        target = path.partition("::")[0]
        name = path.rpartition("/")[2].rpartition("::")[2]
        target = f"{target}/input.yaml" if target.startswith("tests/golden") else target
        links.append(f"[{name}](../../{target})")
    return ", ".join(links)


@cache
def _stories_by_field() -> Mapping[tuple[str, str], tuple[str, ...]]:
    types = dict(_roots())
    found: dict[tuple[str, str], dict[str, None]] = {}
    for path in sorted(GOLDEN.glob("*/input.yaml")):
        if path.parent.name == BAD:
            continue
        for text in re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            for kind, data in _configs(_document(text)):
                if kind in types:
                    for key in _set_fields(data, types[kind]):
                        found.setdefault(key, {})[path.parent.name] = None
    return {key: tuple(stories) for key, stories in found.items()}


def _document(text: str) -> Data:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _configs(document: Data) -> Iterator[tuple[str, Data]]:
    if not isinstance(document, dict):
        return
    if document.get("kind") == "List":
        for item in document.get("items") or ():
            yield from _configs(item)
    elif document.get("kind") == "ConfigMap":
        data = document.get("data") or {}
        for kind, key in ((MESH, "mesh"), (NETWORKS, "meshNetworks")):
            if isinstance(data.get(key), str):
                yield kind, yaml.safe_load(data[key])
    else:
        yield str(document.get("kind")), document.get("spec")


def _set_fields(data: Data, of: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    if not isinstance(data, dict):
        return
    for field in _described(of).fields:
        value = data.get(field.encode_name)
        if value is None:
            continue
        yield of.__name__, field.name
        inner = struct_within(field.type)
        if inner is None:
            continue
        if isinstance(value, list):
            children = value
        elif _is_map(field.type):
            children = list(value.values()) if isinstance(value, dict) else []
        else:
            children = [value]
        for child in children:
            yield from _set_fields(child, inner)


def _is_map(of: inspect.Type) -> bool:
    kinds = of.types if isinstance(of, inspect.UnionType) else (of,)
    return any(isinstance(each, inspect.DictType) for each in kinds)


@cache
def _tests_by_row() -> Mapping[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        starts = list(_TEST.finditer(text))
        ends = [*(each.start() for each in starts[1:]), len(text)]
        for start, end in zip(starts, ends, strict=False):  # a file without tests has an end too
            name = f"{path.relative_to(ROOT)}::{start.group(1)}"
            for row in _rows_in(text[start.start() : end]):
                found.setdefault(row, {})[name] = None
    return {row: tuple(names) for row, names in found.items()}


def _rows_in(text: str) -> Iterator[str]:
    for found in _ROW.finditer(text):
        yield found.group(1)
    for prefix, first, last in _RANGE.findall(text):
        yield from (f"{prefix}-{number:02}" for number in range(int(first), int(last) + 1))


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made else 1)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
