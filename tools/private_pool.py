"""The private descriptor pool behind `pilothouse._pb`, and its only door.

Why private: other libraries in the process (OpenTelemetry, Google APIs, xds-protos) register
messages of the same full names in protobuf's default pool; a second definition there fails at
import. Why lazy: the set holds the whole Envoy API, and a process uses a small part; a file's
descriptors are parsed when its module, or a type that refers to it, is first used.

This file is copied into the generated package as `_pool.py`. It may import protobuf and the
generated index, nothing else of Pilothouse.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal import builder

from pilothouse._pb import _index

__all__ = ["POOL", "load", "message_class"]


class _DescriptorDatabase:
    """Answers the pool's questions from `descriptors.bin`."""

    def __init__(self) -> None:
        self._blob = resources.files(__package__).joinpath("descriptors.bin").read_bytes()

    def FindFileByName(self, name: str) -> descriptor_pb2.FileDescriptorProto:  # noqa: N802
        """Return one file; KeyError means "no such file" to the pool."""
        offset, length = _index.FILES[name]
        return descriptor_pb2.FileDescriptorProto.FromString(self._blob[offset : offset + length])

    def FindFileContainingSymbol(  # noqa: N802
        self, symbol: str
    ) -> descriptor_pb2.FileDescriptorProto:
        """Return the file of a message, enum or service; nested names resolve outwards."""
        outer = symbol
        while outer:
            if outer in _index.SYMBOLS:
                return self.FindFileByName(_index.SYMBOLS[outer])
            outer = outer.rpartition(".")[0]
        raise KeyError(symbol)


#: Pass this as `descriptor_pool=` to `google.protobuf.json_format` when `Any` may occur.
POOL = descriptor_pool.DescriptorPool(_DescriptorDatabase())


def load(namespace: dict[str, Any], proto_path: str) -> FileDescriptor:
    """Fill a generated module's namespace with the classes of one proto file."""
    descriptor = POOL.FindFileByName(proto_path)
    builder.BuildMessageAndEnumDescriptors(descriptor, namespace)
    builder.BuildTopDescriptorsAndMessages(descriptor, namespace["__name__"], namespace)
    return descriptor


def message_class(full_name: str) -> type[message.Message]:
    """Return the class of a message by full name, such as the tail of an `Any`'s type URL.

    Raises `KeyError` if the set has no such message.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
