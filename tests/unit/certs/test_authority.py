"""The root and what it signs, checked with an independent verifier."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from pilothouse.certs.authority import (
    CERTIFICATE_FILE,
    KEY_FILE,
    LEAF_LIFETIME,
    Authority,
    BadRoot,
)
from pilothouse.certs.server_tls import ServerTls
from pilothouse.model.identity import WorkloadIdentity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALICE = WorkloadIdentity("cluster.local", "default", "alice")


def verifier(authority: Authority, at: datetime) -> verification.PolicyBuilder:
    """Trust only that root, at that time."""
    root = x509.load_pem_x509_certificate(authority.root_pem)
    return verification.PolicyBuilder().store(verification.Store([root])).time(at)


def test_workload_certificate_is_an_svid() -> None:
    """One URI name, both uses, a day of life, not a CA (SPIFFE X509-SVID)."""
    authority = Authority.create("cluster.local", NOW)
    pair = authority.issue_workload(ALICE, NOW)
    leaf = x509.load_pem_x509_certificate(pair.certificate_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(str(ALICE))]
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc == NOW + LEAF_LIFETIME == pair.not_after
    assert leaf.not_valid_before_utc < NOW
    verified = verifier(authority, NOW).build_client_verifier().verify(leaf, [])
    assert [str(name.value) for name in verified.subjects or ()] == [str(ALICE)]


def test_server_certificate_verifies_for_its_names() -> None:
    """The port's certificate serves DNS names and addresses, and only as a server."""
    authority = Authority.create("cluster.local", NOW)
    pair = authority.issue_server(["istiod.istio-system.svc", "127.0.0.1"], NOW)
    leaf = x509.load_pem_x509_certificate(pair.certificate_pem)
    builder = verifier(authority, NOW)
    builder.build_server_verifier(x509.DNSName("istiod.istio-system.svc")).verify(leaf, [])
    with pytest.raises(verification.VerificationError):
        builder.build_client_verifier().verify(leaf, [])


def test_another_root_does_not_verify() -> None:
    """A certificate of another root with the same name is worth nothing."""
    pair = Authority.create("cluster.local", NOW).issue_workload(ALICE, NOW)
    leaf = x509.load_pem_x509_certificate(pair.certificate_pem)
    other = Authority.create("cluster.local", NOW)
    with pytest.raises(verification.VerificationError):
        verifier(other, NOW).build_client_verifier().verify(leaf, [])


def test_leaf_ends_with_its_root() -> None:
    """No leaf outlives the root that signed it."""
    authority = Authority.create("cluster.local", NOW)
    late = authority.not_after - timedelta(hours=1)
    assert authority.issue_workload(ALICE, late).not_after == authority.not_after


def test_root_is_kept_in_a_private_directory(tmp_path: Path) -> None:
    """The same root is found again; nobody else may read it."""
    home = tmp_path / "ca"
    first = Authority.open(home, "cluster.local", NOW)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in home.iterdir()) == [CERTIFICATE_FILE, KEY_FILE]
    assert Authority.open(home, "cluster.local", NOW).root_pem == first.root_pem


def test_open_directory_is_refused(tmp_path: Path) -> None:
    """A key that others may read is not used."""
    home = tmp_path / "ca"
    Authority.open(home, "cluster.local", NOW)
    home.chmod(0o755)
    with pytest.raises(BadRoot, match="other users may read it"):
        Authority.open(home, "cluster.local", NOW)


@pytest.mark.parametrize("damaged", [KEY_FILE, CERTIFICATE_FILE])
def test_damaged_or_missing_file_is_refused(tmp_path: Path, damaged: str) -> None:
    """A damaged root is said to be so and never silently replaced."""
    home = tmp_path / "ca"
    Authority.open(home, "cluster.local", NOW)
    (home / damaged).write_text("nonsense")
    with pytest.raises(BadRoot, match="is not PEM"):
        Authority.open(home, "cluster.local", NOW)
    (home / damaged).unlink()
    with pytest.raises(BadRoot, match="No such file"):
        Authority.open(home, "cluster.local", NOW)


def test_key_of_another_root_is_refused(tmp_path: Path) -> None:
    """Key and certificate belong together."""
    for name in "ab":
        Authority.open(tmp_path / name, "cluster.local", NOW)
    (tmp_path / "b" / KEY_FILE).replace(tmp_path / "a" / KEY_FILE)
    with pytest.raises(BadRoot, match="does not belong"):
        Authority.open(tmp_path / "a", "cluster.local", NOW)


def test_ended_root_is_refused(tmp_path: Path) -> None:
    """A root past its end signs nothing."""
    made = Authority.open(tmp_path / "ca", "cluster.local", NOW)
    with pytest.raises(BadRoot, match="has ended"):
        Authority.open(tmp_path / "ca", "cluster.local", made.not_after)


def test_keys_are_never_shown() -> None:
    """Neither the root's nor a leaf's key is in a repr."""
    authority = Authority.create("cluster.local", NOW)
    pair = authority.issue_workload(ALICE, NOW)
    assert "PRIVATE" not in repr(authority) + repr(pair)
    assert pair.key_pem.decode() not in repr(pair)


def test_server_certificate_is_renewed_at_half_its_life() -> None:
    """The port's certificate never gets near its end."""
    now = NOW
    tls = ServerTls(Authority.create("cluster.local", NOW), ["localhost"], lambda: now)
    first = tls.certificate()
    now = NOW + LEAF_LIFETIME * 0.4
    assert tls.certificate() is first
    now = NOW + LEAF_LIFETIME * 0.6
    assert tls.certificate().not_after == now + LEAF_LIFETIME
