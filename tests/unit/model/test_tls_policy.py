"""What compliance policies allow, and what of the mesh config they override (S-PA-9)."""

import pytest
from mesh_of import mesh_of

from pilothouse.api.mesh_config import MeshTls
from pilothouse.graph.core import Graph
from pilothouse.model.compliance import compliance, skips_trust_domains
from pilothouse.model.inputs import THE_MESH, TLS_POLICY
from pilothouse.model.tls_policy import FIPS_CIPHERS, CompliancePolicy, TlsPolicy, overridden

POLICIES = [policy for policy in CompliancePolicy if policy]
FIPS_2, FIPS_3, PQC = POLICIES


def fields(policy: CompliancePolicy, tls: MeshTls) -> list[str]:
    return [each.field for each in overridden(policy, tls)]


def test_names_are_istiods() -> None:
    """S-PA-9: the values of COMPLIANCE_POLICY."""
    assert [*map(str, CompliancePolicy)] == ["", "fips-140-2", "fips-140-3", "pqc"]


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        (MeshTls(), {}),
        (MeshTls(min_protocol_version="TLSV1_2"), {PQC: ["minProtocolVersion"]}),
        (
            MeshTls(min_protocol_version="TLSV1_3"),
            {FIPS_2: ["minProtocolVersion"], FIPS_3: ["minProtocolVersion"]},
        ),
        (MeshTls(cipher_suites=FIPS_CIPHERS), {}),
        (
            MeshTls(cipher_suites=FIPS_CIPHERS[1:]),
            {FIPS_3: ["cipherSuites"], PQC: ["cipherSuites"]},
        ),
        (MeshTls(cipher_suites=("AES128-SHA",)), {each: ["cipherSuites"] for each in POLICIES}),
        (MeshTls(ecdh_curves=("P-256",)), {FIPS_3: ["ecdhCurves"], PQC: ["ecdhCurves"]}),
        (MeshTls(ecdh_curves=("P-384", "P-256")), {FIPS_2: ["ecdhCurves"], PQC: ["ecdhCurves"]}),
        (
            MeshTls(ecdh_curves=("X25519MLKEM768",)),
            {FIPS_2: ["ecdhCurves"], FIPS_3: ["ecdhCurves"]},
        ),
    ],
)
def test_what_is_overridden_is_told(tls: MeshTls, told: dict[CompliancePolicy, list[str]]) -> None:
    """S-PA-9, MC-20, MC-21: each field that is not used as it is written, and no other."""
    for policy in CompliancePolicy:
        assert fields(policy, tls) == told.get(policy, []), policy


def found(graph: Graph) -> list[str]:
    assert graph.value(compliance, None) in CompliancePolicy
    return sorted(
        each.ref.path for each in graph.findings() if each.code == "OutsideCompliancePolicy"
    )


def test_findings_come_and_go_with_the_policy() -> None:
    """S-PA-9: they name object, field and remedy."""
    oldest = "minProtocolVersion: TLSV1_3"
    own, defaults = f"{{{oldest}}}", f"{{{oldest}, ecdhCurves: [X25519]}}"
    graph = mesh_of("", f"meshMTLS: {own}\ntlsDefaults: {defaults}")
    assert found(graph) == []
    graph.commit([(TLS_POLICY, THE_MESH, TlsPolicy(FIPS_2))])
    assert found(graph) == [
        "meshMTLS.minProtocolVersion",
        "tlsDefaults.ecdhCurves",
        "tlsDefaults.minProtocolVersion",
    ]
    assert {(each.ref.kind, each.ref.name) for each in graph.findings()} == {("MeshConfig", "mesh")}
    assert all(each.remedy for each in graph.findings())
    graph.commit([(TLS_POLICY, THE_MESH, None)])
    assert found(graph) == []


def test_trust_domains_are_checked_unless_told_otherwise() -> None:
    """S-PA-8: off without a row, and with one that does not say so."""
    graph = Graph()
    assert graph.value(skips_trust_domains, None) is False
    for wanted in (True, False):
        graph.commit([(TLS_POLICY, THE_MESH, TlsPolicy(skips_trust_domains=wanted))])
        assert graph.value(skips_trust_domains, None) is wanted
