"""Bring the descriptors up to the newer API: graft what only `envoy-data-plane` knows.

The descriptors of `xds-protos` are the base, because they carry true file names, enum value
names and validation rules. Fields, values, messages and enums that only the newer class
metadata has are added. Nothing of the base is dropped; where both name the same field number
differently the newer one wins and the difference is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2

from schema_dataplane import FieldRecord, PackageRecord

_Field = descriptor_pb2.FieldDescriptorProto
_Files = dict[str, descriptor_pb2.FileDescriptorProto]

_KINDS = {
    "BOOL": _Field.TYPE_BOOL,
    "BYTES": _Field.TYPE_BYTES,
    "DOUBLE": _Field.TYPE_DOUBLE,
    "ENUM": _Field.TYPE_ENUM,
    "FIXED32": _Field.TYPE_FIXED32,
    "FIXED64": _Field.TYPE_FIXED64,
    "FLOAT": _Field.TYPE_FLOAT,
    "INT32": _Field.TYPE_INT32,
    "INT64": _Field.TYPE_INT64,
    "MESSAGE": _Field.TYPE_MESSAGE,
    "SFIXED32": _Field.TYPE_SFIXED32,
    "SFIXED64": _Field.TYPE_SFIXED64,
    "SINT32": _Field.TYPE_SINT32,
    "SINT64": _Field.TYPE_SINT64,
    "STRING": _Field.TYPE_STRING,
    "UINT32": _Field.TYPE_UINT32,
    "UINT64": _Field.TYPE_UINT64,
}


class SchemaConflict(RuntimeError):
    """The two schema sources cannot be joined into one set of files."""


@dataclass(slots=True, kw_only=True)
class MergeReport:
    """What the graft changed, for people and for the generator's tests."""

    added_files: list[str] = field(default_factory=list)
    added_messages: list[str] = field(default_factory=list)
    added_enums: list[str] = field(default_factory=list)
    added_fields: list[str] = field(default_factory=list)
    added_values: list[str] = field(default_factory=list)
    replaced_fields: list[str] = field(default_factory=list)
    unknown_upstream: list[str] = field(default_factory=list)


def _flat(name: str) -> str:
    """Fold a dotted proto name to what a flattened class name folds to."""
    return re.sub(r"[._]", "", name).lower()


def _walk(
    messages: list[descriptor_pb2.DescriptorProto], prefix: str
) -> Iterator[tuple[str, descriptor_pb2.DescriptorProto]]:
    for message in messages:
        name = f"{prefix}{message.name}"
        yield name, message
        yield from _walk(list(message.nested_type), f"{name}.")


class _Package:
    """Messages and enums of one proto package across its files, by dotted name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: list[descriptor_pb2.FileDescriptorProto] = []
        self.messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        self.enums: dict[str, descriptor_pb2.EnumDescriptorProto] = {}

    def add_file(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self.files.append(file)
        for enum in file.enum_type:
            self.enums[enum.name] = enum
        for name, message in _walk(list(file.message_type), ""):
            self.messages[name] = message
            for enum in message.enum_type:
                self.enums[f"{name}.{enum.name}"] = enum


class Merger:
    """Grafts package records onto a set of descriptors, in place."""

    def __init__(self, files: _Files) -> None:
        self.files = files
        self.report = MergeReport()
        self._packages: dict[str, _Package] = {}
        for file in files.values():
            self._package(file.package).add_file(file)

    def _package(self, name: str) -> _Package:
        return self._packages.setdefault(name, _Package(name))

    def graft(self, records: dict[str, PackageRecord]) -> None:
        """Add everything the records have and the files lack."""
        new_messages: set[str] = set()
        for record in records.values():
            self._graft_names(record, new_messages)
        for record in records.values():
            package = self._package(record.name)
            for name, fields in record.messages.items():
                is_new = f"{record.name}.{name}" in new_messages
                self._graft_fields(package, name, fields, records, is_new=is_new)

    def _graft_names(self, record: PackageRecord, new_messages: set[str]) -> None:
        package = self._package(record.name)
        sources = [source for source in record.sources if source not in self.files]
        for name in sorted(record.messages):
            if name in package.messages:
                continue
            parent, _, leaf = name.rpartition(".")
            if parent:
                message = package.messages[parent].nested_type.add(name=leaf)
            else:
                message = self._file_for(record, leaf, sources).message_type.add(name=leaf)
            package.messages[name] = message
            new_messages.add(f"{record.name}.{name}")
            self.report.added_messages.append(f"{record.name}.{name}")
        for class_name, values in record.enums.items():
            self._graft_enum(record, class_name, values, sources)
        for name in set(package.messages) - set(record.messages):
            if not package.messages[name].options.map_entry:
                self.report.unknown_upstream.append(f"{record.name}.{name}")

    def _graft_enum(
        self,
        record: PackageRecord,
        class_name: str,
        values: list[tuple[str, int]],
        sources: list[str],
    ) -> None:
        package = self._package(record.name)
        name = _resolve(class_name, package.enums)
        if name is None:
            parents = [
                message
                for message in package.messages
                if _flat(class_name).startswith(_flat(message)) and _flat(message)
            ]
            parent = max(parents, key=lambda message: len(_flat(message)), default="")
            leaf = class_name[len(_flat(parent)) :]
            if parent:
                enum = package.messages[parent].enum_type.add(name=leaf)
            else:
                enum = self._file_for(record, leaf, sources).enum_type.add(name=leaf)
            name = f"{parent}.{leaf}" if parent else leaf
            package.enums[name] = enum
            self.report.added_enums.append(f"{package.name}.{name}")
        enum = package.enums[name]
        numbers = {value.number for value in enum.value}
        for value_name, number in values:
            if number not in numbers:
                enum.value.add(name=value_name, number=number)
                self.report.added_values.append(f"{package.name}.{name}.{value_name}")

    def _file_for(
        self, record: PackageRecord, leaf: str, new_sources: list[str]
    ) -> descriptor_pb2.FileDescriptorProto:
        """Choose the file of a new top-level type; the metadata does not tell.

        First a file only the newer API has, then the file of a message that uses the type
        (which cannot close an import cycle), then the file whose stem is most like the name.
        """
        package = self._package(record.name)
        words = set(re.findall(r"[A-Z][a-z0-9]*", leaf))

        def likeness(path: str) -> tuple[int, str]:
            stem = path.rpartition("/")[2].removesuffix(".proto")
            return -len(words & {word.title() for word in stem.split("_")}), path

        users = [] if new_sources else self._users(record, leaf)
        path = min(new_sources or users or [file.name for file in package.files], key=likeness)
        if path not in self.files:
            file = descriptor_pb2.FileDescriptorProto(
                name=path, package=package.name, syntax="proto3"
            )
            self.files[path] = file
            package.add_file(file)
            self.report.added_files.append(path)
        return self.files[path]

    def _users(self, record: PackageRecord, leaf: str) -> list[str]:
        """Files of the package that already hold a message with a field of type `leaf`."""
        names = {
            name.partition(".")[0]
            for name, fields in record.messages.items()
            if any(known.type_ref == (record.name, leaf) for known in fields)
        }
        return [
            file.name
            for file in self._package(record.name).files
            if names & {message.name for message in file.message_type}
        ]

    def _graft_fields(
        self,
        package: _Package,
        name: str,
        fields: list[FieldRecord],
        records: dict[str, PackageRecord],
        *,
        is_new: bool,
    ) -> None:
        message = package.messages[name]
        by_number = {known.number: known for known in message.field}
        for record in fields:
            path = f"{package.name}.{name}.{record.name}"
            known = by_number.get(record.number)
            if known is not None and known.name == record.name:
                continue
            if known is not None:
                if _flat(known.name) == _flat(record.name):
                    continue  # same field, only its casing was changed for Python
                self.report.replaced_fields.append(f"{path} (was {known.name})")
                message.field.remove(known)
            elif not is_new:
                self.report.added_fields.append(path)
            self._add_field(package, name, message, record, records)
        _order_oneofs(message)

    def _add_field(
        self,
        package: _Package,
        message_name: str,
        message: descriptor_pb2.DescriptorProto,
        record: FieldRecord,
        records: dict[str, PackageRecord],
    ) -> None:
        added = message.field.add(
            name=record.name,
            number=record.number,
            json_name=_json_name(record.name),
            label=_Field.LABEL_REPEATED
            if record.is_repeated or record.map_kinds
            else _Field.LABEL_OPTIONAL,
        )
        if record.map_kinds is not None:
            added.type = _Field.TYPE_MESSAGE
            added.type_name = self._add_map_entry(package, message_name, record, records)
            return
        added.type = _KINDS[record.kind]
        if record.type_ref is not None:
            added.type_name = self._type_name(record, records)
        if record.oneof is not None:
            added.oneof_index = _oneof(message, record.oneof)
        elif record.is_optional and record.type_ref is None:
            added.proto3_optional = True
            added.oneof_index = _oneof(message, f"_{record.name}")

    def _add_map_entry(
        self,
        package: _Package,
        message_name: str,
        record: FieldRecord,
        records: dict[str, PackageRecord],
    ) -> str:
        assert record.map_kinds is not None
        entry_name = "".join(part.title() for part in record.name.split("_")) + "Entry"
        entry = package.messages[message_name].nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for number, (name, kind) in enumerate(
            zip(("key", "value"), record.map_kinds, strict=True), start=1
        ):
            part = entry.field.add(
                name=name,
                number=number,
                json_name=name,
                label=_Field.LABEL_OPTIONAL,
                type=_KINDS[kind],
            )
            if name == "value" and record.type_ref is not None:
                part.type_name = self._type_name(record, records)
        return f".{package.name}.{message_name}.{entry_name}"

    def _type_name(self, record: FieldRecord, records: dict[str, PackageRecord]) -> str:
        assert record.type_ref is not None
        package_name, class_name = record.type_ref
        if package_name == "google.protobuf":
            return f".{package_name}.{class_name}"
        known = records[package_name].message_names.get(class_name)
        if known is None:
            known = _resolve(class_name, self._package(package_name).enums)
        if known is None:
            message = f"cannot resolve {package_name}.{class_name} for field {record.name}"
            raise SchemaConflict(message)
        return f".{package_name}.{known}"


def _resolve(class_name: str, names: dict[str, descriptor_pb2.EnumDescriptorProto]) -> str | None:
    wanted = _flat(class_name)
    return next((name for name in names if _flat(name) == wanted), None)


def _json_name(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


def _oneof(message: descriptor_pb2.DescriptorProto, name: str) -> int:
    for index, known in enumerate(message.oneof_decl):
        if known.name == name:
            return index
    message.oneof_decl.add(name=name)
    return len(message.oneof_decl) - 1


def _order_oneofs(message: descriptor_pb2.DescriptorProto) -> None:
    """Restore the order protobuf demands after fields were appended.

    Fields of one oneof stand together; synthetic oneofs (of proto3 optional fields) come last.
    """
    first_place: dict[int, int] = {}
    fields = list(message.field)
    for place, known in enumerate(fields):
        if known.HasField("oneof_index"):
            first_place.setdefault(known.oneof_index, place)

    def position(item: tuple[int, _Field]) -> tuple[int, int]:
        place, known = item
        if known.HasField("oneof_index"):
            return first_place[known.oneof_index], place
        return place, place

    ordered = [known for _, known in sorted(enumerate(fields), key=position)]
    copies = [_Field.FromString(known.SerializeToString()) for known in ordered]
    synthetic = {known.oneof_index for known in copies if known.proto3_optional}
    oneofs = sorted(first_place, key=lambda index: (index in synthetic, index))
    place_of = {old: new for new, old in enumerate(oneofs)}
    names = [oneof.name for oneof in message.oneof_decl]
    for known in copies:
        if known.HasField("oneof_index"):
            known.oneof_index = place_of[known.oneof_index]
    del message.field[:]
    message.field.extend(copies)
    del message.oneof_decl[:]
    for index in oneofs:
        message.oneof_decl.add(name=names[index])
