"""Write the generated package: modules, type stubs, descriptors, index and constraints."""

from __future__ import annotations

import importlib.resources
import json
import keyword
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

_PACKAGE = "pilothouse._pb"
_MODULE = '''"""Generated from {path}; do not edit."""

from pilothouse._pb._pool import load

DESCRIPTOR = load(globals(), "{path}")
'''


class CompilerFailed(RuntimeError):
    """`protoc` refused its input; its messages went to standard error."""


def compile_protos(root: Path) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Compile our own proto files and the well-known types; return descriptors by path."""
    bundled = Path(str(importlib.resources.files("grpc_tools"))) / "_proto"
    well_known = sorted(
        f"google/protobuf/{name}.proto"
        for name in (
            "any",
            "descriptor",
            "duration",
            "empty",
            "field_mask",
            "struct",
            "timestamp",
            "wrappers",
        )
    )
    own = sorted(str(path.relative_to(root)) for path in root.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "set.bin"
        _protoc(f"-I{root}", f"-I{bundled}", f"--descriptor_set_out={out}", *well_known, *own)
        compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in compiled.file}


def write_package(
    target: Path,
    files: list[descriptor_pb2.FileDescriptorProto],
    constraints: dict[str, dict[str, Any]],
    digest: str,
) -> None:
    """Replace `target` with a freshly generated package.

    Written beside the target first, so that an interrupted run leaves the old one whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="._pb-") as scratch:
        fresh = Path(scratch) / "_pb"
        fresh.mkdir()
        _write_modules(fresh, files)
        _write_stubs(fresh, files)
        _write_index(fresh, files)
        for folder in sorted(path for path in fresh.rglob("*") if path.is_dir()):
            (folder / "__init__.py").touch()
        (fresh / "__init__.py").write_text(
            '"""Generated protobuf messages in a private descriptor pool; do not edit."""\n',
            encoding="utf-8",
        )
        shutil.copyfile(Path(__file__).with_name("private_pool.py"), fresh / "_pool.py")
        (fresh / "constraints.json").write_text(
            json.dumps(constraints, sort_keys=True, separators=(",", ":")), encoding="utf-8"
        )
        (fresh / "inputs.sha256").write_text(f"{digest}\n", encoding="utf-8")
        if target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)


def _module_path(proto_path: str) -> str:
    stem = proto_path.removesuffix(".proto").replace("-", "_")
    parts = stem.split("/")
    if any(keyword.iskeyword(part) for part in parts):
        message = f"{proto_path} has a Python keyword in its path"
        raise CompilerFailed(message)
    return f"{stem}_pb2"


def _write_modules(fresh: Path, files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    for file in files:
        module = fresh / f"{_module_path(file.name)}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(_MODULE.format(path=file.name), encoding="utf-8")


def _write_stubs(fresh: Path, files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        descriptor_set = Path(scratch) / "set.bin"
        out = Path(scratch) / "stubs"
        out.mkdir()
        descriptor_set.write_bytes(
            descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True)
        )
        _protoc(
            f"--descriptor_set_in={descriptor_set}",
            f"--pyi_out={out}",
            *(file.name for file in files),
        )
        # Only generated modules move; protobuf's own Python support stays an outside import.
        ours = re.compile(r"^(from|import) ((?:[\w.]+ import )?\w*_pb2\b)", re.MULTILINE)
        for stub in sorted(out.rglob("*.pyi")):
            text = ours.sub(rf"\1 {_PACKAGE}.\2", stub.read_text(encoding="utf-8"))
            (fresh / stub.relative_to(out)).write_text(text, encoding="utf-8")


def _write_index(fresh: Path, files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    blob = bytearray()
    places: dict[str, tuple[int, int]] = {}
    owners: dict[str, str] = {}
    for file in files:
        serialized = file.SerializeToString(deterministic=True)
        places[file.name] = (len(blob), len(serialized))
        blob += serialized
        names = [message.name for message in file.message_type]
        names += [enum.name for enum in file.enum_type]
        owners |= {f"{file.package}.{name}": file.name for name in names}
    lines = ['"""Generated: where each proto file lies in descriptors.bin; do not edit."""', ""]
    lines.append("FILES: dict[str, tuple[int, int]] = {")
    lines += [f'    "{path}": {place},' for path, place in sorted(places.items())]
    lines += ["}", "", "#: Top-level message and enum names to the file that defines them.", ""]
    lines.append("SYMBOLS: dict[str, str] = {")
    lines += [f'    "{symbol}": "{path}",' for symbol, path in sorted(owners.items())]
    lines += ["}", ""]
    (fresh / "_index.py").write_text("\n".join(lines), encoding="utf-8")
    (fresh / "descriptors.bin").write_bytes(bytes(blob))


def _protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]):
        message = f"protoc failed: {' '.join(arguments[:4])} ..."
        raise CompilerFailed(message)
