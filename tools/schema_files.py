"""Cut the merged descriptors down to what a control plane needs.

Chooses the files, drops annotation options and source information, and rewrites each file's
imports from the types it really refers to (annotation imports vanish with the annotations).
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from schema_merge import SchemaConflict

_Files = dict[str, descriptor_pb2.FileDescriptorProto]

#: Proto path prefixes kept; what they refer to is kept with them.
_KEPT_PREFIXES = (
    "envoy/admin/v3/",
    "envoy/config/",
    "envoy/data/",
    "envoy/extensions/",
    "envoy/service/",
    "envoy/type/",
    "envoy/watchdog/",
    "google/protobuf/",
    "google/rpc/",
    "istio/",
    "opentelemetry/proto/",
    "udpa/type/",
    "xds/core/",
    "xds/data/",
    "xds/service/",
    "xds/type/",
)


def _is_legacy(path: str) -> bool:
    """Envoy's removed v2 API; only reached when something kept still refers to it."""
    return path.startswith("envoy/") and any(
        part.startswith(("v1", "v2")) for part in path.split("/")
    )


def cut(files: _Files) -> list[descriptor_pb2.FileDescriptorProto]:
    """Return stripped copies of the kept files, every file after those it imports."""
    owners = {symbol: path for path, file in files.items() for symbol in symbols(file)}
    roots = [
        path
        for path, file in sorted(files.items())
        if path.startswith(_KEPT_PREFIXES)
        and not _is_legacy(path)
        and (file.message_type or file.enum_type)
    ]
    stripped: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    active: list[str] = []

    def visit(path: str) -> None:
        if path in stripped:
            return
        if path in active:
            cycle = " -> ".join((*active[active.index(path) :], path))
            message = f"import cycle between proto files: {cycle}"
            raise SchemaConflict(message)
        active.append(path)
        file = _strip(files[path])
        needed = {owners[reference] for reference in _references(file)} - {path}
        file.dependency.extend(sorted(needed))
        for dependency in file.dependency:
            visit(dependency)
        active.pop()
        stripped[path] = file

    for root in roots:
        visit(root)
    return list(stripped.values())


def symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    """Yield the full names of every message and enum, nested ones included."""
    prefix = f"{file.package}." if file.package else ""
    for enum in file.enum_type:
        yield f"{prefix}{enum.name}"
    for message in file.message_type:
        yield from _message_symbols(message, prefix)


def _message_symbols(message: descriptor_pb2.DescriptorProto, prefix: str) -> Iterator[str]:
    name = f"{prefix}{message.name}"
    yield name
    for enum in message.enum_type:
        yield f"{name}.{enum.name}"
    for nested in message.nested_type:
        yield from _message_symbols(nested, f"{name}.")


def _references(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        for known in message.field:
            if known.type_name:
                yield known.type_name.removeprefix(".")


def _strip(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    for attribute in (
        "dependency",
        "public_dependency",
        "weak_dependency",
        "service",
        "extension",
        "options",
        "source_code_info",
    ):
        copy.ClearField(attribute)
    for enum in copy.enum_type:
        _strip_enum(enum)
    for message in copy.message_type:
        _strip_message(message)
    return copy


def _strip_message(message: descriptor_pb2.DescriptorProto) -> None:
    is_map_entry = message.options.map_entry
    message.ClearField("options")
    message.ClearField("extension")
    if is_map_entry:
        message.options.map_entry = True
    for known in message.field:
        kept = descriptor_pb2.FieldOptions()
        if known.options.deprecated:
            kept.deprecated = True
        if known.options.HasField("packed"):
            kept.packed = known.options.packed
        known.ClearField("options")
        if kept.ByteSize():
            known.options.CopyFrom(kept)
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for enum in message.enum_type:
        _strip_enum(enum)
    for nested in message.nested_type:
        _strip_message(nested)


def _strip_enum(enum: descriptor_pb2.EnumDescriptorProto) -> None:
    allows_alias = enum.options.allow_alias
    enum.ClearField("options")
    if allows_alias:
        enum.options.allow_alias = True
    for value in enum.value:
        is_deprecated = value.options.deprecated
        value.ClearField("options")
        if is_deprecated:
            value.options.deprecated = True
