"""Directories of keys: private, and ours."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilothouse.certs.private_files import NotPrivate, make_private_directory, write_private
from pilothouse.certs.root_store import BadRoot, RootStore
from pilothouse.certs.tokens import BadTokens, TokenStore
from pilothouse.model.identity import WorkloadIdentity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOMEBODY = 12_345


def test_a_new_directory_is_ours_alone(tmp_path: Path) -> None:
    """C-R-1: whatever the umask says."""
    before = os.umask(0)
    try:
        make_private_directory(tmp_path / "a" / "ca")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "ca").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o740, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """C-R-1: also by a link to it."""
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca").chmod(mode)
    (tmp_path / "link").symlink_to("ca")
    for path in (tmp_path / "ca", tmp_path / "link"):
        with pytest.raises(NotPrivate, match="chmod 700"):
            make_private_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """C-R-1: who made it, before us and where everybody may, owns it and can read our keys."""
    theirs = tmp_path / "ca"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, SOMEBODY, SOMEBODY)
    with pytest.raises(BadRoot, match=f"belongs to user {SOMEBODY}; run chown"):
        RootStore.open(theirs, "cluster.local", NOW)
    with pytest.raises(BadTokens, match=f"belongs to user {SOMEBODY}"):
        TokenStore(theirs).create(WorkloadIdentity("cluster.local", "a", "b"), NOW)
    assert list(theirs.iterdir()) == []


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A key written through somebody's link would be somebody's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    (tmp_path / "key.pem").symlink_to(elsewhere)
    write_private(tmp_path / "key.pem", b"secret")
    assert elsewhere.read_text() == "untouched"
    assert not (tmp_path / "key.pem").is_symlink()
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
