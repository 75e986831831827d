"""
What the operator of the process demands of all TLS, beside what the mesh config says.

Both are settings of `serve`, as in istiod (security.md S-PA-8, S-PA-9), and enter the graph as one
row. This file says what a policy allows; it does not know how a proxy is told.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, Literal, NamedTuple

import msgspec

from pilothouse.api.gateway import ServerTls
from pilothouse.api.mesh_config import MeshTls


class CompliancePolicy(StrEnum):
    """Restrictions of all TLS, by istiod's names for its COMPLIANCE_POLICY."""

    NONE = ""
    FIPS_140_2 = "fips-140-2"
    FIPS_140_3 = "fips-140-3"
    PQC = "pqc"


class TlsPolicy(msgspec.Struct, frozen=True):
    """`skips_trust_domains` lets workloads of any trust domain call, if a root vouches for them."""

    compliance: CompliancePolicy = CompliancePolicy.NONE
    skips_trust_domains: bool = False


class Allowed(NamedTuple):
    """
    Versions of TLS from the oldest to the newest, suites of TLS 1.2, curves of key agreement.

    All at once, whatever the settings say, unless `may_choose` among the suites.
    """

    oldest: Literal["TLSV1_2", "TLSV1_3"]
    newest: Literal["TLSV1_2", "TLSV1_3"]
    curves: tuple[str, ...]
    may_choose: bool = False


FIPS_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""Of TLS 1.2; the same for all policies."""

ALLOWED: Final = {
    CompliancePolicy.FIPS_140_2: Allowed("TLSV1_2", "TLSV1_2", ("P-256",), may_choose=True),
    CompliancePolicy.FIPS_140_3: Allowed("TLSV1_2", "TLSV1_3", ("P-256", "P-384")),
    CompliancePolicy.PQC: Allowed("TLSV1_3", "TLSV1_3", ("X25519MLKEM768",)),
}


class Overridden(NamedTuple):
    """A field of TLS settings that the policy is stronger than, and what holds instead."""

    field: str
    instead: str


def overridden(policy: CompliancePolicy, tls: MeshTls | ServerTls) -> Iterator[Overridden]:
    """Yield the fields that say something else than what is done under a policy."""
    allowed = ALLOWED.get(policy)
    if allowed is None:
        return
    if tls.min_protocol_version not in ("TLS_AUTO", allowed.oldest):
        yield Overridden("minProtocolVersion", allowed.oldest)
    if isinstance(tls, ServerTls) and tls.max_protocol_version not in ("TLS_AUTO", allowed.newest):
        yield Overridden("maxProtocolVersion", allowed.newest)
    suites = set(tls.cipher_suites)
    if allowed.may_choose:
        if not suites.issubset(FIPS_CIPHERS):
            kept = [each for each in FIPS_CIPHERS if each in suites]
            yield Overridden("cipherSuites", ", ".join(kept or FIPS_CIPHERS))
    elif suites and suites != set(FIPS_CIPHERS):
        yield Overridden("cipherSuites", ", ".join(FIPS_CIPHERS))
    curves = set(tls.ecdh_curves) if isinstance(tls, MeshTls) else set()
    if curves and curves != set(allowed.curves):
        yield Overridden("ecdhCurves", ", ".join(allowed.curves))
