"""
A certificate authority for one mesh: an ECDSA P-256 root that signs short-lived leaves.

Small on purpose: one self-signed root, no intermediate, no revocation (leaves live a day). The
clock is passed in; the only I/O is the root's own directory. It decides *how* a certificate looks,
never *who* may have one.
"""

import ipaddress
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.errors import SourceError
from pilothouse.model.identity import WorkloadIdentity

ROOT_LIFETIME: Final = timedelta(days=3_650)
LEAF_LIFETIME: Final = timedelta(hours=24)
BACKDATING: Final = timedelta(minutes=2)
"""Certificates are valid from a little before now: clocks of one mesh differ."""

KEY_FILE: Final = "root-key.pem"
CERTIFICATE_FILE: Final = "root-cert.pem"


class BadRoot(SourceError):
    """The root's directory cannot be used; `problem` says why, `directory` which."""

    def __init__(self, directory: Path, problem: str) -> None:
        """Say what is wrong with the directory."""
        super().__init__(directory, problem)
        self.directory = directory
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The certificate authority in {self.directory} cannot be used: {self.problem}"


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """A leaf with its private key, both PEM; never shown by repr."""

    certificate_pem: bytes
    key_pem: bytes
    not_after: datetime

    def __repr__(self) -> str:
        """Show the end of life and nothing else."""
        return f"KeyPair(not_after={self.not_after.isoformat()})"


class Authority:
    """A root key with its certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        """Sign with `key`, whose self-signed certificate is `certificate`."""
        self._key = key
        self._certificate = certificate
        self.root_pem = certificate.public_bytes(serialization.Encoding.PEM)

    def __repr__(self) -> str:
        """Show the root's serial number, never its key."""
        return f"Authority(serial={self._certificate.serial_number:x})"

    @property
    def not_after(self) -> datetime:
        """When the root ends."""
        return self._certificate.not_valid_after_utc

    @staticmethod
    def create(trust_domain: str, now: datetime) -> "Authority":
        """Make a new root for a trust domain; the key stays in memory."""
        return Authority(*_make_root(trust_domain, now))

    @staticmethod
    def open(directory: Path, trust_domain: str, now: datetime) -> "Authority":
        """
        Load the root in a directory, or make one there if it has none.

        The directory gets mode 0700 and the key 0600.

        Raises: BadRoot: Others may read it, a file is missing or damaged, or the root has ended.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if directory.stat().st_mode & 0o077:
                raise BadRoot(directory, "other users may read it; run chmod 700 on it.")
            key_file, certificate_file = directory / KEY_FILE, directory / CERTIFICATE_FILE
            if not key_file.exists() and not certificate_file.exists():
                key, certificate = _make_root(trust_domain, now)
                made = Authority(key, certificate)
                _write_private(key_file, _private_pem(key))
                _write_private(certificate_file, made.root_pem)
                return made
            return _load(directory, key_file.read_bytes(), certificate_file.read_bytes(), now)
        except OSError as failure:
            raise BadRoot(directory, f"{failure.strerror or failure}.") from failure

    def issue_server(
        self,
        names: Sequence[str],
        now: datetime,
        *,
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> KeyPair:
        """Issue a server's certificate for DNS names and IP addresses."""
        return self._issue(
            x509.SubjectAlternativeName([_general_name(name) for name in names]),
            [ExtendedKeyUsageOID.SERVER_AUTH],
            now,
            lifetime,
        )

    def issue_workload(
        self,
        identity: WorkloadIdentity,
        now: datetime,
        *,
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> KeyPair:
        """Issue a workload's certificate (X509-SVID): one URI name, client and server use."""
        return self._issue(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]),
            [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
            now,
            lifetime,
        )

    def _issue(
        self,
        names: x509.SubjectAlternativeName,
        uses: list[x509.ObjectIdentifier],
        now: datetime,
        lifetime: timedelta,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        end = min(now + lifetime, self.not_after)
        certificate = (
            _builder(x509.Name([]), self._certificate.subject, key.public_key(), now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            # Critical because the subject is empty (RFC 5280 4.2.1.6).
            .add_extension(names, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
            .sign(self._key, hashes.SHA256())
        )
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key), end)


def _make_root(
    trust_domain: str, now: datetime
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    certificate = (
        _builder(name, name, key.public_key(), now, now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(end)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _load(directory: Path, key_pem: bytes, certificate_pem: bytes, now: datetime) -> Authority:
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except (ValueError, TypeError) as failure:
        raise BadRoot(
            directory, f"{KEY_FILE} or {CERTIFICATE_FILE} is not PEM as written here."
        ) from failure
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadRoot(directory, f"{KEY_FILE} is not an elliptic-curve key.")
    if certificate.public_key() != key.public_key():
        raise BadRoot(directory, f"{KEY_FILE} does not belong to {CERTIFICATE_FILE}.")
    if certificate.not_valid_after_utc <= now:
        raise BadRoot(directory, "its root has ended; move the files away to make a new one.")
    return Authority(key, certificate)
