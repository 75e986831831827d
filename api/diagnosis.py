"""
What is wrong with data that does not fit its type: all of it, with paths.

The fast path is one call of msgspec, which stops at the first error. Only when that fails, this
walks the data along the same type information, collects every error and returns the data without
the fields that do not exist. Nulls mean "not set", as in Kubernetes and protobuf JSON.
"""

import base64
import binascii
import difflib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from pilothouse.api import paths
from pilothouse.api.duration import Duration
from pilothouse.graph.findings import Severity

Report = Callable[[Severity, str, str, str, str], None]
"""Called with severity, code, field path, message and remedy."""

_CLOSE_ENOUGH: Final = 0.6
_SHOWN: Final = 60
_WIDEST_INT: Final = 2**63


@cache
def _info(of: Any) -> inspect.Type:
    return inspect.type_info(of)


@cache
def _fields(of: Any) -> dict[str, inspect.Field]:
    described = inspect.type_info(of)
    if not isinstance(described, inspect.StructType):  # pragma: no cover (callers pass structs)
        raise TypeError(of)
    return {field.encode_name: field for field in described.fields}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a remedy that names the closest known word, if one is close."""
    words = list(known)
    folded = {word.lower(): word for word in words}
    flat = name.replace("_", "").replace("-", "").lower()
    if flat in folded:
        return f'Did you mean "{folded[flat]}"?'
    close = difflib.get_close_matches(name, words, n=1, cutoff=_CLOSE_ENOUGH)
    return f'Did you mean "{close[0]}"?' if close else ""


def diagnose(
    data: Any, of: type[msgspec.Struct], path: str, report: Report, *, strict: bool
) -> Any:
    """
    Report all that is wrong with the data of a struct type; return the data to use instead.

    `strict`: unknown fields are reported (UnknownField); otherwise they are left out quietly.
    """
    return _walk(data, _info(of), path, report, strict=strict)


def _walk(data: Any, of: inspect.Type, path: str, report: Report, *, strict: bool) -> Any:  # noqa: C901, PLR0911, PLR0912
    match of:
        case inspect.StructType():
            return _walk_struct(data, of, path, report, strict=strict)
        case inspect.UnionType():
            options = [each for each in of.types if not isinstance(each, inspect.NoneType)]
            if len(options) == 1:
                return _walk(data, options[0], path, report, strict=strict)
            if not any(_is_plainly(data, each) for each in options):
                wanted = " or ".join(_wanted(each) for each in options)
                _wrong(data, wanted, path, report)
            return data
        case inspect.VarTupleType():
            if not isinstance(data, list | tuple):
                _wrong(data, "a list", path, report)
                return data
            return [
                _walk(each, of.item_type, paths.item(path, index), report, strict=strict)
                for index, each in enumerate(data)
            ]
        case inspect.DictType():
            if not isinstance(data, dict):
                _wrong(data, "a map", path, report)
                return data
            return {
                key: _walk(each, of.value_type, paths.child(path, str(key)), report, strict=strict)
                for key, each in data.items()
                if each is not None or isinstance(of.value_type, inspect.AnyType)
            }
        case inspect.LiteralType():
            if data not in of.values:
                remedy = did_you_mean(str(data), (str(each) for each in of.values))
                allowed = ", ".join(str(each) for each in of.values)
                message = f"{_shown(data)} is not one of {allowed}."
                report(Severity.ERROR, "BadValue", path, message, remedy)
            return data
        case inspect.CustomType(cls=cls) if cls is Duration:
            _walk_duration(data, path, report)
            return data
        case inspect.BytesType():
            _walk_bytes(data, path, report)
            return data
        case inspect.AnyType():
            return data
        case _:
            if not _is_plainly(data, of):
                _wrong(data, _wanted(of), path, report)
            return data


def _walk_struct(
    data: Any, of: inspect.StructType, path: str, report: Report, *, strict: bool
) -> Any:
    if isinstance(data, of.cls):
        return data
    if not isinstance(data, dict):
        _wrong(data, "a map of fields", path, report)
        return data
    fields = _fields(of.cls)
    clean = {}
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            if strict:
                at = paths.child(path, str(name))
                remedy = did_you_mean(str(name), fields) or "Remove it or correct its name."
                message = f'There is no field "{name}" here; it is left out.'
                report(Severity.WARNING, "UnknownField", at, message, remedy)
        elif value is not None or _takes_none(field.type):
            clean[name] = _walk(value, field.type, paths.child(path, name), report, strict=strict)
    for name, field in fields.items():
        if field.required and name not in clean:
            at = paths.child(path, name)
            report(Severity.ERROR, "MissingField", at, f'"{name}" must be given.', "Add it.")
    return clean


def _walk_duration(data: Any, path: str, report: Report) -> None:
    if not isinstance(data, str):
        _wrong(data, 'a duration such as "10s"', path, report)
        return
    try:
        Duration.parse(data)
    except ValueError as error:
        report(Severity.ERROR, "BadValue", path, f"{error}.", "")


def _walk_bytes(data: Any, path: str, report: Report) -> None:
    if not isinstance(data, str):
        _wrong(data, "base64 text", path, report)
        return
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        message = "This is not base64."  # the value itself may be secret
        report(Severity.ERROR, "BadValue", path, message, "Encode the bytes as base64.")


def _takes_none(of: inspect.Type) -> bool:
    return isinstance(of, inspect.UnionType) and of.includes_none


def _is_plainly(data: Any, of: inspect.Type) -> bool:
    match of:
        case inspect.StrType():
            return isinstance(data, str)
        case inspect.BoolType():
            return isinstance(data, bool)
        case inspect.IntType():
            whole = isinstance(data, int) or (isinstance(data, float) and data.is_integer())
            return whole and not isinstance(data, bool) and -_WIDEST_INT <= data < _WIDEST_INT
        case inspect.FloatType():
            return isinstance(data, int | float) and not isinstance(data, bool)
        case _:
            return True


def _wanted(of: inspect.Type) -> str:
    match of:
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case _:
            return "something else"


def _wrong(data: Any, wanted: str, path: str, report: Report) -> None:
    remedy = ""
    if wanted == "text" and isinstance(data, bool | int | float):
        remedy = "Put it in quotes."
    elif wanted == "a list" and not isinstance(data, dict):
        remedy = 'Write each element on a line of its own after "- ".'
    report(Severity.ERROR, "WrongType", path, f"This must be {wanted}, not {_shown(data)}.", remedy)


def _shown(data: Any) -> str:
    match data:
        case None:
            return "nothing"
        case bool():
            return str(data).lower()
        case dict():
            return "a map"
        case list():
            return "a list"
        case str():
            short = data if len(data) <= _SHOWN else data[:_SHOWN] + "..."
            return f'"{short}"'
        case _:
            return str(data)
