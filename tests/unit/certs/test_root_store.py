"""Roots on disk: kept, private, checked, and readable after a kill at any moment."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import ALICE, NOW
from cryptography.x509 import DNSName, load_pem_x509_certificates
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pilothouse.certs import private_files
from pilothouse.certs.authority import Authority
from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.material import fingerprint
from pilothouse.certs.root_store import (
    LOCK_FILE,
    OLD_CERTIFICATE_FILE,
    OLD_KEY_FILE,
    STATE_FILE,
    BadRoot,
    RootStore,
    certificate_file,
    cross_file,
    key_file,
)
from pilothouse.certs.rotation import Cancelled, Hastened, Phase, RotationRefused
from pilothouse.certs.self_signed import ROOT_LIFETIME, make_root


def open_store(home: Path, **options: bool) -> RootStore:
    return RootStore.open(home, "cluster.local", NOW, **options)


def names(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()}


def test_root_is_kept_in_a_private_directory(tmp_path: Path) -> None:
    """C-R-1: the same root is found again; nobody else may read it."""
    home = tmp_path / "ca"
    first = open_store(home)
    root = first.rotation.current
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in home.iterdir()} == {0o600}
    assert names(home) == {STATE_FILE, key_file(root), certificate_file(root)}
    assert open_store(home).material(NOW) == first.material(NOW)
    assert Authority.open(home, "cluster.local", NOW).root_pem == first.material(NOW).roots_pem


def test_root_of_rsa_on_request(tmp_path: Path) -> None:
    store = RootStore.open(tmp_path / "ca", "td", NOW, algorithm=KeyAlgorithm.RSA_2048)
    assert Authority(store.material(NOW)).issue_workload(ALICE, NOW)


def test_open_directory_is_refused(tmp_path: Path) -> None:
    """A key that others may read is not used."""
    home = tmp_path / "ca"
    open_store(home)
    home.chmod(0o750)
    with pytest.raises(BadRoot, match="other users may read it"):
        open_store(home)


@pytest.mark.parametrize("named", [key_file, certificate_file])
def test_damaged_or_missing_file_is_refused(tmp_path: Path, named: object) -> None:
    """A damaged root is said to be so and never silently replaced."""
    home = tmp_path / "ca"
    damaged = home / named(open_store(home).rotation.current)  # type: ignore[operator]
    damaged.write_text("nonsense")
    with pytest.raises(BadRoot, match="is not"):
        open_store(home)
    damaged.unlink()
    with pytest.raises(BadRoot, match="No such file"):
        open_store(home)


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "ca")
    (tmp_path / "ca" / STATE_FILE).write_text("{")
    with pytest.raises(BadRoot, match="is damaged"):
        open_store(tmp_path / "ca")


def test_exchanged_files_are_refused(tmp_path: Path) -> None:
    """Key and certificate belong together, and to the state."""
    one, two = (open_store(tmp_path / name).rotation.current for name in "ab")
    (tmp_path / "b" / key_file(two)).replace(tmp_path / "a" / key_file(one))
    with pytest.raises(BadRoot, match="does not belong"):
        open_store(tmp_path / "a")
    (tmp_path / "b" / certificate_file(two)).replace(tmp_path / "a" / certificate_file(one))
    with pytest.raises(BadRoot, match="is not the root that"):
        open_store(tmp_path / "a")


def test_ended_root_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "ca")
    with pytest.raises(BadRoot, match="has ended"):
        RootStore.open(tmp_path / "ca", "cluster.local", NOW + ROOT_LIFETIME)


def test_one_server_at_a_time(tmp_path: Path) -> None:
    """Two servers would rotate against each other; reading stays possible."""
    first = open_store(tmp_path / "ca", exclusive=True)
    with pytest.raises(BadRoot, match="another server uses it"):
        open_store(tmp_path / "ca", exclusive=True)
    assert open_store(tmp_path / "ca").rotation == first.rotation
    first.close()
    open_store(tmp_path / "ca", exclusive=True).close()
    assert LOCK_FILE in names(tmp_path / "ca")


def test_root_of_the_time_before_rotation_is_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "ca"
    home.mkdir(mode=0o700)
    made = make_root("cluster.local", NOW)
    (home / OLD_KEY_FILE).write_bytes(made.key_pem)
    (home / OLD_CERTIFICATE_FILE).write_bytes(made.certificate_pem)
    store = open_store(home)
    assert store.material(NOW) == made
    assert names(home) == {STATE_FILE, key_file(made.root), certificate_file(made.root)}


def test_lost_state_with_several_roots_is_not_guessed(tmp_path: Path) -> None:
    """With one root there is no doubt, with two there is."""
    home = tmp_path / "ca"
    store = open_store(home)
    (home / STATE_FILE).unlink()
    assert open_store(home).rotation.current == store.rotation.current
    store.request("cluster.local", NOW)
    (home / STATE_FILE).unlink()
    with pytest.raises(BadRoot, match="there are several roots"):
        open_store(home)


def test_rotation_step_by_step(tmp_path: Path) -> None:
    """Both are trusted while either may be in use; only the signer's files are left at the end."""
    store = open_store(tmp_path / "ca")
    old = store.rotation.current
    old_bundle = store.material(NOW).roots_pem
    store.request("cluster.local", NOW)
    new = store.rotation.other
    both = store.material(NOW)
    assert (both.root, both.roots_pem.count(b"BEGIN")) == (old, 2)
    with pytest.raises(RotationRefused, match="another rotation is under way"):
        store.request("cluster.local", NOW)
    assert store.advance(Hastened(), NOW)
    signing = store.material(NOW)
    assert signing.root == new
    # The one that signs leads, which is how agents see that it is another one.
    assert [fingerprint(each) for each in load_pem_x509_certificates(both.roots_pem)] == [old, new]
    led = load_pem_x509_certificates(signing.roots_pem)
    assert [fingerprint(each) for each in led] == [new, old]
    with pytest.raises(RotationRefused, match="only before"):
        store.advance(Cancelled(), NOW)
    assert store.advance(Hastened(), NOW)
    alone = store.material(NOW)
    assert (alone.root, alone.roots_pem.count(b"BEGIN")) == (new, 1)
    assert alone.roots_pem != old_bundle
    assert store.advance(Hastened(), NOW)
    assert store.rotation.phase is Phase.STABLE
    assert names(tmp_path / "ca") == {
        STATE_FILE, key_file(new), certificate_file(new), cross_file(new)
    }  # fmt: skip


def test_who_has_an_early_root_follows_the_server_to_a_late_one(tmp_path: Path) -> None:
    """C-R-12: the roots in a proxy's bootstrap need not be replaced in step with a rotation."""
    store = open_store(tmp_path / "ca")
    bundles = [store.material(NOW).roots_pem]
    for day in (1, 2):
        now = NOW + timedelta(days=day)
        store.request("cluster.local", now)
        for _ in range(3):
            store.advance(Hastened(), now)
        bundles.append(store.material(now).roots_pem)
    late = store.material(now)
    pair = Authority(late).issue_server(("server.example",), now)
    leaf, *between = load_pem_x509_certificates(pair.certificate_pem + late.cross_pem)
    assert len(between) == 2
    for bundle in bundles:
        roots = Store(load_pem_x509_certificates(bundle))
        verifier = PolicyBuilder().store(roots).time(now).max_chain_depth(4)
        assert verifier.build_server_verifier(DNSName("server.example")).verify(leaf, between)
        without = PolicyBuilder().store(roots).time(now)
        if bundle is not bundles[-1]:
            with pytest.raises(VerificationError):
                without.build_server_verifier(DNSName("server.example")).verify(leaf, [])
    first_ends = load_pem_x509_certificates(bundles[0])[0].not_valid_after_utc
    assert store.material(first_ends).cross_pem.count(b"BEGIN") == 1


def test_cancelled_rotation_leaves_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "ca")
    before = names(tmp_path / "ca")
    store.request("cluster.local", NOW)
    store.advance(Cancelled(), NOW)
    assert names(tmp_path / "ca") == before
    with pytest.raises(RotationRefused, match="no rotation is under way"):
        store.advance(Hastened(), NOW)


class Killed(BaseException):
    """The process ends here."""


def run_until_killed(home: Path, monkeypatch: pytest.MonkeyPatch, steps_left: int) -> bool:
    """Create, rotate and finish; be killed before the n-th change to the directory."""
    left = steps_left

    def step(real: object) -> object:
        def counted(*args: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **options)  # type: ignore[operator]

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", step(Path.replace))
        patch.setattr(Path, "unlink", step(Path.unlink))
        patch.setattr(private_files.os, "fsync", step(os.fsync))
        try:
            store = open_store(home)
            if store.rotation.phase is Phase.STABLE:
                store.request("cluster.local", NOW)
            while store.advance(Hastened(), NOW) and store.rotation.phase is not Phase.STABLE:
                pass
        except Killed:
            return True
    return False


def test_killed_before_any_change_to_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was done last, the directory opens again, and a root once in charge is known."""
    for steps in range(200):
        home = tmp_path / str(steps)
        killed = run_until_killed(home, monkeypatch, steps)
        store = open_store(home)
        assert Authority(store.material(NOW)).issue_workload(ALICE, NOW)
        kept = {named(root) for root in store.rotation.kept_roots for named in
                (key_file, certificate_file)}  # fmt: skip
        crosses = set(map(cross_file, store.rotation.kept_roots))
        assert names(home) - crosses == {STATE_FILE, *kept}
        if store.rotation.phase in (Phase.SIGNING_WITH_NEW, Phase.DROPPING_OLD):
            assert store.material(NOW).cross_pem
        if not killed:
            assert steps > 20
            return
    raise AssertionError("it never ran to the end")
