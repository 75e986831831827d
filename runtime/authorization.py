"""
The rule of the TLS port: a proxy is who its certificate says (security.md C-A-1, C-A-8).

Joins `certs` and `xds`, which may not know each other.
"""

from typing import Final

from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.xds.auth import NotAuthorized, PeerProperties

_NAMES: Final = "peer_uri"  # the URI names of the verified certificate, and only those


def peer_identity(peer: PeerProperties) -> WorkloadIdentity:
    """
    Return the one identity in the verified certificate of a connection.

    Raises: NotAuthorized: It has none, several, or one of another form.
    """
    names = list(peer.get(_NAMES, ()))
    if len(names) != 1:
        raise NotAuthorized(
            f"The client certificate has {len(names)} URI names; exactly one is needed."
        )
    try:
        return WorkloadIdentity.parse(names[0].decode("ascii"))
    except (InvalidIdentity, UnicodeDecodeError) as error:
        raise NotAuthorized(f"The client certificate's identity is not usable: {error}") from None


def only_itself(peer: PeerProperties, proxy: Proxy) -> None:
    """
    Let a peer act as a proxy of its certificate's namespace and service account.

    Raises: NotAuthorized: It claims others. The trust domain was checked by the root that signed.
    """
    identity = peer_identity(peer)
    claimed = (proxy.namespace, proxy.service_account)
    if claimed != (identity.namespace, identity.service_account):
        raise NotAuthorized(
            f"The certificate says {identity}, the node says namespace {claimed[0]!r} and service"
            f" account {claimed[1]!r}."
        )
