"""
Rules for one value, as Envoy's schema writes them, compiled to functions. Pure, no I/O.

The kinds are those of protoc-gen-validate: limits of numbers, lengths and patterns of texts, the
values an enum may have, limits of durations.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import re2
from google.protobuf.descriptor import EnumDescriptor

from pilothouse._pb.google.protobuf import duration_pb2

Rules = Mapping[str, Any]
Value: TypeAlias = Any
"""Of a protobuf field: a number, text, bytes or message."""
Predicate = Callable[[Value], str]
"""Says what is wrong with a value; empty if nothing."""

_NUMBERS: Final = ("uint32", "int32", "uint64", "int64", "double", "float")
_LIMITS: Final = ("gte", "gt", "lte", "lt")
_LIMIT_WORDS: Final = {
    "gte": "must be at least",
    "gt": "must be more than",
    "lte": "must be at most",
    "lt": "must be less than",
}
_DURATION: Final = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?s")

# Well-known patterns 1 and 2 of protoc-gen-validate: names and values of HTTP headers.
_HEADER_PATTERNS: Final = {
    (1, True): r"^:?[0-9a-zA-Z!#$%&'*+\-.^_|~\x60]+$",
    (1, False): r"^[^\x00\n\r]+$",
    (2, True): r"^[^\x00-\x08\x0A-\x1F\x7F]*$",
    (2, False): r"^[^\x00\n\r]*$",
}
_HEADER_WORDS: Final = {1: "is not a header name", 2: "has a character no header may have"}


class Problem(NamedTuple):
    """What is wrong, and where in the message that was looked at (empty: the whole)."""

    path: str
    text: str


def value_problem(rule: Rules, enum: EnumDescriptor | None) -> Predicate | None:
    """Return what tells a value's problem; None if the rules demand nothing of it."""
    found = [
        *(_limits(rule[kind], lambda limit: limit) for kind in _NUMBERS if kind in rule),
        *([_limits(rule["duration"], _nanos_of)] if "duration" in rule else ()),
        *([_text(rule["string"])] if "string" in rule else ()),
        *([_length(rule["bytes"])] if "bytes" in rule else ()),
        *([_enum(rule["enum"], enum)] if "enum" in rule and enum is not None else ()),
        *([_constant(rule["bool"]["const"])] if "const" in rule.get("bool", {}) else ()),
    ]
    predicates = [predicate for predicate in found if predicate is not None]
    if len(predicates) <= 1:
        return predicates[0] if predicates else None
    return lambda value: next((text for each in predicates if (text := each(value))), "")


def nanos(duration: duration_pb2.Duration) -> int:
    """Return a Duration message in nanoseconds."""
    total: int = duration.seconds * 1_000_000_000 + duration.nanos
    return total


def _limits(rule: Rules, read: Callable[[Any], Any]) -> Predicate | None:
    limits = {kind: read(rule[kind]) for kind in _LIMITS if kind in rule}
    if not limits:
        return None

    def predicate(value: Value) -> str:
        for kind, limit in limits.items():
            if not _holds(kind, value, limit):
                return f"{_LIMIT_WORDS[kind]} {rule[kind]}"
        return ""

    return predicate


def _holds(kind: str, value: Value, limit: Value) -> bool:
    match kind:
        case "gte":
            return bool(value >= limit)
        case "gt":
            return bool(value > limit)
        case "lte":
            return bool(value <= limit)
        case _:
            return bool(value < limit)


def _text(rule: Rules) -> Predicate | None:
    checks = [*_shapes(rule)]
    if length := _length(rule):
        checks.insert(0, length)
    if not checks:
        return None
    ignores_empty = bool(rule.get("ignore_empty"))

    def predicate(text: str) -> str:
        if ignores_empty and not text:
            return ""
        for check in checks:
            if problem := check(text):
                return problem
        return ""

    return predicate


def _shapes(rule: Rules) -> Iterator[Predicate]:
    if (most := rule.get("max_bytes")) is not None:
        yield lambda text: f"is longer than {most} bytes" if len(text.encode()) > most else ""
    if (allowed := rule.get("in")) is not None:
        yield lambda text: "" if text in allowed else f"must be one of {allowed}"
    if (prefix := rule.get("prefix")) is not None:
        yield lambda text: "" if text.startswith(prefix) else f"must begin with {prefix}"
    if (suffix := rule.get("suffix")) is not None:
        yield lambda text: "" if text.endswith(suffix) else f"must end with {suffix}"
    if (pattern := rule.get("pattern")) is not None:
        yield lambda text: "" if _is_match(pattern, text) else f"must match {pattern}"
    if (known := rule.get("well_known_regex")) in _HEADER_WORDS:
        form = _HEADER_PATTERNS[known, rule.get("strict", True)]
        words = _HEADER_WORDS[known]
        # A name without characters is the business of min_len.
        yield lambda text: "" if not text or _is_match(form, text) else words


def _length(rule: Rules) -> Predicate | None:
    least, most = rule.get("min_len", 0), rule.get("max_len")
    if not least and most is None:
        return None

    def predicate(value: Value) -> str:
        if len(value) < least:
            return "may not be empty" if least == 1 else f"is shorter than {least}"
        return f"is longer than {most}" if most is not None and len(value) > most else ""

    return predicate


def _enum(rule: Rules, enum: EnumDescriptor) -> Predicate:
    known = frozenset(enum.values_by_number) if rule.get("defined_only") else None
    forbidden = frozenset(rule.get("not_in", ()))

    def predicate(value: int) -> str:
        if (known is not None and value not in known) or value in forbidden:
            return f"may not be {value}"
        return ""

    return predicate


def _constant(wanted: bool) -> Predicate:  # noqa: FBT001 (it is the value that is compared with)
    return lambda value: "" if value is wanted else f"must be {str(wanted).lower()}"


@lru_cache(maxsize=4096)
def _is_match(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


@cache
def _compiled(pattern: str) -> "re2._Regexp[str]":
    return re2.compile(pattern)


def _nanos_of(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:  # pragma: no cover (the rules are fixed when the package is made)
        raise ValueError(text)
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    return -total if sign else total
