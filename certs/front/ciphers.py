"""
What the secure port demands of TLS: cipher suites of TLS 1.2, and what a policy leaves of it.

Suites go by the names that istiod's ``--tls-cipher-suites`` has (C-R-14). Those of TLS 1.3 cannot
be chosen, as in istiod: all are good, but not all are FIPS's. Nor can Python offer two curves, so
that under a policy the port is narrower than istiod's (S-PA-9).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from pilothouse.errors import MeshError
from pilothouse.model.tls_policy import FIPS_CIPHERS, CompliancePolicy

OPENSSL_NAMES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}

_P256: Final = "prime256v1"


class PolicyUnavailable(MeshError):
    """This server's TLS library cannot do what the policy demands, or nothing is left to offer."""


class PortTls(NamedTuple):
    """OpenSSL's ciphers of TLS 1.2, "" the default; the one curve, "" any; whether 1.2 is all."""

    ciphers: str = ""
    curve: str = ""
    is_tls12_only: bool = False


def openssl_ciphers(suites: Iterable[str]) -> str:
    """Return suites as OpenSSL wants them, "" for none. Raises: KeyError: One is not offered."""
    return ":".join(OPENSSL_NAMES[suite] for suite in suites)


def port_tls(suites: Iterable[str], policy: CompliancePolicy = CompliancePolicy.NONE) -> PortTls:
    """
    Return what the port demands where `suites` were chosen (none: the good ones).

    Raises: PolicyUnavailable. KeyError: A suite is not offered.
    """
    chosen = [OPENSSL_NAMES[suite] for suite in suites]
    match policy:
        case CompliancePolicy.NONE:
            return PortTls(":".join(chosen))
        case CompliancePolicy.PQC:
            raise PolicyUnavailable(
                "pqc cannot be had on the secure port, since this server's Python cannot choose"
                " X25519MLKEM768; pass --secure-grpc-addr off, and give proxies certificates of"
                " another authority."
            )
    kept = [name for name in chosen or FIPS_CIPHERS if name in FIPS_CIPHERS]
    if not kept:
        raise PolicyUnavailable(
            f"{policy} allows none of the suites that --tls-cipher-suites names; leave it out."
        )
    return PortTls(":".join(kept), _P256, is_tls12_only=True)
