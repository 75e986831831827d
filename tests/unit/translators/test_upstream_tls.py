"""TLS towards a destination: which names are sent and checked, and what stays closed."""

from typing import Any

import pytest
from google.protobuf import json_format
from route_building import from_data

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from pilothouse.api.destination_rule import ClientTls, ProxyProtocol
from pilothouse.api.mesh_config import MeshTls
from pilothouse.model.protocols import Protocol
from pilothouse.translators.envoy.proxy_protocol import apply_proxy_protocol
from pilothouse.translators.envoy.upstream_tls import (
    TlsTarget,
    TlsUnavailable,
    apply_tls,
    automatic_names,
)

MUTUAL = {"mode": "MUTUAL", "clientCertificate": "/c.pem", "privateKey": "/k.pem"}


def context(
    tls: dict[str, Any], host: str = "h.example", protocol: Protocol = Protocol.HTTP, **more: Any
) -> dict[str, Any]:
    """Return the TLS context of a cluster as plain data."""
    cluster = cluster_pb2.Cluster()
    target = TlsTarget(host=host, protocol=protocol, is_http2=protocol.is_http2, **more)
    apply_tls(cluster, from_data(tls, ClientTls), target)
    built = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
    return json_format.MessageToDict(built, preserving_proto_field_name=True, descriptor_pool=POOL)


def checked(built: dict[str, Any]) -> set[str]:
    validation = built["common_tls_context"]["validation_context"]
    matchers = validation.get("match_typed_subject_alt_names", [])
    return {each["matcher"]["exact"] for each in matchers}


@pytest.mark.parametrize(
    ("tls", "protocol", "names", "expected"),
    [
        ({"mode": "SIMPLE"}, Protocol.HTTP, (), (True, True)),
        ({"mode": "SIMPLE"}, Protocol.AUTO, (), (True, True)),
        ({"mode": "SIMPLE"}, Protocol.TCP, (), (False, False)),
        ({"mode": "SIMPLE"}, Protocol.HTTP, ("x.example",), (True, False)),
        ({"mode": "SIMPLE", "sni": "s.example"}, Protocol.HTTP, (), (False, False)),
        ({"mode": "SIMPLE", "subjectAltNames": ["x"]}, Protocol.HTTP, (), (True, False)),
        ({"mode": "SIMPLE", "insecureSkipVerify": True}, Protocol.HTTP, (), (True, False)),
        (MUTUAL, Protocol.GRPC, (), (True, True)),
        ({"mode": "ISTIO_MUTUAL"}, Protocol.HTTP, (), (False, False)),
        ({"mode": "DISABLE"}, Protocol.HTTP, (), (False, False)),
    ],
)
def test_what_requests_decide(tls: Any, protocol: Protocol, names: Any, expected: Any) -> None:
    """DR-55: SNI and name come from the request unless the rule says them."""
    assert automatic_names(from_data(tls, ClientTls), protocol, names) == expected


def test_requests_leave_nothing_to_say() -> None:
    """DR-51, DR-55: an HTTP cluster has no SNI and no names of its own."""
    built = context({"mode": "SIMPLE"})
    assert "sni" not in built
    assert checked(built) == set()


def test_opaque_connections_are_for_the_host() -> None:
    """DR-55: they carry no host, so the service's stands in; a detected port may be opaque."""
    for protocol in (Protocol.TCP, Protocol.AUTO):
        built = context({"mode": "SIMPLE"}, protocol=protocol)
        assert built["sni"] == "h.example"
        assert checked(built) == {"h.example"}


def test_names_given_are_checked() -> None:
    """DR-55, SE-11: the rule's before the ServiceEntry's before the SNI."""
    given = {"mode": "SIMPLE", "sni": "s.example", "subjectAltNames": ["a.example"]}
    assert checked(context(given, names=("e.example",))) == {"a.example"}
    assert checked(context({"mode": "SIMPLE"}, names=("e.example",))) == {"e.example"}
    assert checked(context({"mode": "SIMPLE", "sni": "s.example"})) == {"s.example"}


def test_a_wildcard_without_names_stays_closed() -> None:
    """An opaque connection to *.example could be checked for nothing."""
    with pytest.raises(TlsUnavailable):
        context({"mode": "SIMPLE"}, host="*.example", protocol=Protocol.TCP)
    assert checked(context({"mode": "SIMPLE"}, host="*.example")) == set()
    named = {"mode": "SIMPLE", "sni": "a.example"}
    assert checked(context(named, "*.example", Protocol.TCP)) == {"a.example"}
    context({"mode": "SIMPLE", "insecureSkipVerify": True}, "*.example", Protocol.TCP)


def test_certificates_of_the_client() -> None:
    """DR-52, DR-56: MUTUAL by files; a revocation list belongs to the authorities."""
    built = context({**MUTUAL, "caCertificates": "/ca.pem", "caCrl": "/crl.pem"})[
        "common_tls_context"
    ]
    assert built["tls_certificates"] == [
        {"certificate_chain": {"filename": "/c.pem"}, "private_key": {"filename": "/k.pem"}}
    ]
    assert built["validation_context"]["trusted_ca"] == {"filename": "/ca.pem"}
    assert built["validation_context"]["crl"] == {"filename": "/crl.pem"}


def test_skipped_verification_trusts_everybody() -> None:
    """DR-51: no authority, no name."""
    built = context({"mode": "SIMPLE", "insecureSkipVerify": True})
    assert built["common_tls_context"]["validation_context"] == {}


@pytest.mark.parametrize(
    "tls",
    [
        {"mode": "ISTIO_MUTUAL"},
        {"mode": "SIMPLE", "credentialName": "secret"},
        {"mode": "MUTUAL", "clientCertificate": "/c.pem"},
    ],
)
def test_what_cannot_be_done_is_not_done_in_plain_text(tls: dict[str, Any]) -> None:
    """DR-53, DR-54"""
    with pytest.raises(TlsUnavailable):
        context(tls)


def _asked(built: dict[str, Any]) -> dict[str, Any]:
    common = built["common_tls_context"]
    roots = common.get("combined_validation_context", {})
    return {
        "pairs": [each["name"] for each in common.get("tls_certificate_sds_secret_configs", ())],
        "roots": roots.get("validation_context_sds_secret_config", {}).get("name"),
        "files": [
            each["certificate_chain"]["filename"] for each in common.get("tls_certificates", ())
        ],
    }


@pytest.mark.parametrize(
    ("tls", "pairs", "roots", "files"),
    [
        ({"mode": "SIMPLE", "credentialName": "c"}, [], "kubernetes://c-cacert", []),
        (
            {"mode": "MUTUAL", "credentialName": "kubernetes://shop/c"},
            ["kubernetes://shop/c"],
            "kubernetes://shop/c-cacert",
            [],
        ),
        (MUTUAL | {"credentialName": "configmap://shop/c"}, [], "configmap://shop/c", ["/c.pem"]),
        (
            {"mode": "MUTUAL", "credentialName": "c", "insecureSkipVerify": True},
            ["kubernetes://c"],
            None,
            [],
        ),
    ],
)
def test_credentials_come_by_discovery(
    tls: dict[str, Any], pairs: list[str], roots: str | None, files: list[str]
) -> None:
    """DR-54, D-C-5, N-65: of rules that pick their workloads; names are checked all the same."""
    built = context(tls, has_secrets=True)
    assert _asked(built) == {"pairs": pairs, "roots": roots, "files": files}
    named = context({**tls, "sni": "s.example"}, has_secrets=True)["common_tls_context"]
    if roots is not None:
        kept = named["combined_validation_context"]["default_validation_context"]
        matchers = kept["match_typed_subject_alt_names"]
        assert {each["matcher"]["exact"] for each in matchers} == {"s.example"}
        source = named["combined_validation_context"]["validation_context_sds_secret_config"]
        assert source["sds_config"] == {"ads": {}, "resource_api_version": "V3"}


def test_a_bundle_in_a_config_map_is_for_everybody() -> None:
    """DR-54: it is no secret, so no workload needs to be picked."""
    tls = {"mode": "SIMPLE", "credentialName": "configmap://shop/c"}
    assert _asked(context(tls))["roots"] == "configmap://shop/c"


@pytest.mark.parametrize("name", ["sds://c", "invalid://c", "a/b/c", "Not A Name"])
def test_what_is_no_credential_closes(name: str) -> None:
    """DR-54, D-N-5."""
    with pytest.raises(TlsUnavailable, match="not the name"):
        context({"mode": "SIMPLE", "credentialName": name}, has_secrets=True)


def test_the_meshs_parameters() -> None:
    """DR-57, MC-21: names that Envoy does not know are left out."""
    defaults = MeshTls(
        min_protocol_version="TLSV1_3",
        ecdh_curves=("P-256", "nonsense"),
        cipher_suites=("AES128-SHA", "nonsense"),
    )
    assert context({"mode": "SIMPLE"}, defaults=defaults)["common_tls_context"]["tls_params"] == {
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
        "ecdh_curves": ["P-256"],
        "cipher_suites": ["AES128-SHA"],
    }


def test_alpn_only_for_http2() -> None:
    """N-73"""
    assert context({"mode": "SIMPLE"}, protocol=Protocol.GRPC)["common_tls_context"][
        "alpn_protocols"
    ] == ["h2"]
    assert "alpn_protocols" not in context({"mode": "SIMPLE"})["common_tls_context"]


def test_the_proxy_protocol_wraps_what_is_there() -> None:
    """DR-61: TLS goes inside the header's connection, plain text if there is none."""
    cluster = cluster_pb2.Cluster()
    target = TlsTarget(host="h", protocol=Protocol.HTTP, is_http2=False)
    apply_tls(cluster, from_data({"mode": "SIMPLE"}, ClientTls), target)
    tls_socket = cluster.transport_socket.SerializeToString()
    apply_proxy_protocol(cluster, None)
    assert cluster.transport_socket.SerializeToString() == tls_socket
    apply_proxy_protocol(cluster, ProxyProtocol(version="V2"))
    assert cluster.transport_socket.name == "envoy.transport_sockets.upstream_proxy_protocol"
    assert tls_socket in cluster.transport_socket.SerializeToString()
    plain = cluster_pb2.Cluster()
    apply_proxy_protocol(plain, ProxyProtocol())
    assert b"envoy.transport_sockets.raw_buffer" in plain.SerializeToString()
