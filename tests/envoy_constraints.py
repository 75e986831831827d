"""
What Envoy demands of a message beyond its schema, checked without an Envoy.

Reads the validation rules that come with the generated protobuf package; covers the kinds of rule
that occur in what we build (lengths, ranges, required fields and oneofs), not every kind there is.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pilothouse._pb._pool import message_class


@cache
def _rules() -> dict[str, Any]:
    text = resources.files("pilothouse._pb").joinpath("constraints.json").read_text()
    return json.loads(text)


def violations(message: Message, path: str = "") -> Iterator[str]:
    """Yield what Envoy would refuse in a message and all within it."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        inner = message_class(message.type_url.rpartition("/")[2])
        yield from violations(inner.FromString(message.value), f"{path}@")
        return
    rules = _rules().get(name, {})
    for oneof in rules.get("required_oneofs", ()):
        if message.WhichOneof(oneof) is None:
            yield f"{path}: one of {oneof} is required"
    for field_name, rule in rules.get("fields", {}).items():
        field = message.DESCRIPTOR.fields_by_name[field_name]
        yield from _field_violations(message, field, rule, f"{path}.{field_name}")
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            children = value.values() if hasattr(value, "values") else ()
        else:
            children = value if field.is_repeated else (value,)
        for child in children:
            if isinstance(child, Message):
                yield from violations(child, f"{path}.{field.name}")


def _field_violations(
    message: Message, field: FieldDescriptor, rule: dict[str, Any], path: str
) -> Iterator[str]:
    if field.is_repeated:
        least = rule.get("repeated", {}).get("min_items", 0)
        if len(getattr(message, field.name)) < least:
            yield f"{path}: fewer than {least}"
        return
    if field.has_presence and not message.HasField(field.name):
        if field.containing_oneof is not None:
            return  # asked for only where it is the chosen one
        if any(rule.get(kind, {}).get("required") for kind in ("message", "duration")):
            yield f"{path}: required"
        return
    value = _unwrapped(getattr(message, field.name))
    if "string" in rule:
        if len(value) < rule["string"].get("min_len", 0):
            yield f"{path}: too short"
        if set("\0\r\n") & set(value):
            yield f"{path}: control character"
    for kind in ("uint32", "int32", "uint64", "int64"):
        if kind in rule and not _is_within(value, rule[kind]):
            yield f"{path}: {value} is out of range"
    if rule.get("duration", {}).get("gt") == "0s" and value.ToNanoseconds() <= 0:
        yield f"{path}: must be longer than nothing"


def _is_within(value: int, limits: dict[str, int]) -> bool:
    return limits.get("gte", value) <= value <= limits.get("lte", value) and limits.get(
        "gt", value - 1
    ) < value < limits.get("lt", value + 1)


def _unwrapped(value: Any) -> Any:
    # The rules of a UInt32Value and its like are about what it wraps.
    is_wrapper = isinstance(value, Message) and value.DESCRIPTOR.full_name.endswith("Value")
    return getattr(value, "value", value) if is_wrapper else value
