"""
Gateway: ports and hosts that a gateway proxy opens.

Types of networking.istio.io, held already so that references can be checked; rules across fields
are in `gateway_check`.
"""

from typing import Literal

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct

ServerTlsMode = Literal[
    "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
]
TlsProtocol = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]


class GatewayPort(ApiStruct, frozen=True):
    """A port of a gateway server."""

    number: int
    protocol: str
    name: str = ""
    target_port: int = 0


class TlsCertificate(ApiStruct, frozen=True):
    """Files of one certificate."""

    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTls(ApiStruct, frozen=True):
    """ServerTLSSettings: TLS offered to clients."""

    https_redirect: bool = False
    mode: ServerTlsMode = "PASSTHROUGH"
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: tuple[str, ...] = ()
    ca_cert_credential_name: str = ""
    tls_certificates: tuple[TlsCertificate, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    min_protocol_version: TlsProtocol = "TLS_AUTO"
    max_protocol_version: TlsProtocol = "TLS_AUTO"
    cipher_suites: tuple[str, ...] = ()
    insecure_skip_verify: bool | None = None


class Server(ApiStruct, frozen=True):
    """One port with the hosts served on it."""

    port: GatewayPort
    hosts: tuple[str, ...]
    bind: str = ""
    tls: ServerTls | None = None
    default_endpoint: str = ""
    name: str = ""


class GatewaySpec(ApiStruct, frozen=True):
    """Servers, and the labels of the proxies that serve them."""

    servers: tuple[Server, ...] = ()
    selector: dict[str, str] = {}


class Gateway(ApiStruct, frozen=True):
    """A Gateway object."""

    meta: ObjectMeta
    spec: GatewaySpec = GatewaySpec()
