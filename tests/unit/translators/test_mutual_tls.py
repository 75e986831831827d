"""Contexts, protocols and chains of mutual TLS, and who uses it (security.md 1.3)."""

from typing import Any

import pytest
import story
from mesh_of import mesh_of

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import (
    DownstreamTlsContext,
    UpstreamTlsContext,
)
from pilothouse.api.destination_rule import ConnectionPool, HttpSettings
from pilothouse.api.mesh_config import MeshTls
from pilothouse.graph.core import Graph
from pilothouse.model.authentication import MtlsMode
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import CertificateSource, NodeType, Profile, Proxy
from pilothouse.model.service_accounts import in_every_domain
from pilothouse.translators.envoy.http_options import HttpUpstream
from pilothouse.translators.envoy.inbound_chains import Row, chain_rows
from pilothouse.translators.envoy.mutual_tls import (
    MeshPeer,
    ServerTls,
    client_socket,
    offered,
    offered_by_request,
    server_socket,
)

WEB = "outbound|80||web.shop.svc.cluster.local"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web, namespace: shop}
spec: {address: 10.1.0.1, labels: {app: web, security.istio.io/tlsMode: istio}}
---
"""


def proxy(certificates: CertificateSource, profile: Profile = Profile.ENVOY) -> Proxy:
    return Proxy(
        id="x",
        type=NodeType.SIDECAR,
        ips=("10.1.0.9",),
        name="client",
        namespace="shop",
        domain="shop.svc.cluster.local",
        labels=(("app", "client"),),
        certificates=certificates,
        profile=profile,
    )


def cluster(graph: Graph, certificates: CertificateSource) -> Cluster:
    served = story.served_to(graph, proxy(certificates))
    return next(Cluster.FromString(each.data) for each in served["cds"] if each.name == WEB)


def upstream_context(socket: Any) -> UpstreamTlsContext:
    return UpstreamTlsContext.FromString(socket.typed_config.value)


@pytest.mark.parametrize("source", [CertificateSource.AGENT, CertificateSource.ADS])
def test_certificates_come_from_where_the_proxy_has_them(source: CertificateSource) -> None:
    """S-PA-8, N-63, N-67: by two names, from the agent or from us, waiting as long as it takes."""
    socket = server_socket(ServerTls(source, ("td",), None))
    context = DownstreamTlsContext.FromString(socket.typed_config.value)
    assert context.require_client_certificate.value
    common = context.common_tls_context
    [own] = common.tls_certificate_sds_secret_configs
    roots = common.combined_validation_context.validation_context_sds_secret_config
    assert (own.name, roots.name) == ("default", "ROOTCA")
    for config in (own.sds_config, roots.sds_config):
        assert config.HasField("initial_fetch_timeout")
        assert config.initial_fetch_timeout.seconds == 0
        assert config.HasField("ads") == (source is CertificateSource.ADS)
        [*services] = config.api_config_source.grpc_services
        names = [each.envoy_grpc.cluster_name for each in services]
        assert names == (["sds-grpc"] if source is CertificateSource.AGENT else [])


def test_a_server_takes_its_trust_domains_and_the_mesh_its_versions() -> None:
    """S-PA-8, S-PA-9, MC-20, D-7: prefixes end in a slash; an unknown cipher is left out."""
    tls = MeshTls(
        min_protocol_version="TLSV1_3", cipher_suites=("AES128-SHA", "no-such", "AES128-SHA")
    )
    socket = server_socket(ServerTls(CertificateSource.ADS, ("a.example", "b"), tls))
    common = DownstreamTlsContext.FromString(socket.typed_config.value).common_tls_context
    validation = common.combined_validation_context.default_validation_context
    matchers = validation.match_typed_subject_alt_names
    assert [each.matcher.prefix for each in matchers] == ["spiffe://a.example/", "spiffe://b/"]
    assert all(each.san_type == each.URI for each in matchers)
    parameters = common.tls_params
    assert (parameters.tls_minimum_protocol_version, parameters.tls_maximum_protocol_version) == (
        parameters.TLSv1_3,
        parameters.TLSv1_3,
    )
    assert list(parameters.cipher_suites) == ["AES128-SHA"]
    assert list(common.alpn_protocols) == ["h2", "http/1.1"]


def test_a_client_checks_names_or_at_least_the_trust_domain() -> None:
    """S-PA-13: names exactly, SPIFFE's as URIs; without any, some workload of the mesh."""
    peer = MeshPeer(CertificateSource.ADS, "sni", ("spiffe://td/ns/a/sa/b",), ("td",), ("istio",))
    context = upstream_context(client_socket(peer))
    assert context.sni == "sni"
    common = context.common_tls_context.combined_validation_context.default_validation_context
    [matcher] = common.match_typed_subject_alt_names
    assert (matcher.san_type, matcher.matcher.exact) == (matcher.URI, "spiffe://td/ns/a/sa/b")
    context = upstream_context(client_socket(peer._replace(names=())))
    common = context.common_tls_context.combined_validation_context.default_validation_context
    [matcher] = common.match_typed_subject_alt_names
    assert (matcher.san_type, matcher.matcher.prefix) == (matcher.URI, "spiffe://td/")


def test_identities_hold_in_every_trust_domain_of_the_mesh() -> None:
    """S-TD-1, S-PA-13: those of a foreign domain, and names of other kinds, stay as they are."""
    names = ["spiffe://old/ns/a/sa/b", "spiffe://foreign/ns/a/sa/b", "spiffe://old", "dns.example"]
    assert in_every_domain(names, ("new", "old")) == (
        "dns.example",
        "spiffe://foreign/ns/a/sa/b",
        "spiffe://new/ns/a/sa/b",
        "spiffe://old",
        "spiffe://old/ns/a/sa/b",
    )


HTTP2_POOL = ConnectionPool(http=HttpSettings(h2_upgrade_policy="UPGRADE"))
CLIENTS_POOL = ConnectionPool(http=HttpSettings(use_client_protocol=True))
BY_REQUEST = (
    "%CEL(request.protocol == 'HTTP/2' ? 'istio-h2,istio,h2' : 'istio-http/1.1,istio,http/1.1')%"
)


@pytest.mark.parametrize(
    ("protocol", "pool", "cluster_offers", "request_offers"),
    [
        (Protocol.HTTP, None, "istio-http/1.1,istio,http/1.1", ""),
        (Protocol.HTTP, HTTP2_POOL, "istio-h2,istio,h2", ""),
        (Protocol.HTTP, CLIENTS_POOL, "istio", BY_REQUEST),
        (Protocol.GRPC, None, "istio-h2,istio,h2", ""),
        (Protocol.TCP, None, "istio", ""),
        (Protocol.HTTPS, None, "istio", ""),
        (Protocol.AUTO, None, "istio", BY_REQUEST),
        (Protocol.AUTO, HTTP2_POOL, "istio,h2", "istio-h2,istio,h2"),
    ],
)
def test_what_is_offered_says_what_is_inside(
    protocol: Protocol, pool: ConnectionPool | None, cluster_offers: str, request_offers: str
) -> None:
    """S-PA-12, D-1, D-7: by the cluster where it knows, else by the request."""
    upstream = HttpUpstream(protocol, pool)
    assert ",".join(offered(upstream)) == cluster_offers
    assert offered_by_request(upstream) == request_offers
    assert "istio-peer-exchange" not in (*offered(upstream), offered_by_request(upstream))


def test_auto_mutual_tls_can_be_turned_off() -> None:
    """MC-07: then only a DestinationRule asks for it."""
    graph = mesh_of(SERVICE)
    found = cluster(graph, CertificateSource.ADS)
    assert [each.name for each in found.transport_socket_matches] == [
        "tlsMode-istio",
        "tlsMode-disabled",
    ]
    off = mesh_of(SERVICE, mesh="enableAutoMtls: false")
    found = cluster(off, CertificateSource.ADS)
    assert not found.transport_socket_matches
    assert not found.HasField("transport_socket")
    assert not cluster(graph, CertificateSource.NONE).transport_socket_matches


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
"""


def test_a_rule_that_wants_the_meshs_certificates_gets_them_or_nothing() -> None:
    """DR-53, S-PA-11: for all endpoints; a client without certificates sends nothing at all."""
    graph = mesh_of(SERVICE + RULE)
    context = upstream_context(cluster(graph, CertificateSource.AGENT).transport_socket)
    assert context.sni == "outbound_.80_._.web.shop.svc.cluster.local"
    closed = cluster(graph, CertificateSource.NONE)
    assert closed.type == Cluster.STATIC
    assert not closed.load_assignment.endpoints
    assert [each.code for each in graph.findings()] == ["TlsUnavailable"]


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.TCP, Protocol.AUTO])
def test_no_mode_lets_a_connection_through_that_it_should_not(protocol: Protocol) -> None:
    """S-PA-6, S-PA-7: STRICT has no plain chain, DISABLE none that ends TLS."""
    strict = chain_rows(MtlsMode.STRICT, protocol)
    assert all(row.ends_tls and row.transport == "tls" for row in strict)
    disabled = chain_rows(MtlsMode.DISABLE, protocol)
    assert not any(row.ends_tls or row.transport == "tls" for row in disabled)


@pytest.mark.parametrize("mode", MtlsMode)
@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.GRPC, Protocol.HTTPS, Protocol.AUTO])
def test_chains_of_a_port_never_have_equal_matches(mode: MtlsMode, protocol: Protocol) -> None:
    """Envoy refuses a listener for it; S-PA-4 to S-PA-7."""
    rows = chain_rows(mode, protocol)
    places = [(row.transport, name) for row in rows for name in row.alpn or ("",)]
    assert len(places) == len(set(places))
    # Nobody's row is without a transport beside one that has it: it would never be found.
    assert len({bool(row.transport) for row in rows}) == 1


def test_the_table_of_a_detected_permissive_port() -> None:
    """S-PA-4: five rows, in order."""
    assert chain_rows(MtlsMode.PERMISSIVE, Protocol.AUTO, accepts_http10=True) == (
        Row(True, "tls", ("istio-http/1.0", "istio-http/1.1", "istio-h2"), True),
        Row(True, "raw_buffer", ("http/1.1", "h2c", "http/1.0")),
        Row(False, "tls", ("istio-peer-exchange", "istio"), True),
        Row(False, "raw_buffer"),
        Row(False, "tls"),
    )


ISTIOS = ("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2")


@pytest.mark.parametrize(
    ("mode", "protocol", "rows"),
    [
        (MtlsMode.PERMISSIVE, Protocol.HTTP, [(True, "tls", ISTIOS, True), (True, "raw_buffer")]),
        (
            MtlsMode.PERMISSIVE,
            Protocol.TCP,
            [(False, "tls", ISTIOS, True), (False, "tls"), (False, "raw_buffer")],
        ),
        (MtlsMode.STRICT, Protocol.HTTP, [(True, "tls", (), True)]),
        (MtlsMode.STRICT, Protocol.TCP, [(False, "tls", (), True)]),
        (
            MtlsMode.STRICT,
            Protocol.AUTO,
            [
                (True, "tls", ("istio-http/1.0", "istio-http/1.1", "istio-h2"), True),
                (False, "tls", (), True),
            ],
        ),
        (MtlsMode.DISABLE, Protocol.HTTP, [(True,)]),
        (MtlsMode.DISABLE, Protocol.TCP, [(False,)]),
    ],
)
def test_the_other_tables(mode: MtlsMode, protocol: Protocol, rows: list[Any]) -> None:
    """
    S-PA-5, S-PA-6, S-PA-7: declared ports, and a detected one that takes mutual TLS only.

    S-PA-14: nor has a STRICT port a row for a kubelet's probes; they are rewritten to the agent.
    """
    assert chain_rows(mode, protocol) == tuple(Row(*row) for row in rows)
    assert chain_rows(mode, {Protocol.HTTP: Protocol.GRPC, Protocol.TCP: Protocol.HTTPS}.get(
        protocol, protocol
    )) == chain_rows(mode, protocol)  # fmt: skip


def test_a_proxy_without_certificates_keeps_strict_ports_closed() -> None:
    """Fail closed: the port's own chain leads nowhere, so that no other chain takes it."""
    graph = mesh_of(
        """
apiVersion: v1
kind: Service
metadata: {name: client, namespace: shop}
spec: {selector: {app: client}, ports: [{name: http, port: 80}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: client}}, portLevelMtls: {"80": {mode: STRICT}}}
"""
    )
    served = story.served_to(graph, proxy(CertificateSource.NONE))
    data = next(each.data for each in served["lds"] if each.name == "virtualInbound")
    listener = Listener.FromString(data)
    chains = [
        c for c in listener.filter_chains if c.filter_chain_match.destination_port.value == 80
    ]
    [chain] = chains
    assert b"BlackHoleCluster" in chain.filters[0].typed_config.value
    assert "StrictWithoutCertificates" in {each.code for each in graph.findings()}
