"""
Reads bytes a second time, with a decoder that shares nothing with ours, into comparable data.

`ours` walks a protobuf message through its descriptors, `theirs` a betterproto2 message through its
dataclass fields. Both give nested dicts of what is set: Any opened, wrappers as their value,
durations in seconds, enums as numbers, bytes as hex.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pilothouse._pb._pool import message_class

WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
UNREADABLE: Final = {
    "udpa.type.v1.TypedStruct": "not part of envoy-data-plane, which has xds.type.v3 only",
}
"""Types the other decoder lacks, and why; inside an Any they are compared byte for byte."""

_TYPES: Final = importlib.import_module("envoy_data_plane.message_pool").default_message_pool
_PREFIX: Final = "type.googleapis.com/"


def ours(type_url: str, data: bytes) -> dict[str, Any]:
    """Decode with our generated messages."""
    return _message(message_class(type_url.removeprefix(_PREFIX)).FromString(data))


def theirs(type_url: str, data: bytes) -> dict[str, Any]:
    """Decode with envoy-data-plane."""
    if type_url not in _TYPES.url_to_type:
        # Its classes are known to its pool once their package has been imported.
        parts = type_url.removeprefix(_PREFIX).split(".")
        package = ".".join(part for part in parts if part[0].islower())
        importlib.import_module(f"envoy_data_plane.{package}")
    return _foreign(_TYPES.url_to_type[type_url].parse(data))


def _opened(type_url: str, data: bytes, read: Callable[[str, bytes], Any]) -> dict[str, Any]:
    if type_url.removeprefix(_PREFIX) in UNREADABLE:
        return {"@type": type_url, "unread": data.hex()}
    return {"@type": type_url, **read(type_url, data)}


def _message(message: Message) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        return _opened(message.type_url, message.value, ours)
    if name in WRAPPERS:
        return _scalar(message.value)
    if name == "google.protobuf.Duration":
        return message.seconds + message.nanos / 1e9
    if name == "google.protobuf.Value" and message.WhichOneof("kind") == "null_value":
        return {"null_value": 0}
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if is_message and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        nested = of.type == FieldDescriptor.TYPE_MESSAGE
        return {key: _message(value[key]) if nested else _scalar(value[key]) for key in value}
    if field.is_repeated:
        return [_message(each) if is_message else _scalar(each) for each in value]
    return _message(value) if is_message else _scalar(value)


def _scalar(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _foreign(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {key: _foreign(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_foreign(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    if type(value).__name__ == "Any":
        return _opened(value.type_url, value.value, theirs)
    found = {}
    for field in dataclasses.fields(value):
        meta = field.metadata["betterproto"]
        held = getattr(value, field.name)
        has_presence = meta.optional or meta.group or dataclasses.is_dataclass(held)
        if held is None or (not held and not has_presence):
            continue
        found[field.name.removesuffix("_")] = _foreign(held)
    return found
