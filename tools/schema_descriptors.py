"""Read file descriptors out of `xds-protos` without importing it.

Its generated modules carry them serialized. They are read as text (`ast`): importing would put
Envoy's messages into protobuf's default pool, and the wheel into somebody's environment.
"""

from __future__ import annotations

import ast
import importlib.metadata

from google.protobuf import descriptor_pb2

from schema_sources import python_files


def read_descriptors(
    distribution: importlib.metadata.Distribution,
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Return every file descriptor the distribution's `_pb2` modules hold, by proto path."""
    files = {}
    for path in python_files(distribution, "_pb2.py").values():
        serialized = _serialized_file(ast.parse(path.read_text(encoding="utf-8")))
        if serialized is not None:
            descriptor = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            files[descriptor.name] = descriptor
    return files


def _serialized_file(tree: ast.Module) -> bytes | None:
    """Find the argument of `AddSerializedFile(b"...")` in a generated module."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "AddSerializedFile"
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, bytes)
        ):
            return node.args[0].value
    return None
