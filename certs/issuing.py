"""
How certificates look: the rules of issuing, without files, clock or event loop.

Leaves are X509-SVIDs: one SPIFFE URI as critical subject alternative name, no subject unless asked
for, client and server use, never an authority, and never valid longer than anything they are
verified with. Keys of the elliptic kind are not marked for key encipherment, which RFC 8813
forbids (Istio does). Source: security.md 3.3.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.certs.csr import PublicKey, SigningRequest, read_csr
from pilothouse.certs.issued import DEFAULT_TTL, LONGEST_TTL, IssuedChain, KeyAlgorithm, KeyPair
from pilothouse.certs.material import (
    CaMaterial,
    SigningKey,
    fingerprint,
    load_key,
    private_pem,
)
from pilothouse.certs.refusals import SignerEnded, SigningFailed, TtlRefused
from pilothouse.errors import InvalidConfig
from pilothouse.model.identity import WorkloadIdentity

BACKDATING: Final = timedelta(minutes=2)
"""Certificates are valid from a little before now: clocks of one mesh differ (C-S-4)."""

_LONGEST_COMMON_NAME: Final = 64
_LEAF_USES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_SERVER_USES: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)


class IssuingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    Lifetimes of leaves, and the mesh's other trust domains, which requests may name.

    Raises: InvalidConfig: The default is not positive or longer than the longest.
    """

    default_ttl: timedelta = DEFAULT_TTL
    longest_ttl: timedelta = LONGEST_TTL
    trust_domain_aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the lifetimes."""
        if not timedelta(0) < self.default_ttl <= self.longest_ttl:
            raise InvalidConfig(
                f"The default lifetime of certificates, {self.default_ttl}, must be positive and"
                f" not longer than the longest, {self.longest_ttl}."
            )

    def ttl(self, wanted: timedelta | None) -> timedelta:
        """Return the lifetime to give (C-S-5). Raises: TtlRefused."""
        if wanted is None or wanted <= timedelta(0):
            return self.default_ttl
        if wanted > self.longest_ttl:
            raise TtlRefused(wanted, self.longest_ttl)
        return wanted


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """A loaded authority: key and certificate, and when the first of its chain ends."""

    key: SigningKey
    certificate: x509.Certificate
    material: CaMaterial
    not_before: datetime
    not_after: datetime
    key_identifier: x509.AuthorityKeyIdentifier

    @staticmethod
    def load(material: CaMaterial) -> "Signer":
        """
        Load what `make_material` has checked.

        Raises: BadMaterial.
        """
        certificate = x509.load_pem_x509_certificate(material.certificate_pem)
        path = [
            certificate,
            *map(x509.load_pem_x509_certificate, material.intermediates_pem),
            *(
                root
                for root in x509.load_pem_x509_certificates(material.roots_pem)
                if fingerprint(root) == material.root
            ),
        ]
        return Signer(
            key=load_key(material.key_pem),
            certificate=certificate,
            material=material,
            not_before=max(each.not_valid_before_utc for each in path),
            not_after=min(each.not_valid_after_utc for each in path),
            key_identifier=_key_identifier(certificate),
        )

    def __repr__(self) -> str:
        """Show the certificate's serial number, never the key."""
        return f"Signer(serial={self.certificate.serial_number:x})"


def sign_csr(
    signer: Signer,
    policy: IssuingPolicy,
    csr_pem: bytes,
    identity: WorkloadIdentity,
    ttl: timedelta | None,
    now: datetime,
) -> IssuedChain:
    """
    Certify the key of a request for an identity that was verified elsewhere.

    Raises: Refusal: See `pilothouse.certs.refusals`.
    """
    lifetime = policy.ttl(ttl)
    request = read_csr(csr_pem, identity, policy.trust_domain_aliases)
    return _issue(
        signer, request.public_key, _workload_names(identity), _LEAF_USES, lifetime, now,
        _subject(request, identity),
    )  # fmt: skip


def issue_workload(
    signer: Signer,
    policy: IssuingPolicy,
    identity: WorkloadIdentity,
    ttl: timedelta | None,
    algorithm: KeyAlgorithm,
    now: datetime,
) -> KeyPair:
    """Make a key and certify it for a workload. Raises: Refusal."""
    lifetime = policy.ttl(ttl)
    key = generate_key(algorithm)
    chain = _issue(signer, key.public_key(), _workload_names(identity), _LEAF_USES, lifetime, now)
    return KeyPair(chain=chain, key_pem=private_pem(key))


def issue_server(
    signer: Signer,
    policy: IssuingPolicy,
    names: Sequence[str],
    ttl: timedelta | None,
    now: datetime,
) -> KeyPair:
    """Make a P-256 key and certify it for DNS names and IP addresses. Raises: Refusal."""
    lifetime = policy.ttl(ttl)
    key = generate_key(KeyAlgorithm.ECDSA_P256)
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    chain = _issue(signer, key.public_key(), alternatives, _SERVER_USES, lifetime, now)
    return KeyPair(chain=chain, key_pem=private_pem(key))


def generate_key(algorithm: KeyAlgorithm) -> SigningKey:
    """Make a private key."""
    match algorithm:
        case KeyAlgorithm.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            return rsa.generate_private_key(65_537, int(algorithm.value.removeprefix("rsa-")))


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """Return the hash that fits a signing key's strength."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        return hashes.SHA384() if isinstance(key.curve, ec.SECP384R1) else hashes.SHA512()
    return hashes.SHA256()


def leaf_usage(public_key: PublicKey) -> x509.KeyUsage:
    """Return what a leaf's key may do."""
    return key_usage(
        digital_signature=True, key_encipherment=isinstance(public_key, rsa.RSAPublicKey)
    )


def key_usage(
    *, digital_signature: bool = False, key_encipherment: bool = False, signs: bool = False
) -> x509.KeyUsage:
    """Return a key usage; `signs` is for certificates and revocation lists."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issue(
    signer: Signer,
    public_key: PublicKey,
    names: x509.SubjectAlternativeName,
    uses: Sequence[x509.ObjectIdentifier],
    lifetime: timedelta,
    now: datetime,
    subject: x509.Name | None = None,
) -> IssuedChain:
    moment = now.replace(microsecond=0)  # certificates count seconds
    if not signer.not_before <= now < signer.not_after:
        raise SignerEnded(
            f"the authority's certificates are valid from {signer.not_before:%Y-%m-%d %H:%M} to"
            f" {signer.not_after:%Y-%m-%d %H:%M} UTC only"
        )
    not_before = moment - BACKDATING
    not_after = min(moment + lifetime, signer.not_after).replace(microsecond=0)
    serial = x509.random_serial_number()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([]))
        .issuer_name(signer.certificate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(leaf_usage(public_key), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        # Critical because the subject is empty (RFC 5280 4.2.1.6), and as Istio has it.
        .add_extension(names, critical=True)
        .add_extension(signer.key_identifier, critical=False)
    )
    try:
        leaf = builder.sign(signer.key, hash_for(signer.key))
    except (ValueError, TypeError) as failure:
        raise SigningFailed("the certificate could not be made") from failure
    return IssuedChain(
        leaf_pem=leaf.public_bytes(serialization.Encoding.PEM),
        intermediates_pem=signer.material.intermediates_pem,
        roots_pem=signer.material.roots_pem,
        root=signer.material.root,
        serial=f"{serial:x}",
        not_before=not_before,
        not_after=not_after,
    )


def _workload_names(identity: WorkloadIdentity) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])


def _subject(request: SigningRequest, identity: WorkloadIdentity) -> x509.Name | None:
    """Return the identity as common name if a request has any, and it fits (C-S-2/3)."""
    name = str(identity)
    if not request.wants_common_name or len(name) > _LONGEST_COMMON_NAME:
        return None
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public_key = certificate.public_key()
        if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise SigningFailed("the authority's key is of an unknown kind") from None
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
