"""
Roots that an operator adds to those of the mesh, as text: what counts as one.

Used where the mesh config is checked and where its roots are handed out, so that what is said and
what is done agree. A text with one certificate that is no authority's is not used at all, as in
Istio: half of what somebody meant to trust is not what they meant. Source: security.md C-R-6.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pilothouse.errors import InvalidConfig

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


class BadRoots(InvalidConfig):
    """A text does not hold certificates of authorities; `problem` is a sentence about it."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence; it never quotes the text."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return self.problem


def read_roots(pem: bytes) -> list[bytes]:
    """Return the certificates of authorities in a text, one PEM block each. Raises: BadRoots."""
    from cryptography import x509  # noqa: PLC0415 (start-up time: few meshes have any)

    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadRoots("It holds no PEM certificate, or one that cannot be read.") from None
    return checked_roots(found)


def checked_roots(found: "Iterable[Certificate]") -> list[bytes]:
    """Return certificates as PEM blocks. Raises: BadRoots: One of them is not an authority's."""
    from cryptography import x509  # noqa: PLC0415 (start-up time)
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    blocks = []
    for number, each in enumerate(found):
        try:
            is_authority = each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
            is_authority = False
        if not is_authority:
            raise BadRoots(f"Certificate {number + 1} in it is not an authority's.")
        blocks.append(each.public_bytes(Encoding.PEM))
    return blocks


def bundle_url(text: str) -> str:
    """
    Return the URL of a SPIFFE bundle as it is fetched; without a scheme it is https, as in Istio.

    Raises: BadRoots: It is of another scheme, or not a URL.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415 (start-up time)

    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadRoots("It is not a URL.") from None
    if parts.scheme != "https" or not host:
        raise BadRoots("A bundle is fetched over https only.")
    if parts.username is not None or parts.password is not None:
        raise BadRoots("A URL of a bundle must not hold a password.")
    return url
