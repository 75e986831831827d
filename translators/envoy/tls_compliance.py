"""
What a compliance policy makes of TLS settings; applied last, to every kind of context (S-PA-9).

Where istiod leaves a choice to an Envoy that is built for FIPS, it is made here, since a stock
Envoy would choose otherwise: the suites and the curve of fips-140-2.
"""

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2
from pilothouse.model.tls_policy import ALLOWED, FIPS_CIPHERS, CompliancePolicy


def enforce(parameters: common_pb2.TlsParameters, policy: CompliancePolicy) -> None:
    """Change the settings to what the policy allows; nothing they say can be outside of it."""
    if policy is CompliancePolicy.NONE:
        return
    if policy is CompliancePolicy.FIPS_140_3:
        # Envoy applies it after all the rest, and it is the only way to choose suites of TLS 1.3.
        parameters.compliance_policies[:] = [common_pb2.TlsParameters.FIPS_202205]
        return
    kinds, allowed = common_pb2.TlsParameters, ALLOWED[policy]
    versions = {"TLSV1_2": kinds.TLSv1_2, "TLSV1_3": kinds.TLSv1_3}
    parameters.tls_minimum_protocol_version = versions[allowed.oldest]
    parameters.tls_maximum_protocol_version = versions[allowed.newest]
    kept = [name for name in parameters.cipher_suites if name in FIPS_CIPHERS]
    parameters.cipher_suites[:] = kept if kept and allowed.may_choose else FIPS_CIPHERS
    parameters.ecdh_curves[:] = allowed.curves
