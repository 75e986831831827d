"""Extract Envoy's validation rules and secrecy marks before options are stripped.

Envoy refuses resources that break its protoc-gen-validate rules. Keeping the rules as plain
data lets Pilothouse refuse them first, at the user's object, without carrying the annotation
protos in the product.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    message,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import FieldDescriptor

_WELL_KNOWN = (
    descriptor_pb2,
    any_pb2,
    duration_pb2,
    empty_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
_ANNOTATIONS = ("validate/validate.proto", "udpa/annotations/sensitive.proto")

_Files = dict[str, descriptor_pb2.FileDescriptorProto]


class _OptionReader:
    """Parses options against the annotation protos, in a pool of its own."""

    def __init__(self, files: _Files) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for module in _WELL_KNOWN:
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        for path in _ANNOTATIONS:
            self._pool.AddSerializedFile(files[path].SerializeToString())
        self._rules = self._pool.FindExtensionByName("validate.rules")
        self._required = self._pool.FindExtensionByName("validate.required")
        self._sensitive = self._pool.FindExtensionByName("udpa.annotations.sensitive")

    def _extension(self, options: message.Message, extension: FieldDescriptor) -> Any:  # noqa: ANN401
        # A class made from the pool at run time has no type stub, hence Any.
        descriptor = self._pool.FindMessageTypeByName(options.DESCRIPTOR.full_name)
        cls: Any = message_factory.GetMessageClass(descriptor)
        return cls.FromString(options.SerializeToString()).Extensions[extension]

    def rules(self, options: descriptor_pb2.FieldOptions) -> dict[str, Any]:
        return _plain(self._extension(options, self._rules))

    def is_sensitive(self, options: descriptor_pb2.FieldOptions) -> bool:
        return bool(self._extension(options, self._sensitive))

    def is_required(self, options: descriptor_pb2.OneofOptions) -> bool:
        return bool(self._extension(options, self._required))


def extract(files: _Files) -> dict[str, dict[str, Any]]:
    """Return rules by message full name.

    Shape: `{"fields": {field: rules}, "required_oneofs": [...], "sensitive_fields": [...]}`,
    parts absent when empty. `rules` mirrors the annotation, e.g. `{"string": {"min_len": 1}}`;
    durations are texts such as `"0.001s"`, bytes are Latin-1 texts.
    """
    reader = _OptionReader(files)
    found: dict[str, dict[str, Any]] = {}
    for file in files.values():
        for descriptor in file.message_type:
            _collect(descriptor, file.package, reader, found)
    return dict(sorted(found.items()))


def _collect(
    descriptor: descriptor_pb2.DescriptorProto,
    prefix: str,
    reader: _OptionReader,
    found: dict[str, dict[str, Any]],
) -> None:
    name = f"{prefix}.{descriptor.name}"
    optioned = [known for known in descriptor.field if known.HasField("options")]
    entry = {
        "fields": {
            known.name: rules for known in optioned if (rules := reader.rules(known.options))
        },
        "required_oneofs": [
            oneof.name
            for oneof in descriptor.oneof_decl
            if oneof.HasField("options") and reader.is_required(oneof.options)
        ],
        "sensitive_fields": [
            known.name for known in optioned if reader.is_sensitive(known.options)
        ],
    }
    if any(entry.values()):
        found[name] = {part: value for part, value in entry.items() if value}
    for nested in descriptor.nested_type:
        _collect(nested, name, reader, found)


def _plain(rules: message.Message) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for descriptor, value in rules.ListFields():
        if descriptor.is_repeated:
            plain[descriptor.name] = [_plain_value(part) for part in value]
        else:
            plain[descriptor.name] = _plain_value(value)
    return plain


def _plain_value(value: Any) -> Any:  # noqa: ANN401 - whatever kind the annotation field has
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, message.Message):
        return value
    if value.DESCRIPTOR.full_name == "google.protobuf.Duration":
        return value.ToJsonString()  # type: ignore[attr-defined]
    return _plain(value)
