"""
Who may claim to be which proxy: the seam between a stream and whoever knows identities.

The server asks once per stream, after the first request has been read as a proxy and before
anything is sent. This room knows no certificate; the rule comes from the composition root.
"""

from collections.abc import Callable, Iterable, Mapping

from pilothouse.errors import ProtocolError
from pilothouse.model.proxies import Proxy

PeerProperties = Mapping[str, Iterable[bytes]]
"""gRPC's auth context of a connection, such as ``x509_subject_alternative_name``."""

Authorize = Callable[[PeerProperties, Proxy], None]
"""Return if the peer may act as that proxy. Raises: NotAuthorized."""


class NotAuthorized(ProtocolError):
    """A peer claims to be a proxy it is not; ends the stream with PERMISSION_DENIED."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence for the peer."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Say why."""
        return self.problem


def anyone(_peer: PeerProperties, _proxy: Proxy) -> None:
    """Let everybody be who they say they are: for a plaintext port on loopback (C-A-7)."""
