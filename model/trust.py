"""
What proxies of the mesh trust: the roots, and the certificates that no longer count.

A row that the runtime puts whenever the authority's roots change; pure.
"""

import msgspec


class TrustBundle(msgspec.Struct, frozen=True, kw_only=True):
    """
    All trusted roots as concatenated PEM, and the revocation lists as PEM (b"" none).

    `roots_pem` is in a stable order, so that equal trust is equal bytes.
    """

    roots_pem: bytes
    crl_pem: bytes = b""
