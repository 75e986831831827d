"""Generate `pilothouse._pb`, the private protobuf package.

    python tools/gen_protos.py [--schema-path DIR] [--target DIR] [--force] [--report]
    python tools/gen_protos.py --list-schema

Inputs: the pinned schema distributions (`schema_sources.SCHEMA_PINS`), our own files below
`tools/proto/`, and the generator itself. A digest of all of them is kept beside the output, so
that an unchanged run does nothing. The output depends on the inputs only.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import time
from pathlib import Path

from schema_sources import SCHEMA_PINS, SchemaSourceMissing, locate

_TOOLS = Path(__file__).resolve().parent
_DEFAULT_TARGET = _TOOLS.parent / "src" / "pilothouse" / "_pb"
#: The annotation and protobuf packages of envoy-data-plane are its runtime's, not schema.
_NOT_GRAFTED = frozenset({"google.protobuf", "validate"})


def requirements() -> list[str]:
    """What the generator needs, exactly pinned: the schema and the compiler."""
    pins = {**SCHEMA_PINS, "grpcio-tools": "1.85.1"}
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def inputs_digest() -> str:
    """Digest of everything the output depends on, schema versions included."""
    digest = hashlib.sha256()
    digest.update("\n".join(requirements()).encode())
    sources = [_TOOLS / "gen_protos.py", _TOOLS / "private_pool.py", *_TOOLS.glob("schema_*.py")]
    for path in sorted((*sources, *(_TOOLS / "proto").rglob("*.proto"))):
        digest.update(f"{path.relative_to(_TOOLS)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current(target: Path = _DEFAULT_TARGET) -> bool:
    """Whether `target` was generated from exactly the present inputs."""
    recorded = target / "inputs.sha256"
    return recorded.is_file() and recorded.read_text(encoding="utf-8").strip() == inputs_digest()


def generate(target: Path = _DEFAULT_TARGET, schema_path: list[str] | None = None) -> str:
    """Write the package to `target`; return a report of what was joined, one fact a line.

    `schema_path` lists directories holding the schema distributions (default: `sys.path`).
    Raises `schema_sources.SchemaSourceMissing` if they are not there.
    """
    digest = inputs_digest()
    # Imported here: these need grpcio-tools, which the digest check above does not.
    import schema_constraints  # noqa: PLC0415
    import schema_dataplane  # noqa: PLC0415
    import schema_descriptors  # noqa: PLC0415
    import schema_emit  # noqa: PLC0415
    import schema_files  # noqa: PLC0415
    import schema_merge  # noqa: PLC0415

    began = time.perf_counter()
    compiled = schema_emit.compile_protos(_TOOLS / "proto")
    files = schema_descriptors.read_descriptors(locate("xds-protos", schema_path))
    files |= compiled
    rules = schema_constraints.extract(files)
    records = schema_dataplane.read_packages(locate("envoy-data-plane", schema_path))
    merger = schema_merge.Merger(files)
    merger.graft({name: each for name, each in records.items() if name not in _NOT_GRAFTED})
    kept = schema_files.cut(files)
    names = {symbol for file in kept for symbol in schema_files.symbols(file)}
    kept_rules = {name: rule for name, rule in rules.items() if name in names}
    schema_emit.write_package(target, kept, kept_rules, digest)
    seconds = time.perf_counter() - began
    counts = f"{len(kept)} files, {len(names)} messages and enums"
    lines = [f"{counts}, rules for {len(kept_rules)} messages, {seconds:.1f} s"]
    for part in dataclasses.fields(merger.report):
        entries = getattr(merger.report, part.name)
        lines += [f"{part.name}: {len(entries)}", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines)


def main() -> int:
    """Command line entry; exit code 1 with one sentence if a schema source is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--schema-path", action="append", help="directory with the schema wheels")
    parser.add_argument("--target", type=Path, default=_DEFAULT_TARGET)
    parser.add_argument("--force", action="store_true", help="generate even if up to date")
    parser.add_argument(
        "--list-schema", action="store_true", help="print the schema requirements and stop"
    )
    parser.add_argument("--report", action="store_true", help="list every grafted name")
    arguments = parser.parse_args()
    if arguments.list_schema:
        print(" ".join(f"{name}=={version}" for name, version in sorted(SCHEMA_PINS.items())))
        return 0
    if is_current(arguments.target) and not arguments.force:
        print(f"{arguments.target.name}: up to date")
        return 0
    try:
        report = generate(arguments.target, arguments.schema_path)
    except SchemaSourceMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    print(report if arguments.report else report.splitlines()[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
