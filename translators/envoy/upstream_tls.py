"""
TLS with certificates that are not the mesh's: SIMPLE and MUTUAL (traffic.md DR-51 to DR-57).

What cannot be had raises, and the caller closes the cluster rather than sending plain text. A name
is always checked unless the rule says otherwise: where requests have a host, Envoy checks that one,
else the service's is used.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import base_pb2, config_source_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from pilothouse.api.destination_rule import ClientTls
from pilothouse.api.mesh_config import MeshTls
from pilothouse.api.tls_names import CIPHERS, CURVES
from pilothouse.errors import MeshError
from pilothouse.model.credentials import CredentialName, CredentialSource, credential_of
from pilothouse.model.hosts import is_wildcard
from pilothouse.model.names import BadName
from pilothouse.model.protocols import Protocol
from pilothouse.model.tls_policy import CompliancePolicy
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.tls_compliance import enforce

TLS_SOCKET: Final = "envoy.transport_sockets.tls"
SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
WITHOUT_MESH_CERTIFICATES: Final = (
    "Give the client's proxy certificates of the mesh, or use tls mode DISABLE or SIMPLE."
)


class TlsUnavailable(MeshError):
    """TLS as the rule wants it cannot be had; `remedy` says what to do about it."""

    def __init__(self, problem: str, remedy: str = WITHOUT_MESH_CERTIFICATES) -> None:
        """Say what is missing."""
        super().__init__(problem)
        self.remedy = remedy


class TlsTarget(NamedTuple):
    """
    What TLS leads to.

    `names` are the subject alternative names its ServiceEntry declares (SE-11). `defaults` are the
    mesh's for connections that are not of the mesh (DR-57). `has_secrets` tells that the rule may
    name Secrets: it picks its workloads by label, and they need not all be able to read (DR-54).
    """

    host: str
    protocol: Protocol
    is_http2: bool
    names: tuple[str, ...] = ()
    defaults: MeshTls | None = None
    has_secrets: bool = False
    compliance: CompliancePolicy = CompliancePolicy.NONE

    @property
    def own_name(self) -> str:
        """The host as a certificate would have it; empty for a wildcard."""
        return "" if is_wildcard(self.host) else self.host


def brings_certificates(tls: ClientTls | None) -> bool:
    """Tell whether the rule names certificates of its own, so that they are not the mesh's."""
    return tls is not None and tls.mode in ("SIMPLE", "MUTUAL")


class AutomaticNames(NamedTuple):
    """What Envoy takes from the request's host: the SNI, and the name to check (DR-55)."""

    sni: bool
    san: bool


def automatic_names(
    tls: ClientTls | None, protocol: Protocol, names: tuple[str, ...]
) -> AutomaticNames:
    """
    Return what the requests of a port decide; opaque connections have no host.

    `names` are those of the ServiceEntry: like the rule's own, they are checked instead.
    """
    carries_requests = protocol.is_http or protocol is Protocol.AUTO
    if tls is None or not brings_certificates(tls) or tls.sni or not carries_requests:
        return AutomaticNames(sni=False, san=False)
    has_names = bool(tls.subject_alt_names or names)
    return AutomaticNames(sni=True, san=not has_names and not tls.insecure_skip_verify)


def apply_tls(cluster: cluster_pb2.Cluster, tls: ClientTls | None, target: TlsTarget) -> None:
    """
    Give the cluster the transport socket its policy asks for.

    Raises: TlsUnavailable: There is no name to check a certificate against, the credential cannot
        be had, or the mode wants certificates of the mesh.
    """
    if tls is None or tls.mode == "DISABLE":
        return
    if not brings_certificates(tls):
        raise TlsUnavailable("ISTIO_MUTUAL needs workload certificates.")
    credential = _credential(tls, target) if tls.credential_name else None
    # An auto-detected port may carry requests or not: these are for connections without any.
    fallback = "" if target.protocol.is_http else target.own_name
    context = tls_pb2.UpstreamTlsContext(sni=tls.sni or fallback)
    common = context.common_tls_context
    _apply_parameters(common.tls_params, target.defaults)
    enforce(common.tls_params, target.compliance)
    if target.is_http2:
        common.alpn_protocols.append("h2")
    if tls.mode == "MUTUAL":
        _apply_certificate(common, tls, credential)
    if tls.insecure_skip_verify:
        common.validation_context.SetInParent()
    else:
        named = (context.sni,) if context.sni else ()
        names = tls.subject_alt_names or target.names or named
        if not names and not target.protocol.is_http:
            raise TlsUnavailable(
                "There is no name to check the certificates of a wildcard host for.",
                "Set sni or subjectAltNames, or the port's protocol to HTTP.",
            )
        _apply_validation(common, tls, credential, names)
    cluster.transport_socket.CopyFrom(
        base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))
    )


def _apply_parameters(parameters: common_pb2.TlsParameters, defaults: MeshTls | None) -> None:
    kinds = common_pb2.TlsParameters
    parameters.tls_minimum_protocol_version = kinds.TLSv1_2
    parameters.tls_maximum_protocol_version = kinds.TLSv1_3
    if defaults is None:
        return
    if defaults.min_protocol_version == "TLSV1_3":
        parameters.tls_minimum_protocol_version = kinds.TLSv1_3
    # A name the library does not know would fail the cluster; the check has warned of it.
    parameters.ecdh_curves.extend(name for name in defaults.ecdh_curves if name in CURVES)
    parameters.cipher_suites.extend(name for name in defaults.cipher_suites if name in CIPHERS)


def _credential(tls: ClientTls, target: TlsTarget) -> CredentialName:
    """Return the credential a rule names (DR-54). Raises: TlsUnavailable."""
    try:
        credential = credential_of(tls.credential_name)
    except BadName:
        problem = "credentialName is not the name of a Secret or ConfigMap."
        raise TlsUnavailable(problem, "Write NAME, or configmap://NAMESPACE/NAME.") from None
    if credential.source is CredentialSource.SECRET and not target.has_secrets:
        raise TlsUnavailable(
            "credentialName works for sidecars that a workloadSelector of the rule picks.",
            "Add a workloadSelector, or name files on the proxy's disk instead.",
        )
    return credential


def _apply_certificate(
    common: tls_pb2.CommonTlsContext, tls: ClientTls, credential: CredentialName | None
) -> None:
    if credential is not None and not credential.is_ca:
        common.tls_certificate_sds_secret_configs.append(_by_discovery(credential))
        return
    if not tls.client_certificate or not tls.private_key:
        raise TlsUnavailable("MUTUAL needs two files.", "Set clientCertificate and privateKey.")
    certificate = common.tls_certificates.add()
    certificate.certificate_chain.filename = tls.client_certificate
    certificate.private_key.filename = tls.private_key


def _apply_validation(
    common: tls_pb2.CommonTlsContext,
    tls: ClientTls,
    credential: CredentialName | None,
    names: tuple[str, ...],
) -> None:
    if credential is None:
        validation = common.validation_context
        validation.trusted_ca.filename = tls.ca_certificates or SYSTEM_BUNDLE
    else:
        combined = common.combined_validation_context
        combined.validation_context_sds_secret_config.CopyFrom(_by_discovery(credential.for_trust))
        validation = combined.default_validation_context
        validation.SetInParent()
    if tls.ca_crl:
        validation.crl.filename = tls.ca_crl
    kinds = common_pb2.SubjectAltNameMatcher
    for name in names:
        for kind in (kinds.DNS, kinds.URI, kinds.IP_ADDRESS, kinds.EMAIL):
            matcher = validation.match_typed_subject_alt_names.add(san_type=kind)
            matcher.matcher.exact = name


def _by_discovery(credential: CredentialName) -> secret_pb2.SdsSecretConfig:
    # Without a limit of its own: a missing secret must not keep the other clusters waiting.
    source = config_source_pb2.ConfigSource(resource_api_version=config_source_pb2.V3)
    source.ads.SetInParent()
    return secret_pb2.SdsSecretConfig(name=str(credential), sds_config=source)
