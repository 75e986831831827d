"""Authorities that operators plug in: Istio's file names, checks, and which changes may be used."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import ALICE, NOW, PEM, Key, make_ca, private_key_pem, verifier
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pilothouse.certs.authority import Authority
from pilothouse.certs.plugged_in import (
    BadPluggedIn,
    chain_end,
    check_change,
    first_end,
    read_plugged_in,
    root_fingerprints,
    stamp,
)

Ca = tuple[x509.Certificate, Key]
ROOT = make_ca("Root", NOW)
OTHER = make_ca("Other", NOW)
MIDDLE = make_ca("Middle", NOW, ROOT)
LOWER = make_ca("Lower", NOW, MIDDLE)


def pem(*authorities: Ca) -> bytes:
    return b"".join(certificate.public_bytes(PEM) for certificate, _ in authorities)


def write(directory: Path, **files: bytes) -> Path:
    """Write files; ca_cert is ca-cert.pem."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / f"{name.replace('_', '-')}.pem").write_bytes(content)
    return directory


def plugged(directory: Path, signer: Ca, chain: bytes, roots: bytes, **more: bytes) -> Path:
    key = private_key_pem(signer[1])
    return write(
        directory, ca_cert=pem(signer), ca_key=key, cert_chain=chain, root_cert=roots, **more
    )


@pytest.mark.parametrize(
    ("signer", "chain", "between"),
    [
        (ROOT, pem(ROOT), 0),
        (ROOT, b"", 0),
        (MIDDLE, pem(MIDDLE), 1),
        (MIDDLE, b"", 1),
        (LOWER, pem(LOWER, MIDDLE, ROOT), 2),
        (LOWER, pem(ROOT, MIDDLE, LOWER), 2),
        (LOWER, pem(MIDDLE, OTHER), 2),
    ],
    ids=["root", "root alone", "one", "one alone", "with root", "upside down", "with another"],
)
def test_chain_is_put_in_order(tmp_path: Path, signer: Ca, chain: bytes, between: int) -> None:
    """C-R-4, C-W-3: from the signer upwards, without the root, whatever order the file has."""
    found = read_plugged_in(plugged(tmp_path / "ca", signer, chain, pem(ROOT)), NOW)
    assert found is not None
    assert len(found.intermediates_pem) == between
    issued = Authority(found).issue_workload(ALICE, NOW).chain
    leaf, *rest = (x509.load_pem_x509_certificate(each) for each in issued.elements[:-1])
    verifier(issued.roots_pem, NOW).build_client_verifier().verify(leaf, rest)


def test_short_form(tmp_path: Path) -> None:
    """C-R-4: the names of kubernetes.io/tls secrets, with the chain in tls.crt."""
    directory = tmp_path / "ca"
    directory.mkdir()
    (directory / "tls.crt").write_bytes(pem(LOWER, MIDDLE))
    (directory / "tls.key").write_bytes(private_key_pem(LOWER[1]))
    (directory / "ca.crt").write_bytes(pem(ROOT))
    found = read_plugged_in(directory, NOW)
    assert found is not None
    assert found.intermediates_pem == (pem(LOWER), pem(MIDDLE))


def test_several_roots(tmp_path: Path) -> None:
    """C-R-6: all are handed out, the leaf hangs on one."""
    found = read_plugged_in(plugged(tmp_path / "ca", MIDDLE, b"", pem(OTHER, ROOT)), NOW)
    assert found is not None
    assert len(root_fingerprints(found)) == 2
    swapped = read_plugged_in(plugged(tmp_path / "b", MIDDLE, b"", pem(ROOT, OTHER)), NOW)
    assert swapped == found, "equal trust is equal bytes"
    assert first_end(found) == chain_end(found) == NOW + timedelta(days=365)


@pytest.mark.parametrize("form", [("ca-cert.pem", "ca-key.pem", "root-cert.pem"),
                                  ("tls.crt", "tls.key", "ca.crt")])  # fmt: skip
def test_incomplete_set_is_refused_and_missing_one_is_none(
    tmp_path: Path, form: tuple[str, ...]
) -> None:
    """C-R-4: part of a set would make an authority that nobody trusts."""
    assert read_plugged_in(tmp_path / "none", NOW) is None
    assert read_plugged_in(tmp_path, NOW) is None
    for name in form:
        (tmp_path / name).write_bytes(b"x")
        others = [each for each in form if each != name]
        with pytest.raises(BadPluggedIn, match=f"{others[0]} and {others[1]} missing"):
            read_plugged_in(tmp_path, NOW)
        (tmp_path / name).unlink()


def _encrypted(key: Key) -> bytes:
    return key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


LEAF_LIKE = make_ca("Leaf", NOW, ROOT, ca=False)
NARROW = make_ca("Narrow", NOW, ROOT, path_length=0)
BELOW_NARROW = make_ca("Below", NOW, NARROW)
ENDED = make_ca("Ended", NOW, ROOT, timedelta(0))
NOT_YET = make_ca("Early", NOW + timedelta(days=9), ROOT)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda: {"ca_key": private_key_pem(ROOT[1])}, "does not belong"),
        (lambda: {"ca_key": b"nonsense"}, "not a PEM private key"),
        (lambda: {"ca_key": _encrypted(MIDDLE[1])}, "is encrypted"),
        (lambda: {"ca_key": private_key_pem(rsa.generate_private_key(65_537, 1_024))}, "RSA of at"),
        (lambda: {"ca_cert": b"nonsense"}, "is not PEM"),
        (lambda: {"ca_cert": b""}, "is missing"),
        (lambda: {"root_cert": b""}, "root bundle is empty"),
        (lambda: {"root_cert": pem(OTHER)}, "no chain leads"),
        (lambda: {"cert_chain": b"-----BEGIN CERTIFICATE-----\nx"}, "chain is not PEM"),
        (lambda: {"ca_crl": b"nonsense"}, "revocation list is not PEM"),
        (lambda: of(LEAF_LIKE), "not an authority's"),
        (lambda: of(BELOW_NARROW, pem(NARROW)), "allows 0 authorities below it"),
        (lambda: of(ENDED), "has ended"),
        (lambda: of(NOT_YET), "not valid before"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, spoil: Callable[[], dict[str, bytes]], problem: str
) -> None:
    """The directory and the reason are said; never the key."""
    files = {
        "ca_cert": pem(MIDDLE), "ca_key": private_key_pem(MIDDLE[1]),
        "cert_chain": b"", "root_cert": pem(ROOT), **spoil(),
    }  # fmt: skip
    directory = write(tmp_path / "ca", **files)
    with pytest.raises(BadPluggedIn, match=problem) as caught:
        read_plugged_in(directory, NOW)
    assert str(directory) in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def of(signer: Ca, chain: bytes = b"") -> dict[str, bytes]:
    return {"ca_cert": pem(signer), "ca_key": private_key_pem(signer[1]), "cert_chain": chain}


def test_revocation_list_is_read(tmp_path: Path) -> None:
    """C-R-8."""
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ROOT[0].subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .sign(ROOT[1], hashes.SHA256())  # type: ignore[arg-type]
        .public_bytes(PEM)
    )
    found = read_plugged_in(plugged(tmp_path / "ca", ROOT, b"", pem(ROOT), ca_crl=crl * 2), NOW)
    assert found is not None
    assert found.crl_pem == crl * 2


def material(tmp_path: Path, name: str, signer: Ca, roots: bytes) -> Any:
    return read_plugged_in(plugged(tmp_path / name, signer, pem(MIDDLE), roots), NOW)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ((MIDDLE, (ROOT,)), (LOWER, (ROOT,)), ""),
        ((MIDDLE, (ROOT,)), (MIDDLE, (ROOT, OTHER)), ""),
        ((MIDDLE, (ROOT, OTHER)), (OTHER, (ROOT, OTHER)), ""),
        ((OTHER, (ROOT, OTHER)), (OTHER, (OTHER,)), ""),
        ((MIDDLE, (ROOT,)), (OTHER, (OTHER,)), "neither contains"),
        ((MIDDLE, (ROOT,)), (OTHER, (ROOT, OTHER)), "do not trust yet"),
        ((MIDDLE, (ROOT, OTHER)), (OTHER, (OTHER,)), "no longer has the root"),
    ],
    ids=["intermediate", "add", "sign", "drop", "replace", "sign at once", "drop at once"],
)
def test_changes_go_step_by_step(
    tmp_path: Path, before: tuple[Ca, Any], after: tuple[Ca, Any], problem: str
) -> None:
    """C-R-5: a root is added, then signs, then the old one goes; each by itself."""
    old = material(tmp_path, "old", before[0], pem(*before[1]))
    new = material(tmp_path, "new", after[0], pem(*after[1]))
    if not problem:
        check_change(old, new, tmp_path)
        return
    with pytest.raises(BadPluggedIn, match=problem):
        check_change(old, new, tmp_path)


def test_stamp_changes_with_the_files(tmp_path: Path) -> None:
    """Also when Kubernetes swaps the link that a mounted secret hangs on."""
    assert stamp(tmp_path) == ()
    for name in ("one", "two"):
        plugged(tmp_path / name, MIDDLE, b"", pem(ROOT))
    mounted, data = tmp_path / "mounted", tmp_path / "mounted" / "..data"
    mounted.mkdir()
    data.symlink_to(tmp_path / "one")
    for name in ("ca-cert.pem", "ca-key.pem", "root-cert.pem"):
        (mounted / name).symlink_to(Path("..data") / name)
    first = stamp(mounted)
    assert len(first) == 3
    assert stamp(mounted) == first
    data.unlink()
    data.symlink_to(tmp_path / "two")
    assert stamp(mounted) != first
