"""
Certificate signing requests, read with suspicion: the only thing taken from one is its key.

A request is refused if it is not one well-formed PEM block, is not signed by its own key, brings a
key that is weak or of a kind Envoy does not take, or asks for a name other than the caller's.
Istio's built-in authority ignores names in requests; refusing others' makes an attempt visible
(security.md C-S-1, C-S-2/3, C-S-7). Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pilothouse.certs.refusals import CsrProblem, CsrRefused
from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity

MAX_CSR_BYTES: Final = 16 * 1024
"""A request with an RSA key of 8192 bits has 3 KB."""

_SMALLEST_RSA_BITS: Final = 2_048
_LARGEST_RSA_BITS: Final = 8_192
_LARGEST_RSA_EXPONENT: Final = 2**32
"""Every verifier raises to this power, so a caller may not choose it freely."""
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRequest:
    """What counts of a request: the key, and whether a common name is wanted (dual use)."""

    public_key: PublicKey
    wants_common_name: bool


def read_csr(
    csr_pem: bytes, identity: WorkloadIdentity, aliases: Iterable[str] = ()
) -> SigningRequest:
    """
    Read the PEM request of a caller known to be `identity`.

    Names are optional; those there are must be that identity, under the mesh's trust domain or one
    of its `aliases`.

    Raises: CsrRefused.
    """
    if len(csr_pem) > MAX_CSR_BYTES:
        raise CsrRefused(
            CsrProblem.TOO_LARGE,
            f"the request has {len(csr_pem)} bytes, more than the {MAX_CSR_BYTES} allowed",
        )
    if csr_pem.count(b"-----BEGIN ") != 1:
        raise CsrRefused(CsrProblem.MALFORMED, "the request is not exactly one PEM block")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        public_key = request.public_key()
        hash_algorithm = request.signature_hash_algorithm
        extensions = request.extensions
        wants_common_name = bool(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        # The parser's own text may quote the input, so it is not passed on.
        raise CsrRefused(
            CsrProblem.MALFORMED, "the request is not a well-formed PKCS #10 request"
        ) from None
    checked_key = _check_key(public_key)
    if not isinstance(hash_algorithm, _HASHES):
        raise CsrRefused(
            CsrProblem.BAD_SIGNATURE, "the request must be signed with SHA-256, SHA-384 or SHA-512"
        )
    if not _is_signed_by_its_key(request):
        raise CsrRefused(
            CsrProblem.BAD_SIGNATURE, "the request's signature is not by the key it brings"
        )
    _check_names(extensions, identity, aliases)
    _check_constraints(extensions)
    return SigningRequest(public_key=checked_key, wants_common_name=wants_common_name)


def _check_key(public_key: object) -> PublicKey:
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        if isinstance(public_key.curve, ec.SECP256R1 | ec.SECP384R1):
            return public_key
        raise CsrRefused(
            CsrProblem.WEAK_KEY,
            f"keys of the curve {public_key.curve.name} are not accepted; use P-256 or P-384",
        )
    if isinstance(public_key, rsa.RSAPublicKey):
        bits, exponent = public_key.key_size, public_key.public_numbers().e
        if (
            _SMALLEST_RSA_BITS <= bits <= _LARGEST_RSA_BITS
            and 65_537 <= exponent <= _LARGEST_RSA_EXPONENT
        ):
            return public_key
        raise CsrRefused(
            CsrProblem.WEAK_KEY,
            f"RSA keys need {_SMALLEST_RSA_BITS} to {_LARGEST_RSA_BITS} bits and an exponent from"
            f" 65537 to 2**32; this one has {bits} bits",
        )
    raise CsrRefused(
        CsrProblem.WEAK_KEY, "only RSA keys and ECDSA keys of P-256 and P-384 are accepted"
    )


def _is_signed_by_its_key(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _check_names(
    extensions: x509.Extensions, identity: WorkloadIdentity, aliases: Iterable[str]
) -> None:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    trust_domains = {identity.trust_domain, *aliases}
    for name in names:
        if not _is_own(name, identity, trust_domains):
            shown = ascii(str(name.value))[:200]
            raise CsrRefused(
                CsrProblem.FOREIGN_NAME,
                f"the request asks for {shown}, but the caller is {identity}",
            )


def _is_own(name: x509.GeneralName, identity: WorkloadIdentity, trust_domains: set[str]) -> bool:
    if not isinstance(name, x509.UniformResourceIdentifier):
        return False
    try:
        asked = WorkloadIdentity.parse(name.value)
    except InvalidIdentity:
        return False
    return (
        asked.namespace == identity.namespace
        and asked.service_account == identity.service_account
        and asked.trust_domain in trust_domains
    )


def _check_constraints(extensions: x509.Extensions) -> None:
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise CsrRefused(
                CsrProblem.ASKS_FOR_CA, "the request asks for a certificate that may sign others"
            )
