"""
Cipher suites of TLS 1.2 by the names that istiod's ``--tls-cipher-suites`` has (C-R-14).

Those of TLS 1.3 cannot be chosen, as in istiod: all are good.
"""

from collections.abc import Iterable
from typing import Final

OPENSSL_NAMES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}


def openssl_ciphers(suites: Iterable[str]) -> str:
    """Return suites as OpenSSL wants them, "" for none. Raises: KeyError: One is not offered."""
    return ":".join(OPENSSL_NAMES[suite] for suite in suites)
