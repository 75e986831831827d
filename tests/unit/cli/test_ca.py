"""``pilothouse ca``: what is shown of the roots, and how a rotation is asked for."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pilothouse.certs.root_store import RootStore, certificate_file, read_state
from pilothouse.certs.rotation import Phase
from pilothouse.certs.rotation_files import (
    RotationStatus,
    read_request,
    remove_request,
    write_status,
)
from pilothouse.cli.ca import ca


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    RootStore.open(tmp_path / "ca", "cluster.local", datetime.now(UTC))
    return tmp_path / "ca"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(ca, [str(each) for each in arguments], standalone_mode=False)


def phase(directory: Path) -> Phase:
    found = read_state(directory)
    assert found is not None
    return found.phase


def test_status(directory: Path) -> None:
    shown = run("status", "--ca-dir", directory)
    assert shown.exception is None
    assert "O=cluster.local" in shown.output
    assert "No rotation is under way." in shown.output
    data = json.loads(run("status", "--ca-dir", directory, "-o", "json").output)
    assert data["phase"] == "stable"
    assert [(root["signs"], root["trusted"]) for root in data["roots"]] == [(True, True)]


def test_rotation_without_a_server_changes_the_state_step_by_step(directory: Path) -> None:
    """The next server goes on from there."""
    asked = run("rotate", "--ca-dir", directory, "--key-algorithm", "rsa-2048")
    assert "No server uses this directory" in asked.output
    assert "waits that all trust both roots" in asked.output
    assert phase(directory) is Phase.TRUSTING_BOTH
    again = run("rotate", "--ca-dir", directory)
    assert "another rotation is under way" in str(again.exception)
    data = json.loads(run("status", "--ca-dir", directory, "-o", "json").output)
    assert sorted((root["signs"], root["trusted"]) for root in data["roots"]) == [
        (False, True), (True, True),
    ]  # fmt: skip
    for expected in (Phase.SIGNING_WITH_NEW, Phase.DROPPING_OLD, Phase.STABLE):
        assert run("rotate", "--ca-dir", directory, "--go-on").exception is None
        assert phase(directory) is expected
    assert "no rotation is under way" in str(
        run("rotate", "--ca-dir", directory, "--go-on").exception
    )


def test_cancel(directory: Path) -> None:
    before = read_state(directory)
    run("rotate", "--ca-dir", directory)
    assert run("rotate", "--ca-dir", directory, "--cancel").exception is None
    after = read_state(directory)
    assert before is not None
    assert after is not None
    assert (after.phase, after.current) == (Phase.STABLE, before.current)
    assert "exclude each other" in str(
        run("rotate", "--ca-dir", directory, "--cancel", "--go-on").exception
    )


@pytest.mark.parametrize("reason", ["", "It may not be."])
def test_request_to_a_running_server(directory: Path, reason: str) -> None:
    """It is left in the directory; the command returns when it was taken, and says why not."""
    store = RootStore.open(directory, "cluster.local", datetime.now(UTC), exclusive=True)
    taken = []

    def server() -> None:
        while (request := read_request(directory)) is None:
            pass
        taken.append(request)
        write_status(
            directory, RotationStatus(phase=Phase.STABLE, at=datetime.now(UTC), refused=reason)
        )
        remove_request(directory)

    thread = threading.Thread(target=server)
    thread.start()
    asked = run("rotate", "--ca-dir", directory)
    thread.join()
    store.close()
    assert (str(asked.exception) if reason else asked.exception) == (reason or None)
    assert [(each.action.value, each.phase) for each in taken] == [("rotate", Phase.STABLE)]


def test_who_is_waited_for(directory: Path) -> None:
    """Operators see how many lack what, and how long it may take."""
    run("rotate", "--ca-dir", directory)
    until = datetime.now(UTC) + timedelta(hours=5)
    write_status(
        directory,
        RotationStatus(
            phase=Phase.TRUSTING_BOTH, at=datetime.now(UTC), waiting=3, absent=2,
            absent_until=until, refused="Something was wrong.",
            behind=("spiffe://cluster.local/ns/shop/sa/web (certificate 1f)", "pod-7"),
        ),
    )  # fmt: skip
    shown = run("status", "--ca-dir", directory).output
    assert "3 connected proxies are not ready, 2 holders are away until" in shown
    assert "at the latest: spiffe://cluster.local/ns/shop/sa/web (certificate 1f), pod-7." in shown
    assert f"{until:%Y-%m-%d %H:%M} UTC" in shown
    assert "The last request was refused. Something was wrong." in shown
    run("rotate", "--ca-dir", directory, "--go-on")
    assert "3 connected" not in run("status", "--ca-dir", directory).output, "of an earlier phase"


def test_directory_without_roots(tmp_path: Path) -> None:
    for command in ("status", "rotate"):
        asked = run(command, "--ca-dir", tmp_path)
        assert "has no roots" in str(asked.exception)


def test_keys_are_never_shown(directory: Path) -> None:
    state = read_state(directory)
    assert state is not None
    shown = run("status", "--ca-dir", directory).output
    shown += run("status", "--ca-dir", directory, "-o", "json").output
    assert "PRIVATE" not in shown
    assert certificate_file(state.current).split("-")[1] in shown
