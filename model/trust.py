"""
What proxies of the mesh trust: the roots, and the certificates that no longer count.

Rows that the runtime puts: the authority's own roots whenever they change, and roots that it
fetched from elsewhere. What users add as text is in the mesh config (`added_roots`). Pure.
"""

import msgspec


class TrustBundle(msgspec.Struct, frozen=True, kw_only=True):
    """
    All trusted roots as concatenated PEM, and the revocation lists as PEM (b"" none).

    `roots_pem` is in a stable order, so that equal trust is equal bytes. `is_issued_here` is false
    where another authority than this server's issues the mesh's certificates (C-R-11).
    """

    roots_pem: bytes
    crl_pem: bytes = b""
    is_issued_here: bool = True


class FetchedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """The roots last fetched from a SPIFFE bundle endpoint, PEM."""

    roots_pem: bytes
