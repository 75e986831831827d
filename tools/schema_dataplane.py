"""Read message and enum definitions out of `envoy-data-plane`'s generated classes.

That package follows Envoy's API more closely than `xds-protos` does, but holds classes
instead of descriptors. The class bodies are plain data (`name: type = betterproto2.field(
number, kind, ...)`), so `ast` reads them; nothing of the package is imported.
"""

from __future__ import annotations

import ast
import importlib.metadata
import keyword
import re
from dataclasses import dataclass, field
from pathlib import Path

from schema_sources import python_files

_PACKAGE_ROOT = "envoy_data_plane/"
_ANNOTATED = re.compile(r"typing\.Annotated\[.*\]")


@dataclass(slots=True, kw_only=True)
class FieldRecord:
    """One field: `type_ref` is (package, class name) of the message or enum, if any."""

    name: str
    number: int
    kind: str
    is_repeated: bool = False
    is_optional: bool = False
    oneof: str | None = None
    type_ref: tuple[str, str] | None = None
    map_kinds: tuple[str, str] | None = None


@dataclass(slots=True, kw_only=True)
class PackageRecord:
    """One proto package: messages by dotted name, enums by class name."""

    name: str
    sources: list[str]
    message_names: dict[str, str] = field(default_factory=dict)
    messages: dict[str, list[FieldRecord]] = field(default_factory=dict)
    enums: dict[str, list[tuple[str, int]]] = field(default_factory=dict)


def read_packages(distribution: importlib.metadata.Distribution) -> dict[str, PackageRecord]:
    """Return every proto package found in the distribution, by package name."""
    packages = {}
    for entry, path in python_files(distribution, "/__init__.py").items():
        if not entry.startswith(_PACKAGE_ROOT):
            continue
        parts = tuple(entry.removeprefix(_PACKAGE_ROOT).split("/")[:-1])
        record = _read_package(parts, path)
        if record is not None:
            packages[record.name] = record
    return packages


def _read_package(parts: tuple[str, ...], path: Path) -> PackageRecord | None:
    text = path.read_text(encoding="utf-8")
    sources = re.search(r"^# sources: (.*)$", text, re.MULTILINE)
    if sources is None:
        return None
    tree = ast.parse(text)
    record = PackageRecord(name=".".join(parts), sources=sources.group(1).split(", "))
    aliases = _aliases(tree, parts)
    flat: dict[str, list[FieldRecord]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            if "betterproto2.Message" in bases:
                flat[node.name] = _fields(node, record.name, aliases)
            elif "betterproto2.Enum" in bases:
                record.enums[node.name] = _enum_values(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            registered = _registration(node.value)
            if registered is not None:
                record.message_names[registered[1]] = registered[0]
    record.messages = {record.message_names[name]: fields for name, fields in flat.items()}
    return record


def _registration(call: ast.Call) -> tuple[str, str] | None:
    """`default_message_pool.register_message(package, dotted, Class)` -> (dotted, Class)."""
    if not ast.unparse(call.func).endswith("register_message"):
        return None
    dotted, cls = call.args[1], call.args[2]
    if not isinstance(dotted, ast.Constant) or not isinstance(cls, ast.Name):
        return None
    return str(dotted.value), cls.id


def _aliases(tree: ast.Module, parts: tuple[str, ...]) -> dict[str, str]:
    """Map import aliases of sibling packages to proto package names."""
    aliases = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level + 1]
            below = tuple(node.module.split(".")) if node.module else ()
            for name in node.names:
                aliases[name.asname or name.name] = ".".join((*base, *below, name.name))
    return aliases


def _enum_values(node: ast.ClassDef) -> list[tuple[str, int]]:
    """Values in order, under their proto names (the class may carry shortened ones)."""
    values = [
        (statement.targets[0].id, int(ast.literal_eval(statement.value)))
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    ]
    for statement in node.body:
        if (
            isinstance(statement, ast.FunctionDef)
            and statement.name == "betterproto_renamed_proto_names_to_value"
            and isinstance(statement.body[-1], ast.Return)
            and statement.body[-1].value is not None
        ):
            renamed = ast.literal_eval(statement.body[-1].value)
            by_number = {number: name for name, number in renamed.items()}
            values = [(by_number.get(number, name), number) for name, number in values]
    return values


def _fields(node: ast.ClassDef, package: str, aliases: dict[str, str]) -> list[FieldRecord]:
    fields = []
    for statement in node.body:
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(statement.value, ast.Call)
        ):
            annotation = ast.literal_eval(statement.annotation)
            fields.append(
                _field(statement.target.id, annotation, statement.value, package, aliases)
            )
    return fields


def _field(
    name: str, annotation: str, call: ast.Call, package: str, aliases: dict[str, str]
) -> FieldRecord:
    stripped = name.removesuffix("_")
    options = {keyword_.arg: keyword_.value for keyword_ in call.keywords}
    record = FieldRecord(
        name=stripped if keyword.iskeyword(stripped) else name,
        number=int(ast.literal_eval(call.args[0])),
        kind=ast.unparse(call.args[1]).removeprefix("betterproto2.TYPE_"),
        is_repeated="repeated" in options,
        is_optional="optional" in options,
        oneof=ast.literal_eval(options["group"]) if "group" in options else None,
    )
    if "map_meta" in options:
        meta = options["map_meta"]
        assert isinstance(meta, ast.Call)
        key, value = (ast.unparse(arg).removeprefix("betterproto2.TYPE_") for arg in meta.args[:2])
        record.map_kinds = (key, value)
        for argument in meta.keywords:
            options[argument.arg] = argument.value
    value_kind = record.map_kinds[1] if record.map_kinds else record.kind
    if value_kind in {"MESSAGE", "ENUM"}:
        unwrap = options.get("unwrap")
        reference = (
            ast.unparse(unwrap.body) if isinstance(unwrap, ast.Lambda) else _innermost(annotation)
        )
        alias, _, cls = reference.rpartition(".")
        record.type_ref = (aliases[alias] if alias else package, cls)
    return record


def _innermost(annotation: str) -> str:
    """`dict[str, x.Y]`, `list[x.Y]`, `x.Y | None` -> `x.Y`."""
    text = annotation.removesuffix(" | None")
    text = _ANNOTATED.sub("_", text)
    if text.startswith("dict["):
        return text[5:-1].rpartition(", ")[2]
    return text.removeprefix("list[").removesuffix("]")
