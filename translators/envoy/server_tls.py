"""
TLS that a proxy ends with certificates that are not the mesh's (traffic.md SC-09, GW-11 to GW-23).

What cannot be had raises, and the caller closes the port rather than taking plain text or callers
nobody checked. Certificates come by secret discovery even where they are files on the proxy's disk:
a file that is missing then closes the ports that need it, and not the whole listener.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from pilothouse.api.gateway import ServerTls, TlsProtocol
from pilothouse.api.mesh_config import MeshTls
from pilothouse.api.tls_names import CIPHERS, CURVES
from pilothouse.model.credentials import CertificateFiles, RootsFile
from pilothouse.model.names import BadName
from pilothouse.model.proxies import CertificateSource
from pilothouse.model.tls_policy import CompliancePolicy
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.mutual_tls import TLS_SOCKET, secret_source
from pilothouse.translators.envoy.tls_compliance import enforce
from pilothouse.translators.envoy.upstream_tls import TlsUnavailable

_HTTP_PROTOCOLS: Final = ("h2", "http/1.1")

_VERSIONS: Final[dict[TlsProtocol, common_pb2.TlsParameters.TlsProtocol]] = {
    "TLSV1_0": common_pb2.TlsParameters.TLSv1_0,
    "TLSV1_1": common_pb2.TlsParameters.TLSv1_1,
    "TLSV1_2": common_pb2.TlsParameters.TLSv1_2,
    "TLSV1_3": common_pb2.TlsParameters.TLSv1_3,
}


class Terms(NamedTuple):
    """
    What the settings of a port do not say.

    `certificates` tells who reads files for the proxy: its agent, else Envoy itself. `defaults` are
    the mesh's for TLS that is not the mesh's. What is within is offered to clients if it `is_http`.
    """

    certificates: CertificateSource
    defaults: MeshTls | None
    is_http: bool
    compliance: CompliancePolicy = CompliancePolicy.NONE


def own_tls_socket(tls: ServerTls, terms: Terms) -> base_pb2.TransportSocket:
    """
    Return the transport socket of a chain that ends TLS with files the settings name.

    Raises: TlsUnavailable: The mode does not end TLS so, or a certificate or root is not named.
    """
    if tls.mode not in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
        raise TlsUnavailable(
            f"The proxy cannot end TLS in mode {tls.mode} there.", "Set mode to SIMPLE or MUTUAL."
        )
    if tls.mode == "SIMPLE" and (tls.verify_certificate_hash or tls.verify_certificate_spki):
        raise TlsUnavailable(
            "Mode SIMPLE does not ask clients for certificates, so none can be checked.",
            "Set mode to MUTUAL, or remove verifyCertificateHash and verifyCertificateSpki.",
        )
    context = tls_pb2.DownstreamTlsContext()
    context.require_client_certificate.value = tls.mode == "MUTUAL"
    common = context.common_tls_context
    _apply_parameters(common.tls_params, tls, terms.defaults)
    enforce(common.tls_params, terms.compliance)
    if terms.is_http:
        common.alpn_protocols.extend(_HTTP_PROTOCOLS)
    common.tls_certificate_sds_secret_configs.append(_by_discovery(_certificate(tls), terms))
    if tls.mode != "SIMPLE":
        _apply_validation(common, tls, terms)
    return base_pb2.TransportSocket(name=TLS_SOCKET, typed_config=pack(context))


def _apply_parameters(
    parameters: common_pb2.TlsParameters, tls: ServerTls, defaults: MeshTls | None
) -> None:
    defaults = defaults or MeshTls()
    oldest = _VERSIONS.get(tls.min_protocol_version)
    if oldest is None:
        is_new = defaults.min_protocol_version == "TLSV1_3"
        oldest = _VERSIONS["TLSV1_3" if is_new else "TLSV1_2"]
    newest = _VERSIONS.get(tls.max_protocol_version, _VERSIONS["TLSV1_3"])
    if oldest > newest:
        raise TlsUnavailable(
            "No version of TLS is between the oldest and the newest that are allowed.",
            "Set minProtocolVersion to maxProtocolVersion or older.",
        )
    parameters.tls_minimum_protocol_version = oldest
    parameters.tls_maximum_protocol_version = newest
    # A name the library does not know would fail the listener; the check has warned of it.
    wanted = tls.cipher_suites or defaults.cipher_suites
    chosen = [name for name in dict.fromkeys(wanted) if name in CIPHERS]
    if tls.cipher_suites and not chosen:
        raise TlsUnavailable(
            "None of cipherSuites is known to Envoy.", f"Known are {', '.join(sorted(CIPHERS))}."
        )
    parameters.cipher_suites.extend(chosen)
    curves = dict.fromkeys(defaults.ecdh_curves)
    parameters.ecdh_curves.extend(name for name in curves if name in CURVES)


def _certificate(tls: ServerTls) -> str:
    files = CertificateFiles(tls.server_certificate, tls.private_key)
    try:
        CertificateFiles.parse(str(files))
    except BadName:
        raise TlsUnavailable(
            "The files of the certificate and its key are not both named, or with a tilde.",
            "Set serverCertificate and privateKey.",
        ) from None
    return str(files)


def _apply_validation(common: tls_pb2.CommonTlsContext, tls: ServerTls, terms: Terms) -> None:
    if not tls.ca_certificates:
        raise TlsUnavailable(
            f"Mode {tls.mode} needs roots to check clients by.", "Set caCertificates."
        )
    combined = common.combined_validation_context
    roots = _by_discovery(str(RootsFile(tls.ca_certificates)), terms)
    combined.validation_context_sds_secret_config.CopyFrom(roots)
    validation = combined.default_validation_context
    validation.SetInParent()
    if tls.ca_crl:
        validation.crl.filename = tls.ca_crl
    validation.verify_certificate_hash.extend(tls.verify_certificate_hash)
    validation.verify_certificate_spki.extend(tls.verify_certificate_spki)


def _by_discovery(name: str, terms: Terms) -> secret_pb2.SdsSecretConfig:
    config = secret_pb2.SdsSecretConfig(name=name, sds_config=secret_source(terms.certificates))
    # With a limit: a file that is not there must not keep the other ports waiting.
    config.sds_config.ClearField("initial_fetch_timeout")
    return config
