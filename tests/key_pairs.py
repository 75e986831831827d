"""Certificates with keys, for tests that care which bytes go where and not about their use."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Pair(NamedTuple):
    """A self-signed certificate with its key, PEM."""

    chain: bytes
    key: bytes


def pair(name: str = "example", key: Key | None = None, *, days: float = 36_500) -> Pair:
    """Return a certificate that is valid for so many days from 2001 on."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(LONG_AGO + timedelta(days=days))
        .add_extension(names, critical=False)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key))


def key_pem(key: Key, password: bytes | None = None) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


def revocation_list() -> bytes:
    """Return an empty revocation list as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example")])
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name)
        .last_update(LONG_AGO)
        .next_update(LONG_AGO + timedelta(days=36_500))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
