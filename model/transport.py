"""
How a client's connections to a service are secured: what the rule says, else what the mesh does.

An explicit DestinationRule wins; without one, clients with certificates use mutual TLS wherever an
endpoint takes it (auto mTLS, traffic.md 3.9, S-PA-11).
"""

from enum import Enum

from pilothouse.api.destination_rule import ClientTls
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.model.proxies import CertificateSource
from pilothouse.model.services import Resolution, Service


class Transport(Enum):
    """What a cluster's connections are."""

    PLAIN = "plain text"
    AUTOMATIC = "mutual TLS to endpoints that take it"
    MUTUAL = "mutual TLS with the mesh's certificates"
    ORIGINATED = "TLS with certificates that are not the mesh's"

    @property
    def may_be_mutual(self) -> bool:
        """Whether some connection shows the mesh's certificates."""
        return self in (Transport.AUTOMATIC, Transport.MUTUAL)


def transport_of(
    mesh: MeshConfig, owner: Service, tls: ClientTls | None, certificates: CertificateSource
) -> Transport:
    """
    Return how a service is spoken to under a policy's TLS settings.

    MUTUAL is what a rule asks for, whether the client has certificates or not.
    """
    if tls is not None:
        match tls.mode:
            case "DISABLE":
                return Transport.PLAIN
            case "ISTIO_MUTUAL":
                return Transport.MUTUAL
            case _:
                return Transport.ORIGINATED
    if (
        certificates is CertificateSource.NONE
        or not mesh.enable_auto_mtls
        or owner.is_mesh_external
        or owner.resolution in (Resolution.DYNAMIC_DNS, Resolution.ALIAS)
    ):
        return Transport.PLAIN
    return Transport.AUTOMATIC
