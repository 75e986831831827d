"""Authorities and signing requests of every shape, for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

from pilothouse.certs.material import CaMaterial, make_material
from pilothouse.model.identity import WorkloadIdentity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALICE = WorkloadIdentity("cluster.local", "default", "alice")
PEM = serialization.Encoding.PEM

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KEY = ec.generate_private_key(ec.SECP256R1())


def verifier(roots_pem: bytes, at: datetime) -> verification.PolicyBuilder:
    """Trust only those roots, at that time."""
    roots = x509.load_pem_x509_certificates(roots_pem)
    return verification.PolicyBuilder().store(verification.Store(roots)).time(at)


def csr(
    key: Key = KEY,
    names: Sequence[x509.GeneralName] = (),
    common_name: str = "",
    hash_algorithm: hashes.HashAlgorithm | None = None,
    *extensions: x509.ExtensionType,
) -> bytes:
    """Make a signing request as an agent does."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    edwards = isinstance(key, ed25519.Ed25519PrivateKey)
    return builder.sign(key, None if edwards else hash_algorithm or hashes.SHA256()).public_bytes(
        PEM
    )


def private_key_pem(key: Key) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def make_ca(
    name: str,
    now: datetime,
    issuer: tuple[x509.Certificate, Key] | None = None,
    lifetime: timedelta = timedelta(days=365),
    *,
    ca: bool = True,
    path_length: int | None = None,
) -> tuple[x509.Certificate, Key]:
    """Make an authority as an operator's tools would, below `issuer` or self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    parent_name, parent_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, key_cert_sign=True, crl_sign=True,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if issuer:
        parent_public = issuer[1].public_key()
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(parent_public), False
        )
    return builder.sign(parent_key, hashes.SHA256()), key


def make_chain(
    now: datetime, intermediates: int, upper_lifetime: timedelta = timedelta(days=365)
) -> CaMaterial:
    """Make material whose signer is that many steps below a root."""
    root = make_ca("Root", now)
    chain = [root]
    for index in range(intermediates):
        lifetime = timedelta(days=365) if index else upper_lifetime
        chain.append(make_ca(f"Intermediate {index}", now, chain[-1], lifetime))
    certificate, key = chain[-1]
    others = b"".join(each.public_bytes(PEM) for each, _ in chain[1:])
    return make_material(
        private_key_pem(key), certificate.public_bytes(PEM), others, root[0].public_bytes(PEM), now
    )
