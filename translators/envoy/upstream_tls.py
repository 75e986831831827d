"""
TLS towards a destination (traffic.md DR-50 to DR-55), as far as files on the proxy's disk carry it.

Certificates of the mesh come with the identity work; until then a mode that needs them raises, and
the caller closes the cluster rather than sending plain text.
"""

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from pilothouse.api.destination_rule import ClientTls
from pilothouse.errors import MeshError
from pilothouse.model.hosts import is_wildcard
from pilothouse.model.services import Service
from pilothouse.translators.envoy.encoding import pack

TLS_SOCKET = "envoy.transport_sockets.tls"
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class TlsUnavailable(MeshError):
    """A TLS mode needs something this version does not have."""


def apply_tls(
    cluster: cluster_pb2.Cluster, tls: ClientTls | None, owner: Service, *, is_http2: bool
) -> None:
    """
    Give the cluster the transport socket its policy asks for.

    Without names to check, the certificate must be for `sni`, else for the host itself (DR-55).

    Raises: TlsUnavailable: Mesh certificates or Kubernetes secrets would be needed, or there is no
        name to check a certificate against.
    """
    if tls is None or tls.mode == "DISABLE":
        return
    if tls.mode == "ISTIO_MUTUAL":
        raise TlsUnavailable("ISTIO_MUTUAL needs workload certificates.")
    if tls.credential_name:
        raise TlsUnavailable("credentialName needs secret discovery.")
    name = tls.sni or ("" if is_wildcard(owner.host) else owner.host)
    context = tls_pb2.UpstreamTlsContext(sni=name)
    common = context.common_tls_context
    if is_http2:
        common.alpn_protocols.append("h2")
    if tls.mode == "MUTUAL":
        if not tls.client_certificate or not tls.private_key:
            raise TlsUnavailable("MUTUAL needs clientCertificate and privateKey.")
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.filename = tls.client_certificate
        certificate.private_key.filename = tls.private_key
    if not tls.insecure_skip_verify:
        names = tls.subject_alt_names or ((name,) if name else ())
        if not names:
            raise TlsUnavailable("A wildcard host needs sni or subjectAltNames to check.")
        _apply_validation(common.validation_context, tls, names)
    cluster.transport_socket.CopyFrom(
        base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))
    )


def _apply_validation(
    validation: common_pb2.CertificateValidationContext, tls: ClientTls, names: tuple[str, ...]
) -> None:
    validation.trusted_ca.filename = tls.ca_certificates or SYSTEM_BUNDLE
    if tls.ca_crl:
        validation.crl.filename = tls.ca_crl
    kinds = common_pb2.SubjectAltNameMatcher
    for name in names:
        for kind in (kinds.DNS, kinds.URI, kinds.IP_ADDRESS, kinds.EMAIL):
            matcher = validation.match_typed_subject_alt_names.add(san_type=kind)
            matcher.matcher.exact = name
