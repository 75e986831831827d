"""
Private keys that never leave the host, and requests to have them certified.

A request names nobody: who we are is told by what we prove it with (security.md C-S-1).
"""

from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_PUBLIC_EXPONENT: Final = 65_537


class KeyKind(StrEnum):
    """What kinds of key there are (C-S-7)."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"


class SigningRequest:
    """A fresh private key and the request to certify it, both PEM; never shown by repr."""

    __slots__ = ("csr_pem", "key_pem")

    def __init__(self, kind: KeyKind) -> None:
        """Make a key."""
        key = _make(kind)
        self.key_pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        self.csr_pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _make(kind: KeyKind) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    match kind:
        case KeyKind.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyKind.RSA_2048:
            return rsa.generate_private_key(_PUBLIC_EXPONENT, 2_048)
        case KeyKind.RSA_4096:
            return rsa.generate_private_key(_PUBLIC_EXPONENT, 4_096)
