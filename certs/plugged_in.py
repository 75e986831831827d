"""
An authority that the operator plugs in: the files of Istio's secret ``cacerts`` (C-R-4, C-R-8).

    ca-cert.pem  ca-key.pem  cert-chain.pem  root-cert.pem     or     tls.crt  tls.key  ca.crt
    ca-crl.pem   (optional)

A set that is there in part is refused: guessing would make an authority nobody trusts. What has
changed is used only if every handshake of the mesh goes on to succeed (`check_change`).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from pilothouse.certs.material import (
    BadMaterial,
    CaMaterial,
    fingerprint,
    load_certificates,
    make_material,
)

CRL_FILE: Final = "ca-crl.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileSet:
    """Names of one form of the secret; `chain` may be missing."""

    certificate: str
    key: str
    chain: str
    roots: str

    @property
    def required(self) -> tuple[str, ...]:
        return (self.certificate, self.key, self.roots)


_FORMS: Final = (
    _FileSet(
        certificate="ca-cert.pem", key="ca-key.pem", chain="cert-chain.pem", roots="root-cert.pem"
    ),
    _FileSet(certificate="tls.crt", key="tls.key", chain="", roots="ca.crt"),
)


class BadPluggedIn(BadMaterial):
    """The files of a directory make no authority, or one that must not take over now."""

    def __init__(self, directory: Path, problem: str) -> None:
        """Keep the directory."""
        super().__init__(f"The certificate authority in {directory} cannot be used: {problem}.")
        self.directory = directory


def read_plugged_in(directory: Path, now: datetime) -> CaMaterial | None:
    """
    Read the authority in a directory, None if there is no file of one.

    Raises: BadPluggedIn: A file is missing, cannot be read, or does not fit the others.
    """
    try:
        form = _form_of(directory)
        if form is None:
            return None
        return make_material(
            _read(directory, form.key),
            _read(directory, form.certificate),
            # In the shorter form the certificate file holds the chain after the certificate.
            _read(directory, form.chain or form.certificate),
            _read(directory, form.roots),
            now,
            _read(directory, CRL_FILE) if (directory / CRL_FILE).exists() else b"",
        )
    except BadPluggedIn:
        raise
    except BadMaterial as failure:
        raise BadPluggedIn(directory, failure.problem) from failure


def has_plugged_in(directory: Path) -> bool:
    """Tell whether there is an authority to read. Raises: BadPluggedIn: Only part of one."""
    return _form_of(directory) is not None


def stamp(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes when a file of the set does: name, inode, size, time of each."""
    found = []
    for name in sorted({CRL_FILE, *(n for form in _FORMS for n in (*form.required, form.chain))}):
        try:
            status = (directory / name).stat()  # through the links of a mounted secret
        except OSError:
            continue
        if name:
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def check_change(old: CaMaterial, new: CaMaterial, directory: Path) -> None:
    """
    Check that proxies with the old bundle and proxies with the new one accept each other (C-R-5).

    One bundle must contain the other, and both must hold the roots that sign before and after.

    Raises: BadPluggedIn.
    """
    before, after = root_fingerprints(old), root_fingerprints(new)
    if not (before <= after or after <= before):
        raise BadPluggedIn(
            directory,
            "its root bundle neither contains the present one nor is contained in it; first add the"
            " new root, later remove the old one",
        )
    if new.root not in before:
        raise BadPluggedIn(
            directory,
            "its new signing certificate is of a root that proxies do not trust yet; first add the"
            " root alone, and change the signing certificate when all have it",
        )
    if old.root not in after:
        raise BadPluggedIn(
            directory,
            "its bundle no longer has the root of the present signing certificate; first change the"
            " signing certificate, and remove the root when no certificate of it is in use",
        )


def root_fingerprints(material: CaMaterial) -> frozenset[str]:
    """Return the fingerprints of all roots of a bundle."""
    return frozenset(map(fingerprint, load_certificates(material.roots_pem, "the bundle")))


def first_end(material: CaMaterial) -> datetime:
    """Return when the first certificate of the bundle ends."""
    roots = load_certificates(material.roots_pem, "the bundle")
    return min(root.not_valid_after_utc for root in roots)


def chain_end(material: CaMaterial) -> datetime:
    """Return when the first certificate ends that leaves are sent with, or the signer itself."""
    texts = (material.certificate_pem, *material.intermediates_pem)
    return min(x509.load_pem_x509_certificate(text).not_valid_after_utc for text in texts)


def _form_of(directory: Path) -> _FileSet | None:
    for form in _FORMS:
        there = [name for name in form.required if (directory / name).exists()]
        if len(there) == len(form.required):
            return form
        if there:
            missing = [name for name in form.required if name not in there]
            raise BadPluggedIn(
                directory, f"{' and '.join(missing)} missing beside {' and '.join(there)}"
            )
    return None


def _read(directory: Path, name: str) -> bytes:
    if not (directory / name).exists():
        return b""
    try:
        return (directory / name).read_bytes()
    except OSError as failure:
        raise BadPluggedIn(directory, f"{name}: {failure.strerror or failure}") from failure
