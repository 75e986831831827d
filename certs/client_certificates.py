"""
Reading verified client certificates: one workload of a known trust domain, or nobody.

The handshake has verified the chain; here it is decided whom the leaf names (security.md C-R-13).
"""

from collections.abc import Callable, Collection
from typing import Final

from cryptography import x509

from pilothouse.certs.callers import ClientCertificate, CredentialRefused
from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity

_CRL_BEGIN: Final = "-----BEGIN X509 CRL-----"
_CRL_END: Final = "-----END X509 CRL-----"


class ClientCertificates:
    """The rule for verified leaves."""

    def __init__(self, trust_domains: Callable[[], Collection[str]]) -> None:
        """Accept identities of `trust_domains`, asked anew each time: the mesh config changes."""
        self._trust_domains = trust_domains

    def read(self, der: bytes) -> ClientCertificate:
        """
        Return what a verified leaf says.

        Raises: CredentialRefused: It names no workload, several, or one of a foreign trust domain,
            or is an authority's own certificate.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = _uri_names(certificate)
            is_authority = _is_authority(certificate)
        except (ValueError, x509.DuplicateExtension) as error:
            raise CredentialRefused("the certificate cannot be read") from error
        if is_authority:
            raise CredentialRefused("it is the certificate of an authority")
        if len(names) != 1:
            raise CredentialRefused(f"it has {len(names)} URI names; exactly one is needed")
        try:
            identity = WorkloadIdentity.parse(names[0])
        except InvalidIdentity as error:
            raise CredentialRefused(f"its name is not an identity: {error}") from error
        if identity.trust_domain not in self._trust_domains():
            raise CredentialRefused(f"the trust domain of {identity} is not one of this mesh")
        return ClientCertificate(
            identity=identity,
            serial=f"{certificate.serial_number:x}",
            ends_at=certificate.not_valid_after_utc,
        )


def revoked_serials(crl_pem: str) -> frozenset[str]:
    """
    Return the serial numbers, in hex, that revocation lists (PEM) name; of damaged ones none.

    Serial numbers of this mesh are random and long, so whose list names one does not matter.
    """
    found: set[str] = set()
    for text in crl_pem.split(_CRL_END)[:-1]:
        _, begin, content = text.partition(_CRL_BEGIN)
        try:
            listed = x509.load_pem_x509_crl((begin + content + _CRL_END).encode("ascii"))
        except ValueError:  # the handshake refuses such lists, so nobody gets in by one
            continue
        found.update(f"{entry.serial_number:x}" for entry in listed)
    return frozenset(found)


def _uri_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca
