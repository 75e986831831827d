"""
Reading the documents of SPIFFE bundle endpoints: the roots of another trust domain (C-R-6).

The format is that of the SPIFFE standard (a JSON Web Key Set whose entries for X.509 carry one
certificate each). A document is taken whole or not at all. Pure.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec
from cryptography import x509

from pilothouse.api.root_certificates import BadRoots, checked_roots

MOST_ROOTS: Final = 100
_X509: Final = "x509-svid"


class SpiffeBundle(msgspec.Struct, frozen=True, kw_only=True):
    """Roots as PEM, and how soon its owner wants to be asked again (None: says nothing)."""

    roots_pem: bytes
    refresh: timedelta | None = None


def read_bundle(document: Mapping[str, Any]) -> SpiffeBundle:
    """Return what a document says. Raises: BadRoots: It has no roots, or one is not fit."""
    listed = document.get("keys")
    keys = [
        each
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and each.get("use") == _X509
    ]
    if not keys:
        raise BadRoots("The document has no X.509 roots.")
    if len(keys) > MOST_ROOTS:
        raise BadRoots(f"The document has more than {MOST_ROOTS} roots.")
    roots = checked_roots(_certificate(each.get("x5c"), number) for number, each in enumerate(keys))
    return SpiffeBundle(
        roots_pem=b"".join(dict.fromkeys(roots)),
        refresh=_refresh(document.get("spiffe_refresh_hint")),
    )


def _refresh(hint: object) -> timedelta | None:
    if not isinstance(hint, int) or not 0 < hint < timedelta.max.total_seconds():
        return None
    return timedelta(seconds=hint)


def _certificate(chain: object, number: int) -> x509.Certificate:
    problem = f"Root {number + 1} of the document"
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise BadRoots(f"{problem} is not one certificate.")
    try:
        return x509.load_der_x509_certificate(b64decode(chain[0], validate=True))
    except ValueError:
        raise BadRoots(f"{problem} cannot be read.") from None
