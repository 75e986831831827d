"""Ports of a Sidecar with TLS of their own: what is sent, and what closes a port (SC-09)."""

import pytest
import story
from mesh_of import mesh_of

from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import FilterChain
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from pilothouse.api.mesh_config import CertificateData
from pilothouse.graph.core import Graph
from pilothouse.model.credentials import CertificateFiles, RootsFile
from pilothouse.model.mesh import mesh_config
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.service_accounts import accepted_domains, trust_domains
from pilothouse.translators.envoy.file_secrets import file_secret, files_of
from pilothouse.translators.envoy.upstream_tls import SYSTEM_BUNDLE

FILES = "serverCertificate: /own.crt, privateKey: /own.key"
PORT = 9080
OBJECTS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: shop}}
spec:
  ingress:
    - port: {{number: 9080, protocol: {protocol}, name: p}}
      defaultEndpoint: 127.0.0.1:8080
      tls: {{{tls}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"""


def mesh_with(tls: str, mode: str = "DISABLE", protocol: str = "HTTPS", mesh: str = "") -> Graph:
    return mesh_of(OBJECTS.format(tls=tls, mode=mode, protocol=protocol), mesh)


def listener(graph: Graph, certificates: CertificateSource = CertificateSource.ADS) -> Listener:
    proxy = Proxy(
        id="x",
        type=NodeType.SIDECAR,
        ips=("10.1.0.9",),
        name="web",
        namespace="shop",
        domain="shop.svc.cluster.local",
        certificates=certificates,
    )
    served = story.served_to(graph, proxy)
    data = next(each.data for each in served["lds"] if each.name == "virtualInbound")
    return Listener.FromString(data)


def chain(graph: Graph, certificates: CertificateSource = CertificateSource.ADS) -> FilterChain:
    """Return the one chain of the port; no other takes its connections."""
    chains = listener(graph, certificates).filter_chains
    [found] = [c for c in chains if c.filter_chain_match.destination_port.value == PORT]
    return found


def context(found: FilterChain) -> DownstreamTlsContext:
    return DownstreamTlsContext.FromString(found.transport_socket.typed_config.value)


def is_closed(found: FilterChain) -> bool:
    return b"BlackHoleCluster" in found.filters[0].typed_config.value


def own_names(found: FilterChain) -> list[str]:
    common = context(found).common_tls_context
    return [each.name for each in common.tls_certificate_sds_secret_configs]


@pytest.mark.parametrize("certificates", list(CertificateSource))
def test_files_come_by_discovery_with_a_limit(certificates: CertificateSource) -> None:
    """N-64, SC-09: a file that is missing closes its ports and does not hold up the listener."""
    graph = mesh_with(f"mode: MUTUAL, {FILES}, caCertificates: /ca.crt, caCrl: /ca.crl")
    found = context(chain(graph, certificates))
    assert found.require_client_certificate.value
    common = found.common_tls_context
    [own] = common.tls_certificate_sds_secret_configs
    combined = common.combined_validation_context
    roots = combined.validation_context_sds_secret_config
    assert (own.name, roots.name) == ("file-cert:/own.crt~/own.key", "file-root:/ca.crt")
    for asked in (own, roots):
        is_agent = asked.sds_config.HasField("api_config_source")
        assert is_agent == (certificates is CertificateSource.AGENT)
        assert not asked.sds_config.HasField("initial_fetch_timeout")
    assert combined.default_validation_context.crl.filename == "/ca.crl"
    assert list(common.alpn_protocols) == ["h2", "http/1.1"]
    assert not graph.findings()


def test_nothing_is_offered_for_what_is_not_http() -> None:
    """SC-09: a client must not agree on HTTP/2 with a program that may not speak it."""
    found = chain(mesh_with(f"mode: SIMPLE, {FILES}", protocol="TLS"))
    assert list(context(found).common_tls_context.alpn_protocols) == []
    assert found.filters[0].name == "envoy.filters.network.tcp_proxy"


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("mode: PASSTHROUGH", "cannot end TLS in mode PASSTHROUGH"),
        ("", "cannot end TLS in mode PASSTHROUGH"),
        ("mode: SIMPLE, serverCertificate: a, privateKey: b~c", "tilde"),
        (
            f"mode: SIMPLE, {FILES}, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
            "No version of TLS",
        ),
        (f"mode: SIMPLE, {FILES}, cipherSuites: [FANCY]", "None of cipherSuites"),
        (f"mode: SIMPLE, {FILES}, verifyCertificateHash: [{'ab' * 32}]", "does not ask clients"),
    ],
)
def test_what_cannot_be_had_closes_the_port(tls: str, said: str) -> None:
    """SC-09: never half done."""
    graph = mesh_with(tls)
    found = chain(graph)
    assert is_closed(found)
    assert not found.filter_chain_match.transport_protocol
    [finding] = graph.findings()
    assert said in finding.message
    assert finding.ref.path == "spec.ingress[0].tls"
    assert finding.remedy


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
def test_mutual_tls_of_the_mesh_comes_first(mode: str) -> None:
    """SC-09: the port's own certificates are not shown then, and plain text is not taken."""
    graph = mesh_with(f"mode: SIMPLE, {FILES}", mode)
    found = chain(graph)
    assert own_names(found) == ["default"]
    assert found.filter_chain_match.transport_protocol == "tls"
    assert not found.filter_chain_match.application_protocols
    assert b"inbound|9080||" in found.filters[0].typed_config.value  # what is within TLS is HTTP
    [finding] = graph.findings()
    assert finding.code == "IngressTlsUnused"


def test_a_proxy_without_certificates_of_the_mesh() -> None:
    """SC-09: in PERMISSIVE nobody can use mutual TLS there, so the port's own TLS holds."""
    graph = mesh_with(f"mode: SIMPLE, {FILES}", "PERMISSIVE")
    assert own_names(chain(graph, CertificateSource.NONE)) == ["file-cert:/own.crt~/own.key"]
    assert not graph.findings()
    assert is_closed(chain(mesh_with(f"mode: SIMPLE, {FILES}", "STRICT"), CertificateSource.NONE))


@pytest.mark.parametrize("certificates", [CertificateSource.NONE, CertificateSource.ADS])
def test_tls_is_looked_for_on_the_port_alone(certificates: CertificateSource) -> None:
    """LS-13: where the workload ends TLS, nothing reads it first."""
    found = listener(mesh_with(f"mode: SIMPLE, {FILES}"), certificates)
    [inspector] = [each for each in found.listener_filters if each.name.endswith("tls_inspector")]
    assert inspector.filter_disabled.WhichOneof("rule") == "not_match"
    looked_at = inspector.filter_disabled.not_match.destination_port_range
    assert (looked_at.start, looked_at.end) == (PORT, PORT + 1)


def test_settings_of_the_port_before_those_of_the_mesh() -> None:
    """SC-09, GW-22."""
    mesh = "tlsDefaults: {minProtocolVersion: TLSV1_3, cipherSuites: [AES256-SHA, X]}"
    found = context(chain(mesh_with(f"mode: SIMPLE, {FILES}", mesh=mesh)))
    parameters = found.common_tls_context.tls_params
    assert parameters.tls_minimum_protocol_version == parameters.TLSv1_3
    assert list(parameters.cipher_suites) == ["AES256-SHA"]
    own = "minProtocolVersion: TLSV1_2, cipherSuites: [AES128-SHA, AES128-SHA]"
    found = context(chain(mesh_with(f"mode: SIMPLE, {FILES}, {own}", mesh=mesh)))
    parameters = found.common_tls_context.tls_params
    assert parameters.tls_minimum_protocol_version == parameters.TLSv1_2
    assert list(parameters.cipher_suites) == ["AES128-SHA"]


def test_what_envoy_is_told_to_read() -> None:
    """N-64: the answer names the files that were asked for, and nothing else."""
    graph = Graph()

    def answer(name: str) -> Secret:
        files = files_of(name)
        assert files is not None
        resource = graph.value(file_secret, files)
        assert resource.name == name
        return Secret.FromString(resource.data)

    pair = answer(str(CertificateFiles("/own.crt", "/own.key"))).tls_certificate
    assert pair.certificate_chain.filename == "/own.crt"
    assert pair.private_key.filename == "/own.key"
    roots = answer(str(RootsFile("/ca.crt"))).validation_context
    assert roots.trusted_ca.filename == "/ca.crt"
    roots = answer("file-root:system").validation_context
    assert roots.trusted_ca.filename == SYSTEM_BUNDLE
    for other in ("default", "kubernetes://file-cert", "file-cert:/a", "file-root:", ""):
        assert files_of(other) is None


def test_other_trust_domains_may_call_and_are_not_ours() -> None:
    """S-PA-8, S-TD-1: what `caCertificates` adds is accepted, and no alias of the mesh's own."""
    text = (
        "{trustDomain: shop.example, caCertificates: [{trustDomains: [b.example, shop.example]}]}"
    )
    graph = mesh_of("", text)
    assert graph.value(mesh_config, None).ca_certificates == (
        CertificateData(trust_domains=("b.example", "shop.example")),
    )
    assert graph.value(accepted_domains, None) == ("shop.example", "b.example")
    assert graph.value(trust_domains, None) == ("shop.example",)
