"""The example mesh says who runs where, and its files are valid."""

from pathlib import Path

import pytest
import yaml

from pilothouse.api.decode import decode
from pilothouse.demo.bookinfo import app_path, copy_mesh, examples, stage_text, workloads
from pilothouse.demo.story import STAGES


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    copy_mesh(tmp_path / "mesh")
    return tmp_path / "mesh"


def test_every_workload_has_an_address_and_a_program(mesh: Path) -> None:
    """SC-03, SC-05..08: the Sidecars say where each program listens and calls."""
    found = {w.name: w for w in workloads(mesh)}

    assert sorted(found) == [
        "details-v1",
        "productpage-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    ]
    assert len({w.address for w in found.values()}) == len(found)
    assert all(app_path(w.app).is_file() for w in found.values())
    front = found["productpage-v1"]
    assert front.listen == "127.0.10.1:19080"
    assert front.upstreams == {"details": "127.0.20.1:9080", "reviews": "127.0.20.1:9080"}
    assert set(front.ports) == {("127.0.10.1", 9080), ("127.0.10.1", 19080), ("127.0.20.1", 9080)}
    assert found["reviews-v1"].upstreams == {}
    assert found["reviews-v2"].upstreams == {"ratings": "127.0.20.5:9080"}


def test_the_whole_mesh_moves_to_other_loopback_addresses(tmp_path: Path) -> None:
    copy_mesh(tmp_path / "mesh", loopback="127.50")

    ports = {address for w in workloads(tmp_path / "mesh") for address, _ in w.ports}

    assert ports
    assert all(address.startswith("127.50.") for address in ports)


def test_transparent_workloads_call_virtual_addresses(tmp_path: Path) -> None:
    copy_mesh(tmp_path / "mesh", transparent=True)

    found = {w.name: w for w in workloads(tmp_path / "mesh")}

    assert found["reviews-v3"].listen == "10.244.77.16:9080"
    assert found["reviews-v3"].upstreams == {"ratings": "10.244.78.3:9080"}
    assert not any(w.ports for w in found.values())
    assert not (tmp_path / "mesh" / "sidecars.yaml").exists()


def test_the_mesh_begins_at_stage_one(mesh: Path) -> None:
    assert (mesh / STAGES[0].target).read_text() == stage_text(STAGES[0].file)


def test_each_later_stage_is_an_edit(mesh: Path) -> None:
    for stage in STAGES[1:]:
        new = stage_text(stage.file)
        assert (mesh / stage.target).read_text() != new
        (mesh / stage.target).write_text(new)


def test_every_stage_file_is_played() -> None:
    assert {p.name for p in (examples() / "stages").iterdir()} == {s.file for s in STAGES}


def test_every_file_is_accepted_without_a_finding() -> None:
    """What a stranger copies from the example is good config."""
    documents = [
        (path.name, document)
        for path in sorted(examples().glob("*/*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]

    findings = {
        (name, finding) for name, document in documents for finding in decode(document).findings
    }

    assert len(documents) > 25
    assert findings == set()
