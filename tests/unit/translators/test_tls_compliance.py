"""A policy is the last word on every context, whatever was there before (S-PA-8, S-PA-9)."""

from collections.abc import Iterator
from typing import Any

import pytest
import story
from hypothesis import given
from hypothesis import strategies as st

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsParameters
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from pilothouse.api.tls_names import CIPHERS, CURVES
from pilothouse.model.inputs import THE_MESH, TLS_POLICY
from pilothouse.model.proxies import CertificateSource
from pilothouse.model.tls_policy import FIPS_CIPHERS, CompliancePolicy, TlsPolicy
from pilothouse.translators.envoy.mutual_tls import ServerTls, server_socket
from pilothouse.translators.envoy.tls_compliance import enforce

VERSIONS = [TlsParameters.TLSv1_0, TlsParameters.TLSv1_1, TlsParameters.TLSv1_2,
            TlsParameters.TLSv1_3]  # fmt: skip


@st.composite
def parameters(draw: Any) -> TlsParameters:
    """Any settings that config can lead to."""
    return TlsParameters(
        tls_minimum_protocol_version=draw(st.sampled_from(VERSIONS)),
        tls_maximum_protocol_version=draw(st.sampled_from(VERSIONS)),
        cipher_suites=draw(st.lists(st.sampled_from(sorted(CIPHERS)), unique=True)),
        ecdh_curves=draw(st.lists(st.sampled_from(sorted(CURVES)), unique=True)),
    )


@given(parameters())
def test_fips_140_2(given: TlsParameters) -> None:
    """S-PA-9: TLS 1.2, P-256; suites of FIPS, of those that were chosen if any is."""
    wanted = [name for name in given.cipher_suites if name in FIPS_CIPHERS]
    enforce(given, CompliancePolicy.FIPS_140_2)
    assert given.tls_minimum_protocol_version == TlsParameters.TLSv1_2
    assert given.tls_maximum_protocol_version == TlsParameters.TLSv1_2
    assert list(given.cipher_suites) == (wanted or list(FIPS_CIPHERS))
    assert list(given.ecdh_curves) == ["P-256"]


@given(parameters())
def test_fips_140_3(given: TlsParameters) -> None:
    """S-PA-9: Envoy's own policy, once however often it is applied."""
    for _ in range(2):
        enforce(given, CompliancePolicy.FIPS_140_3)
        assert list(given.compliance_policies) == [TlsParameters.FIPS_202205]


@given(parameters())
def test_pqc(given: TlsParameters) -> None:
    """S-PA-9: TLS 1.3 and nothing else, and the one curve."""
    enforce(given, CompliancePolicy.PQC)
    assert given.tls_minimum_protocol_version == TlsParameters.TLSv1_3
    assert given.tls_maximum_protocol_version == TlsParameters.TLSv1_3
    assert list(given.cipher_suites) == list(FIPS_CIPHERS)
    assert list(given.ecdh_curves) == ["X25519MLKEM768"]


@given(parameters())
def test_without_a_policy_nothing_changes(given: TlsParameters) -> None:
    """S-PA-9: what the config says is what Envoy is told."""
    before = given.SerializeToString(deterministic=True)
    enforce(given, CompliancePolicy.NONE)
    assert given.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("domains", [(), ("td",)])
def test_a_server_that_asks_for_no_trust_domain(domains: tuple[str, ...]) -> None:
    """S-PA-8: certificates are verified all the same, and what Envoy insists on is there."""
    socket = server_socket(ServerTls(CertificateSource.ADS, domains, None))
    context = DownstreamTlsContext.FromString(socket.typed_config.value)
    assert context.require_client_certificate.value
    validation = context.common_tls_context.combined_validation_context
    assert validation.HasField("default_validation_context")
    assert validation.validation_context_sds_secret_config.name == "ROOTCA"
    matchers = validation.default_validation_context.match_typed_subject_alt_names
    assert [each.matcher.prefix for each in matchers] == [f"spiffe://{each}/" for each in domains]


CURVES_OF = {
    CompliancePolicy.NONE: [],
    CompliancePolicy.FIPS_140_2: ["P-256"],
    CompliancePolicy.PQC: ["X25519MLKEM768"],
}


def contexts(data: Any) -> Iterator[dict[str, Any]]:
    """Yield the TLS parameters of every context within."""
    for value in data.values() if isinstance(data, dict) else data:
        if isinstance(value, dict | list):
            yield from contexts(value)
    if isinstance(data, dict) and "common_tls_context" in data:
        yield data["common_tls_context"].get("tls_params", {})


@pytest.mark.parametrize(
    "name", ["unknown_hosts", "tls_origination", "mutual_tls_clients", "ingress_tls"]
)
def test_no_context_of_any_kind_is_left_out(name: str) -> None:
    """S-PA-9: in whole stories, and back again when the setting is."""
    told = story.load(name)
    for policy in (*CURVES_OF, CompliancePolicy.NONE):
        told.graph.commit([(TLS_POLICY, THE_MESH, TlsPolicy(policy))])
        found = [
            parameters
            for proxy in told.proxies
            for resources in told.served(proxy).values()
            for resource in resources
            for parameters in contexts(story.content(resource))
        ]
        assert found
        curves = [each.get("ecdh_curves", []) for each in found]
        if policy is CompliancePolicy.NONE:
            assert all(each in ([], ["X25519"], ["P-256", "X25519"]) for each in curves)
        else:
            assert all(each == CURVES_OF[policy] for each in curves)
