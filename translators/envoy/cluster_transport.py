"""
The transport sockets of an outbound cluster: plain text, the mesh's mutual TLS, or the rule's TLS.

Auto mTLS is decided per endpoint: the cluster has a socket for endpoints that take mutual TLS and
one for the others, and load assignments say which is which (traffic.md 3.9, N-71).
"""

from typing import Final, NamedTuple

from msgspec import structs

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from pilothouse._pb.google.protobuf import struct_pb2
from pilothouse.api.destination_rule import ClientTls
from pilothouse.graph.core import Ctx
from pilothouse.model.compliance import compliance
from pilothouse.model.endpoints import EndpointsKey
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import ClusterName
from pilothouse.model.proxies import CertificateSource, TlsFiles
from pilothouse.model.service_accounts import (
    all_take_mutual_tls,
    service_identities,
    trust_domains,
)
from pilothouse.model.services import Port, Service
from pilothouse.model.transport import Transport, transport_of
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.endpoints import MUTUAL_TLS_ENDPOINT
from pilothouse.translators.envoy.http_options import HttpUpstream
from pilothouse.translators.envoy.mutual_tls import MeshPeer, client_socket, offered
from pilothouse.translators.envoy.upstream_tls import TlsTarget, TlsUnavailable, apply_tls

MUTUAL_MATCH: Final = "tlsMode-istio"
PLAIN_MATCH: Final = "tlsMode-disabled"


class Destination(NamedTuple):
    """What a cluster leads to, for whom, and under which TLS settings."""

    owner: Service
    port: Port
    subset: str
    tls: ClientTls | None
    certificates: CertificateSource
    names: tuple[str, ...]
    has_secrets: bool = False
    files: TlsFiles | None = None


def apply_transport(
    ctx: Ctx, cluster: cluster_pb2.Cluster, to: Destination, upstream: HttpUpstream
) -> None:
    """
    Give a cluster, whose discovery is decided, its transport sockets (DR-50 to DR-57, S-PA-11).

    Raises: TlsUnavailable: What the rule asks for cannot be had.
    """
    mesh = ctx.get(mesh_config, None)
    match transport_of(mesh, to.owner, to.tls, to.certificates):
        case Transport.ORIGINATED:
            target = TlsTarget(
                host=to.owner.host,
                protocol=to.port.protocol,
                is_http2=upstream.is_http2,
                names=to.names,
                defaults=mesh.tls_defaults,
                has_secrets=to.has_secrets,
                compliance=ctx.get(compliance, None),
            )
            apply_tls(cluster, to.tls, target)
        case Transport.MUTUAL:
            if to.certificates is CertificateSource.NONE:
                raise TlsUnavailable(
                    "ISTIO_MUTUAL needs workload certificates, and a client has none."
                )
            cluster.transport_socket.CopyFrom(_mutual(ctx, to, upstream))
        case Transport.AUTOMATIC:
            _apply_automatic(ctx, cluster, to, upstream)
        case Transport.PLAIN:
            pass


def with_own_files(tls: ClientTls | None, owner: Service, files: TlsFiles) -> ClientTls | None:
    """
    Return a rule's TLS for a client that has certificates in files of its own (DR-58).

    They are shown where the rule asks for any, to whom the rule names; not outside of the mesh.
    """
    if tls is None or owner.is_mesh_external:
        return tls
    if tls.mode not in ("MUTUAL", "ISTIO_MUTUAL"):
        return tls
    return structs.replace(
        tls,
        mode="MUTUAL",
        credential_name="",
        client_certificate=files.chain,
        private_key=files.key,
        ca_certificates=files.roots or tls.ca_certificates,
    )


def _apply_automatic(
    ctx: Ctx, cluster: cluster_pb2.Cluster, to: Destination, upstream: HttpUpstream
) -> None:
    if cluster.type == cluster_pb2.Cluster.ORIGINAL_DST:
        # Envoy learns these endpoints from the client and knows nothing of them.
        if ctx.get(all_take_mutual_tls, EndpointsKey(to.owner.key, to.port.number)):
            cluster.transport_socket.CopyFrom(_mutual(ctx, to, upstream))
        return
    cluster.transport_socket_matches.add(
        name=MUTUAL_MATCH,
        match=MUTUAL_TLS_ENDPOINT,
        transport_socket=_mutual(ctx, to, upstream),
    )
    cluster.transport_socket_matches.add(
        name=PLAIN_MATCH, match=struct_pb2.Struct(), transport_socket=_PLAIN
    )


def _mutual(ctx: Ctx, to: Destination, upstream: HttpUpstream) -> base_pb2.TransportSocket:
    chosen = to.tls.subject_alt_names if to.tls else ()
    sni = to.tls.sni if to.tls else ""
    return client_socket(
        MeshPeer(
            certificates=to.certificates,
            sni=sni or ClusterName(to.port.number, to.subset, to.owner.host).sni,
            names=chosen or ctx.get(service_identities, to.owner.key),
            trust_domains=ctx.get(trust_domains, None),
            protocols=offered(upstream),
            files=to.files,
            compliance=ctx.get(compliance, None),
        )
    )


_PLAIN: Final = base_pb2.TransportSocket(
    name="envoy.transport_sockets.raw_buffer", typed_config=pack(raw_buffer_pb2.RawBuffer())
)
