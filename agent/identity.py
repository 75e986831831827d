"""
What the agent holds: a certificate with its key and the roots, as the authority gave them.

Values and their reading; no input or output.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from pilothouse.errors import ProtocolError
from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity


class BadAnswer(ProtocolError):
    """The authority's answer cannot be used."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The roots of the mesh and its revocation lists, PEM."""

    roots_pem: bytes
    crl_pem: bytes = b""

    @property
    def signer(self) -> str:
        """The fingerprint of the first root, which is the one that signs; "" if there is none."""
        try:
            return _fingerprint(x509.load_pem_x509_certificate(self.roots_pem))
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HeldIdentity:
    """
    A chain and its key, PEM, and whom to trust; times with a zone. Never shown by repr.

    `root` is the fingerprint of the root that the chain leads to, "" if that is not told.
    """

    chain_pem: bytes
    key_pem: bytes
    trust: Trust
    identity: WorkloadIdentity
    obtained_at: datetime
    not_after: datetime
    root: str = ""

    def __repr__(self) -> str:
        """Show whose it is and until when."""
        return f"HeldIdentity({self.identity}, not_after={self.not_after.isoformat()})"

    @staticmethod
    def read(elements: tuple[str, ...], key_pem: bytes, now: datetime) -> "HeldIdentity":
        """
        Read an answer: leaf, intermediates, and last the roots (C-W-3).

        Raises: BadAnswer: It is too short, no PEM, for another key, or without an identity.
        """
        if len(elements) < 2:
            raise BadAnswer("The authority answered with less than a certificate and its roots.")
        chain_pem = "".join(elements[:-1]).encode()
        try:
            leaf = x509.load_pem_x509_certificate(chain_pem)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
            identity = WorkloadIdentity.parse(uri)
            roots = x509.load_pem_x509_certificates(elements[-1].encode())
            last = x509.load_pem_x509_certificates(chain_pem)[-1]
            own = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, x509.ExtensionNotFound, InvalidIdentity) as problem:
            raise BadAnswer("The authority's answer is no certificate of a workload.") from problem
        if own.public_key() != leaf.public_key():
            raise BadAnswer("The authority's answer is for another key.")
        return HeldIdentity(
            chain_pem=chain_pem,
            key_pem=key_pem,
            trust=Trust(elements[-1].encode()),
            identity=identity,
            obtained_at=now,
            not_after=leaf.not_valid_after_utc,
            root=next((_fingerprint(root) for root in roots if _issued(last, root)), ""),
        )


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
