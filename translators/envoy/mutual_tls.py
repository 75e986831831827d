"""
TLS between proxies of the mesh: the contexts that both sides end and begin it with.

Certificates come by secret discovery under two names (traffic.md N-63), from an agent beside the
proxy or from this server. The protocols a client offers say what is inside, so that a server can
tell HTTP from the rest before it has decrypted anything (N-72 to N-75). ``istio-peer-exchange`` is
never offered: whoever negotiates it is sent bytes that no filter here takes away (D-7).
Rows S-PA-8 to S-PA-13 of security.md.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2, config_source_pb2
from pilothouse._pb.envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from pilothouse._pb.google.protobuf import any_pb2
from pilothouse.api.mesh_config import MeshTls
from pilothouse.api.tls_names import CIPHERS
from pilothouse.model.credentials import ROOTS, WORKLOAD, CertificateFiles, RootsFile
from pilothouse.model.names import AGENT_CLUSTER
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import CertificateSource, TlsFiles
from pilothouse.model.service_accounts import SPIFFE
from pilothouse.model.tls_policy import CompliancePolicy
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.http_options import HttpUpstream
from pilothouse.translators.envoy.tls_compliance import enforce

TLS_SOCKET: Final = "envoy.transport_sockets.tls"

MESH_HTTP: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
MESH_TCP: Final = ("istio-peer-exchange", "istio")
MESH_ALL: Final = ("istio", "istio-peer-exchange", *MESH_HTTP)
"""What clients of the mesh offer; matched, and never negotiated (N-74, N-75)."""

_SERVED_PROTOCOLS: Final = ("h2", "http/1.1")
_HTTP1: Final = ("istio-http/1.1", "istio", "http/1.1")
_HTTP2: Final = ("istio-h2", "istio", "h2")
_BY_REQUEST: Final = (
    f"%CEL(request.protocol == 'HTTP/2' ? '{','.join(_HTTP2)}' : '{','.join(_HTTP1)}')%"
)

DEFAULT_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)
"""Of TLS 1.2, as a server (S-PA-9)."""

UPSTREAM_PROTOCOLS_KEY: Final = "envoy.network.application_protocols"
"""The filter state that says what is offered upstream for one request (D-1)."""


class ServerTls(NamedTuple):
    """
    What a workload's own ports end mutual TLS with.

    Without `trust_domains` the caller may be of any, if a root vouches for it.
    """

    certificates: CertificateSource
    trust_domains: tuple[str, ...]
    settings: MeshTls | None
    files: TlsFiles | None = None
    compliance: CompliancePolicy = CompliancePolicy.NONE


class MeshPeer(NamedTuple):
    """
    A destination in the mesh: the SNI, who may answer, what is offered.

    Without `names` any workload of the `trust_domains` may answer.
    """

    certificates: CertificateSource
    sni: str
    names: tuple[str, ...]
    trust_domains: tuple[str, ...]
    protocols: tuple[str, ...]
    files: TlsFiles | None = None
    compliance: CompliancePolicy = CompliancePolicy.NONE


@lru_cache(maxsize=64)
def server_socket(server: ServerTls) -> base_pb2.TransportSocket:
    """Return the transport socket of a chain that ends mutual TLS; do not change it."""
    context = tls_pb2.DownstreamTlsContext()
    context.require_client_certificate.value = True
    common = context.common_tls_context
    parameters = common.tls_params
    parameters.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_2
    parameters.tls_maximum_protocol_version = common_pb2.TlsParameters.TLSv1_3
    settings = server.settings or MeshTls()
    if settings.min_protocol_version == "TLSV1_3":
        parameters.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_3
    # A name the library does not know would fail the listener; the check has warned of it.
    chosen = [name for name in dict.fromkeys(settings.cipher_suites) if name in CIPHERS]
    parameters.cipher_suites.extend(chosen or DEFAULT_CIPHERS)
    enforce(parameters, server.compliance)
    common.alpn_protocols.extend(_SERVED_PROTOCOLS)
    _apply_secrets(common, server.certificates, server.files)
    _accept_domains(common, server.trust_domains)
    return base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def client_socket(peer: MeshPeer) -> base_pb2.TransportSocket:
    """Return the transport socket of connections to a destination in the mesh."""
    context = tls_pb2.UpstreamTlsContext(sni=peer.sni)
    common = context.common_tls_context
    common.tls_params.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_2
    common.tls_params.tls_maximum_protocol_version = common_pb2.TlsParameters.TLSv1_3
    enforce(common.tls_params, peer.compliance)
    common.alpn_protocols.extend(peer.protocols)
    _apply_secrets(common, peer.certificates, peer.files)
    if peer.names:
        accept_names(common.combined_validation_context.default_validation_context, peer.names)
    else:
        _accept_domains(common, peer.trust_domains)
    return base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def accept_names(
    validation: common_pb2.CertificateValidationContext, names: tuple[str, ...]
) -> None:
    """Accept certificates with one of the names; what kind a name is only SPIFFE's tell."""
    kinds = common_pb2.SubjectAltNameMatcher
    anything = (kinds.DNS, kinds.URI, kinds.IP_ADDRESS, kinds.EMAIL)
    for name in names:
        for kind in (kinds.URI,) if name.startswith(SPIFFE) else anything:
            matcher = validation.match_typed_subject_alt_names.add(san_type=kind)
            matcher.matcher.exact = name


def offered(upstream: HttpUpstream) -> tuple[str, ...]:
    """
    Return what a cluster's connections offer (N-72).

    Where only the request tells what is inside, that is for `offered_by_request` to say, and a
    connection without one is TCP.
    """
    if upstream.protocol is Protocol.AUTO:
        return ("istio", "h2") if upstream.is_http2 else ("istio",)
    if upstream.follows_client or not upstream.protocol.is_http:
        return ("istio",)
    return _HTTP2 if upstream.is_http2 else _HTTP1


def offered_by_request(upstream: HttpUpstream) -> str:
    """Return what is offered for an HTTP request, as a format; empty if always the same."""
    if upstream.follows_client:
        return _BY_REQUEST
    if upstream.protocol is Protocol.AUTO:
        return ",".join(_HTTP2)
    return ""


@lru_cache(maxsize=16)
def offer_override(value: str) -> any_pb2.Any:
    """Return the config of a route (or weighted cluster) by which a stock Envoy offers `value`."""
    config = set_filter_state_pb2.Config()
    entry = config.on_request_headers.add(object_key=UPSTREAM_PROTOCOLS_KEY)
    entry.format_string.text_format_source.inline_string = value
    entry.shared_with_upstream = entry.ONCE
    return pack(config)


def _apply_secrets(
    common: tls_pb2.CommonTlsContext, certificates: CertificateSource, files: TlsFiles | None
) -> None:
    # Files are secrets too, which this server tells of: so Envoy reads them again (N-64).
    shown = str(CertificateFiles(files.chain, files.key)) if files else WORKLOAD
    common.tls_certificate_sds_secret_configs.append(_secret(shown, certificates))
    trusted = str(RootsFile(files.roots)) if files and files.roots else ROOTS
    common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(
        _secret(trusted, certificates)
    )


def _secret(name: str, certificates: CertificateSource) -> secret_pb2.SdsSecretConfig:
    is_file = name not in (WORKLOAD, ROOTS)
    source = secret_source(CertificateSource.ADS if is_file else certificates)
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def _accept_domains(common: tls_pb2.CommonTlsContext, domains: tuple[str, ...]) -> None:
    validation = common.combined_validation_context.default_validation_context
    validation.SetInParent()  # Envoy wants it even if it demands nothing
    for domain in domains:
        matcher = validation.match_typed_subject_alt_names.add(
            san_type=common_pb2.SubjectAltNameMatcher.URI
        )
        matcher.matcher.prefix = f"{SPIFFE}{domain}/"


@lru_cache(maxsize=4)
def secret_source(certificates: CertificateSource) -> config_source_pb2.ConfigSource:
    """Return where a proxy asks for the mesh's certificates; do not change it."""
    source = config_source_pb2.ConfigSource(resource_api_version=config_source_pb2.V3)
    source.initial_fetch_timeout.SetInParent()  # wait for ever (N-67)
    if certificates is CertificateSource.AGENT:
        api = source.api_config_source
        api.api_type = config_source_pb2.ApiConfigSource.GRPC
        api.transport_api_version = config_source_pb2.V3
        api.set_node_on_first_message_only = True
        api.grpc_services.add().envoy_grpc.cluster_name = AGENT_CLUSTER
    else:
        source.ads.SetInParent()
    return source
