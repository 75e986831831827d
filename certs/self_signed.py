"""
Roots of our own: a key and a certificate signed by itself (security.md C-R-1).

ECDSA P-256 unless asked otherwise, ten years, the trust domain as organization. A root signs
leaves directly, and at its end its successor, so that who was given the old root only still knows
the server (`cross_sign`). Pure but for the randomness of the key.
"""

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.issuing import BACKDATING, generate_key, hash_for, key_usage
from pilothouse.certs.material import (
    CaMaterial,
    fingerprint,
    load_certificates,
    load_key,
    private_pem,
    to_pem,
)

ROOT_LIFETIME: Final = timedelta(days=3_650)


def make_root(
    trust_domain: str,
    now: datetime,
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    lifetime: timedelta = ROOT_LIFETIME,
) -> CaMaterial:
    """Make a root for a trust domain; it is its own trust bundle."""
    key = generate_key(algorithm)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    moment = now.replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATING)
        .not_valid_after(moment + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hash_for(key))
    )
    pem = to_pem(certificate)
    return CaMaterial(
        key_pem=private_pem(key), certificate_pem=pem, roots_pem=pem, root=fingerprint(certificate)
    )


def cross_sign(new: CaMaterial, old: CaMaterial, now: datetime) -> bytes:
    """
    Return the certificate of a root's key by the root before it, PEM.

    A server shows it beside its own certificate: who trusts the old root follows it to the new one,
    who trusts the new one needs it not. Raises: BadMaterial.
    """
    root = load_certificates(new.certificate_pem, "the new root")[0]
    issuer = load_certificates(old.certificate_pem, "the old root")[0]
    key = load_key(old.key_pem)
    end = min(root.not_valid_after_utc, issuer.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(root.subject)
        .issuer_name(issuer.subject)
        .public_key(root.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.replace(microsecond=0) - BACKDATING)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hash_for(key))
    )
    return to_pem(certificate)
