"""
What the certificate authority hands out: certificate chains, and keys that it made itself.

Values only: they cross the pipe to the signing process (`pilothouse.certs.signing`), go into
answers of the certificate service and into rows of the graph. A private key is never in a repr.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

DEFAULT_TTL: Final = timedelta(hours=24)
LONGEST_TTL: Final = timedelta(days=90)
"""Lifetimes of workloads' certificates; istiod's (C-S-5)."""


class KeyAlgorithm(StrEnum):
    """Kinds of keys made here; requests may bring any that `pilothouse.certs.csr` takes."""

    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class IssuedChain(msgspec.Struct, frozen=True, kw_only=True):
    """
    A certificate with what is needed to verify it; all PEM, each ending with a newline.

    `intermediates_pem` leads from the leaf's issuer to the last certificate below a root and is
    empty if a root signed. `roots_pem` is the whole trust bundle at the time of issue. `root` is
    the fingerprint of the root that the chain ends at, `serial` the leaf's serial number in
    lower-case hexadecimal.
    """

    leaf_pem: bytes
    intermediates_pem: tuple[bytes, ...] = ()
    roots_pem: bytes
    root: str
    serial: str
    not_before: datetime
    not_after: datetime

    @property
    def chain_pem(self) -> bytes:
        """The leaf and the intermediates in one text, as TLS servers and SDS want it."""
        return b"".join((self.leaf_pem, *self.intermediates_pem))

    @property
    def elements(self) -> tuple[bytes, ...]:
        """The answer of CreateCertificate: leaf, each intermediate, all roots (C-W-3)."""
        return (self.leaf_pem, *self.intermediates_pem, self.roots_pem)


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """An issued chain with the private key, PEM (PKCS #8), that was made for it here."""

    chain: IssuedChain
    key_pem: bytes

    def __repr__(self) -> str:
        """Show the serial number and the end of life, nothing else."""
        return f"KeyPair(serial={self.chain.serial}, not_after={self.not_after.isoformat()})"

    @property
    def certificate_pem(self) -> bytes:
        """The leaf and the intermediates in one text."""
        return self.chain.chain_pem

    @property
    def not_after(self) -> datetime:
        """When the leaf ends."""
        return self.chain.not_after
