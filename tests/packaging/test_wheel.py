"""What the sdist and the wheel hold."""

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_owns_one_top_level_name(wheel: Path) -> None:
    """Names such as `xds` or `envoy` belong to other wheels."""
    top = {name.partition("/")[0] for name in wheel_names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pilothouse"}
    assert len(top) == 2


def test_the_wheel_holds_every_source_file_of_every_room(tree: Path, wheel: Path) -> None:
    """hatchling once dropped two of four linked folders in silence."""
    links = [path for path in (tree / "src" / "pilothouse").iterdir() if path.is_symlink()]
    rooms = [path.name for path in links if path.name != "examples"]
    expected = {
        f"pilothouse/{path.relative_to(tree)}"
        for room in rooms
        for path in (tree / room).rglob("*.py")
    }
    assert len(rooms) == 12
    assert expected <= wheel_names(wheel)


def test_the_wheel_is_typed_and_carries_generated_messages_with_stubs(wheel: Path) -> None:
    names = wheel_names(wheel)
    cluster = "pilothouse/_pb/envoy/config/cluster/v3/cluster_pb2"
    assert {
        "pilothouse/py.typed",
        "pilothouse/_pb/descriptors.bin",
        "pilothouse/_pb/constraints.json",
        f"{cluster}.py",
        f"{cluster}.pyi",
    } <= names
    generated = {name for name in names if name.startswith("pilothouse/_pb/")}
    stubs = {name[:-1] for name in generated if name.endswith("_pb2.pyi")}
    assert stubs == {name for name in generated if name.endswith("_pb2.py")}
    assert len(stubs) > 400


def test_the_wheel_holds_the_demo_files(tree: Path, wheel: Path) -> None:
    on_disk = {
        f"pilothouse/{path.relative_to(tree)}"
        for path in (tree / "examples").rglob("*")
        if path.is_file()
    }
    assert on_disk
    assert on_disk <= wheel_names(wheel)


def test_the_wheel_leaves_tools_and_tests_at_home(wheel: Path) -> None:
    assert not [name for name in wheel_names(wheel) if "gen_protos" in name or "/test_" in name]


def test_the_wheel_needs_neither_schema_nor_kubernetes(wheel: Path) -> None:
    """Build requirements stay out of the product; the heavy client is an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(path).decode()
    always = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    names = " ".join(always)
    assert "grpcio" in names
    for unwanted in ("xds-protos", "envoy-data-plane", "grpcio-tools", "kubernetes"):
        assert unwanted not in names
    assert "License-Expression: Apache-2.0" in metadata


def test_the_sdist_is_flat_and_complete(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    inside = {member.name.partition("/")[2] for member in members}
    assert {
        "LICENSE",
        "tools/build_backend.py",
        "tools/gen_protos.py",
        "tools/proto/istio/v1/auth/ca.proto",
        "src/pilothouse/graph/core.py",
        "src/pilothouse/_pb/inputs.sha256",
    } <= inside


def test_validation_rules_are_carried_as_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        rules = json.loads(archive.read("pilothouse/_pb/constraints.json"))
    cluster = rules["envoy.config.cluster.v3.Cluster"]["fields"]
    assert cluster["name"] == {"string": {"min_len": 1}}
    assert cluster["connect_timeout"] == {"duration": {"gt": "0s"}}
    assert rules["envoy.config.core.v3.Address"]["required_oneofs"] == ["address"]
    secrets = rules["envoy.extensions.transport_sockets.tls.v3.TlsCertificate"]
    assert "private_key" in secrets["sensitive_fields"]
    assert len(rules) > 500
