"""
What Envoy demands of a message, checked before it is served.

One violation makes Envoy refuse a whole response, so it must be found here, with the object that
caused it. The rules come with Envoy's schema (`pilothouse._pb/constraints.json`) and from
`pilothouse.translators.envoy.refusals` for what the schema does not say. They are compiled once
per message type; types without rules cost nothing. Pure; it reads the packaged rules and no more.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse._pb._pool import message_class
from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse.translators.envoy.refusals import REFUSALS
from pilothouse.translators.envoy.value_rules import Problem, Rules, Value, nanos, value_problem

_ANY: Final = "google.protobuf.Any"
_METADATA: Final = "envoy.config.core.v3.Metadata"
_FREE: Final = frozenset((_METADATA, "google.protobuf.Struct"))
"""Made here and nowhere else, without anything its rules could refuse."""


_OFTEN_EQUAL: Final = frozenset(
    (
        "envoy.config.cluster.v3.CircuitBreakers",
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "envoy.config.cluster.v3.OutlierDetection",
        "envoy.config.core.v3.ConfigSource",
        "envoy.config.route.v3.RetryPolicy",
        "envoy.config.route.v3.RouteAction.MaxStreamDuration",
        "envoy.config.route.v3.RouteMatch",
    )
)
"""Parts that are the same in thousands of resources: looked up by their bytes."""


class Violation(NamedTuple):
    """
    The first thing wrong in a message.

    `path` is where, in the message's own terms; `described` is the metadata of the innermost part
    around it that says which objects made it, None if none does.
    """

    path: str
    text: str
    described: base_pb2.Metadata | None

    def within(self, step: str) -> "Violation":
        """Return it as seen from one message further out."""
        return self._replace(path=f"{step}.{self.path}" if self.path else step)


_Check = Callable[[Value, str], Violation | None]


def violation(message: Message) -> Violation | None:
    """Return the first thing in a message or all within it that Envoy would refuse."""
    check = _message_check(cast("Descriptor", message.DESCRIPTOR))
    return check(message) if check is not None else None


class _MessageCheck:
    """The rules of one message type."""

    __slots__ = ("_handlers", "_is_described", "_whole")

    def __init__(self) -> None:
        self._whole: tuple[Callable[[Value], Violation | None], ...] = ()
        self._handlers: dict[int, tuple[str, _Check]] = {}
        self._is_described = False

    def compile(self, of: Descriptor) -> None:
        """Fill in the rules; apart from construction because message types contain themselves."""
        rules = _rules().get(of.full_name, {})
        by_field: dict[str, Rules] = rules.get("fields", {})
        whole = [_chosen(oneof) for oneof in rules.get("required_oneofs", ())]
        for field in of.fields:
            rule = by_field.get(field.name, {})
            check = _field_check(field, rule)
            # Members of a oneof are asked for only where they are the chosen one.
            if field.containing_oneof is None and _is_required(rule):
                whole.append(_present(field.name))
            if check is None:
                continue
            if not field.has_presence and _refuses_default(field, rule):
                whole.append(_always(field.name, check))
            else:
                self._handlers[field.number] = (field.name, check)
        if of.full_name in REFUSALS:
            whole.append(_refusal(REFUSALS[of.full_name]))
        self._whole = tuple(whole)
        described = of.fields_by_name.get("metadata")
        inner = described.message_type if described is not None else None
        self._is_described = inner is not None and inner.full_name == _METADATA

    def __call__(self, message: Message) -> Violation | None:
        """Return the first thing wrong."""
        for rule in self._whole:
            found = rule(message)
            if found is not None:
                return self._told(message, found)
        handlers = self._handlers
        if handlers:
            for field, value in message.ListFields():
                handler = handlers.get(field.number)
                if handler is not None:
                    found = handler[1](value, handler[0])
                    if found is not None:
                        return self._told(message, found)
        return None

    def _told(self, message: Message, found: Violation) -> Violation:
        if self._is_described and found.described is None:
            return found._replace(described=cast("_Described", message).metadata)
        return found


class _Described(Protocol):
    """A message that says which objects made it."""

    @property
    def metadata(self) -> base_pb2.Metadata: ...


def _chosen(oneof: str) -> Callable[[Value], Violation | None]:
    missing = Violation(oneof, "is required", None)
    return lambda message: missing if message.WhichOneof(oneof) is None else None


def _present(name: str) -> Callable[[Value], Violation | None]:
    missing = Violation(name, "is required", None)
    return lambda message: None if message.HasField(name) else missing


def _always(name: str, check: _Check) -> Callable[[Value], Violation | None]:
    return lambda message: check(getattr(message, name), name)


def _refusal(refused: Callable[[Value], Problem | None]) -> Callable[[Value], Violation | None]:
    def check(message: Value) -> Violation | None:
        problem = refused(message)
        return None if problem is None else Violation(problem.path, problem.text, None)

    return check


@cache
def _rules() -> dict[str, Any]:
    text = resources.files("pilothouse._pb").joinpath("constraints.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


_COMPILED: Final[dict[str, Callable[[Any], Violation | None] | None]] = {}
"""By message type; filled once for each, whatever is checked later."""


def _message_check(of: Descriptor) -> Callable[[Any], Violation | None] | None:
    name = of.full_name
    if name in _COMPILED:
        return _COMPILED[name]
    if name == _ANY:
        return _check_any
    if name in _FREE or not _has_rules(of):
        _COMPILED[name] = None
        return None
    check = _MessageCheck()
    _COMPILED[name] = check
    check.compile(of)
    return check


def _has_rules(of: Descriptor) -> bool:
    seen = {of.full_name}
    stack = [of]
    while stack:
        current = stack.pop()
        name = current.full_name
        if name == _ANY or name in _rules() or name in REFUSALS:
            return True
        for field in current.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in seen | _FREE:
                seen.add(inner.full_name)
                stack.append(inner)
    return False


def _check_any(message: Value) -> Violation | None:
    return _packed_violation(message.type_url, message.value)


def _remembered(message: Value) -> Violation | None:
    return _packed_violation(message.DESCRIPTOR.full_name, message.SerializeToString())


@lru_cache(maxsize=4096)
def _packed_violation(type_url: str, value: bytes) -> Violation | None:
    # Most packed messages are the same in thousands of resources.
    try:
        made = message_class(type_url.rpartition("/")[2])
    except KeyError:
        return None  # a message of Istio's own Envoy; its rules are not known here
    return violation(made.FromString(value))


def _field_check(field: FieldDescriptor, rule: Rules) -> _Check | None:
    if field.is_repeated:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return _map_check(entry, rule.get("map", {}))
        return _repeated_check(field, rule.get("repeated", {}))
    return _single_check(field, rule)


def _single_check(field: FieldDescriptor, rule: Rules) -> _Check | None:
    own = value_problem(rule, field.enum_type)
    inner = field.message_type
    if inner is None:
        return None if own is None else _value_check(own)
    if rule.get("message", {}).get("skip"):
        return None
    nested = _remembered if inner.full_name in _OFTEN_EQUAL else _message_check(inner)
    deeper = None if nested is None else _nested_check(nested)
    if own is None:
        return deeper
    if "duration" in rule:
        return _both(_value_check(lambda value: own(nanos(value))), deeper)
    # The rules of a UInt32Value and its like are about what it wraps.
    return _value_check(lambda value: own(value.value))


def _both(first: _Check, second: _Check | None) -> _Check:
    if second is None:
        return first

    def check(value: Value, name: str) -> Violation | None:
        found = first(value, name)
        return second(value, name) if found is None else found

    return check


def _value_check(problem: Callable[[Any], str]) -> _Check:
    def check(value: Value, name: str) -> Violation | None:
        text = problem(value)
        return Violation(name, text, None) if text else None

    return check


def _nested_check(nested: Callable[[Any], Violation | None]) -> _Check:
    def check(value: Value, name: str) -> Violation | None:
        found = nested(value)
        return found.within(name) if found is not None else None

    return check


def _repeated_check(field: FieldDescriptor, rule: Rules) -> _Check | None:
    each = _single_check(field, rule.get("items", {}))
    least, most = rule.get("min_items", 0), rule.get("max_items")
    is_unique = bool(rule.get("unique"))
    if each is None and not least and most is None and not is_unique:
        return None

    def check(values: Value, name: str) -> Violation | None:
        if len(values) < least:
            return Violation(name, f"needs at least {least}", None)
        if most is not None and len(values) > most:
            return Violation(name, f"may have at most {most}", None)
        if is_unique and len(set(values)) < len(values):
            return Violation(name, "has a value twice", None)
        return _first(values, name, each) if each is not None else None

    return check


def _first(values: Value, name: str, each: _Check) -> Violation | None:
    for index, value in enumerate(values):
        found = each(value, name)
        if found is not None:
            return found._replace(path=found.path.replace(name, f"{name}[{index}]", 1))
    return None


def _map_check(entry: Descriptor, rule: Rules) -> _Check | None:
    keys = value_problem(rule.get("keys", {}), None)
    each = _single_check(entry.fields_by_name["value"], rule.get("values", {}))
    least = rule.get("min_pairs", 0)
    if keys is None and each is None and not least:
        return None

    def violations(values: Value, name: str) -> Iterator[Violation | None]:
        if len(values) < least:
            yield Violation(name, f"needs at least {least}", None)
        for key in sorted(values):
            if keys is not None and (text := keys(key)):
                yield Violation(name, f"has a key that {text}", None)
            if each is not None:
                yield each(values[key], name)

    return lambda values, name: next(filter(None, violations(values, name)), None)


def _is_required(rule: Rules) -> bool:
    return any(rule.get(kind, {}).get("required") for kind in ("message", "duration", "any"))


def _refuses_default(field: FieldDescriptor, rule: Rules) -> bool:
    """Tell whether an absent value breaks a rule; an absent value is not listed as set."""
    if field.is_repeated:
        kind = "map" if "map" in rule else "repeated"
        return bool(rule.get(kind, {}).get("min_items") or rule.get(kind, {}).get("min_pairs"))
    problem = value_problem(rule, field.enum_type)
    return problem is not None and bool(problem(field.default_value))
