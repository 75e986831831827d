"""
What an authority signs with: a key, its certificate, the way up to a root, and the trust bundle.

`CaMaterial` is the value that is read from files, sent to the signing process, and checked here
once: everything that issues may rely on the checks of `check_material`. Pure; the key is never in
a repr or an error.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pilothouse.errors import SourceError

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_LONGEST_CHAIN: Final = 8
_SMALLEST_RSA_BITS: Final = 2_048
_PEM: Final = serialization.Encoding.PEM


class BadMaterial(SourceError):
    """Key, certificates and roots do not make an authority; the text says why."""

    def __init__(self, problem: str) -> None:
        """Keep what is wrong: a sentence about `where` the material is from."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return self.problem


class CaMaterial(msgspec.Struct, frozen=True, kw_only=True):
    """
    An authority's key and certificates, all PEM.

    `intermediates_pem` are what a leaf is sent with: from the signing certificate up to the last
    below a root, none if the signing certificate is itself a root. `roots_pem` is the trust
    bundle, which may hold more roots than `root`: the fingerprint of the one the chain ends at.
    `cross_pem` are certificates of that root by earlier ones, for a server to show (`cross_sign`).
    """

    key_pem: bytes
    certificate_pem: bytes
    intermediates_pem: tuple[bytes, ...] = ()
    roots_pem: bytes
    root: str
    crl_pem: bytes = b""
    cross_pem: bytes = b""

    def __repr__(self) -> str:
        """Show which root it is of, never the key."""
        return f"CaMaterial(root={self.root[:16]}, intermediates={len(self.intermediates_pem)})"


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in lower-case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def to_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as one PEM block that ends with a newline."""
    return certificate.public_bytes(_PEM)


def private_pem(key: SigningKey) -> bytes:
    """Return a key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(key_pem: bytes) -> SigningKey:
    """
    Read a signing key.

    Raises: BadMaterial: It is damaged, encrypted, weak or of another kind.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except TypeError:
        raise BadMaterial("the key is encrypted; it must be plain PEM in a private place") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadMaterial("the key is not a PEM private key") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SMALLEST_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        return key
    raise BadMaterial(
        "the key must be RSA of at least 2048 bits, or ECDSA of P-256, P-384 or P-521"
    )


def load_certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    """
    Read all certificates in a text, none if it is blank; `what` names it in errors.

    Raises: BadMaterial.
    """
    if not pem.strip():
        return []
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadMaterial(f"{what} is not PEM certificates") from None


def join_roots(roots: Iterable[x509.Certificate], first: str = "") -> bytes:
    """Concatenate roots in a stable order, each once; the one of fingerprint `first` leads."""
    by_fingerprint = {fingerprint(root): to_pem(root) for root in roots}
    order = sorted(by_fingerprint, key=lambda key: (key != first, key))
    return b"".join(by_fingerprint[key] for key in order)


def make_material(
    key_pem: bytes,
    certificate_pem: bytes,
    others_pem: bytes,
    roots_pem: bytes,
    now: datetime,
    crl_pem: bytes = b"",
) -> CaMaterial:
    """
    Put an authority together from texts and check it.

    `others_pem` holds the certificates between the signing one and a root, in any order; those
    not needed are left out. Roots that have ended are kept: verifiers ignore them.

    Raises: BadMaterial: The key is not the certificate's, the certificate may not sign or is not
        valid now, or no chain leads from it to one of the roots.
    """
    key = load_key(key_pem)
    certificate = _one(certificate_pem, "the signing certificate")
    roots = load_certificates(roots_pem, "the root bundle")
    if not roots:
        raise BadMaterial("the root bundle is empty")
    if key.public_key() != certificate.public_key():
        raise BadMaterial("the key does not belong to the signing certificate")
    others = load_certificates(others_pem, "the certificate chain")
    chain, root = _chain_to_root(certificate, others, roots)
    for each in (certificate, *chain, root):
        _check_authority(each, now)
    _check_path_lengths([certificate, *chain, root])
    _check_revocations(crl_pem)
    return CaMaterial(
        key_pem=private_pem(key),
        certificate_pem=to_pem(certificate),
        intermediates_pem=tuple(
            to_pem(each) for each in (certificate, *chain) if fingerprint(each) != fingerprint(root)
        ),
        # Agents see by the order that another root signs now.
        roots_pem=join_roots(roots, fingerprint(root)),
        root=fingerprint(root),
        crl_pem=crl_pem,
    )


def _one(pem: bytes, what: str) -> x509.Certificate:
    found = load_certificates(pem, what)
    if not found:
        raise BadMaterial(f"{what} is missing")
    # Some tools put the whole chain into the file; the signing certificate comes first.
    return found[0]


def _chain_to_root(
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
) -> tuple[list[x509.Certificate], x509.Certificate]:
    """Return what lies between the certificate and a root, and that root."""
    by_fingerprint = {fingerprint(root): root for root in roots}
    chain: list[x509.Certificate] = []
    last = certificate
    while len(chain) < _LONGEST_CHAIN:
        own = by_fingerprint.get(fingerprint(last))
        if own is not None:
            return chain[:-1], own
        root = next((root for root in roots if _issued(last, root)), None)
        if root is not None:
            return chain, root
        above = next((each for each in others if each not in chain and _issued(last, each)), None)
        if above is None or above == last:
            break
        chain.append(above)
        last = above
    raise BadMaterial("no chain leads from the signing certificate to a certificate of the bundle")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_authority(certificate: x509.Certificate, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()[:100] or fingerprint(certificate)[:16]
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        raise BadMaterial(f"the certificate {name} is not an authority's") from None
    if not constraints.ca:
        raise BadMaterial(f"the certificate {name} is not an authority's")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.key_cert_sign:
        raise BadMaterial(f"the certificate {name} may not sign others by its key usage")
    if now < certificate.not_valid_before_utc:
        raise BadMaterial(f"the certificate {name} is not valid before its time, which is to come")
    if now >= certificate.not_valid_after_utc:
        raise BadMaterial(f"the certificate {name} has ended")


def _check_path_lengths(chain: Sequence[x509.Certificate]) -> None:
    """Each authority allows the ones below it; `chain` starts with the signing certificate."""
    unique = list(dict.fromkeys(chain))
    for below, certificate in enumerate(unique):
        limit = certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        ).value.path_length
        if limit is not None and limit < below:
            raise BadMaterial(
                f"a certificate of the chain allows {limit} authorities below it, not {below}"
            )


def _check_revocations(crl_pem: bytes) -> None:
    if not crl_pem.strip():
        return
    try:
        for block in crl_pem.split(b"-----END X509 CRL-----")[:-1]:
            x509.load_pem_x509_crl(block.lstrip() + b"-----END X509 CRL-----\n")
    except ValueError:
        raise BadMaterial("the revocation list is not PEM") from None
    if b"-----END X509 CRL-----" not in crl_pem:
        raise BadMaterial("the revocation list is not PEM")
