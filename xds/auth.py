"""
Who may claim to be which proxy, and see what of others: the seam to whoever knows identities.

A port asks once per stream who the peer is, before anything is read, and holds the first request
against that. This room knows no certificate and no token; how they are verified, and what may be
inspected, comes from the composition root.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pilothouse.errors import ProtocolError
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.xds.transport import Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """
    Who a peer is.

    `credential` names what proved it without giving it away, so that it can be revoked;
    `ends_at_epoch_seconds` is when the proof ends, and the stream with it.
    """

    identity: WorkloadIdentity
    credential: str = ""
    ends_at_epoch_seconds: float | None = None


Authenticate = Callable[[Call], Awaitable[Verified | None]]
"""Return who a peer is, None where the port knows nobody. Raises: NotAuthenticated."""

MayInspect = Callable[[Verified | None, Proxy], bool]
"""Tell whether a caller of the status service may see what a proxy was sent."""


class NotAuthenticated(ProtocolError):
    """A peer did not prove who it is; ends the stream with UNAUTHENTICATED."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence for the peer, which tells nothing of why."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Say that it failed."""
        return self.problem


class NotAuthorized(ProtocolError):
    """A peer claims to be a proxy it is not; ends the stream with PERMISSION_DENIED."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence for the peer."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Say why."""
        return self.problem


async def know_nobody(_call: Call) -> None:
    """Let everybody in and verify nothing: for a plaintext port on loopback (C-A-7)."""


def inspect_everything(_caller: Verified | None, _proxy: Proxy) -> bool:
    """Show everything: for a plaintext port on loopback."""
    return True


def identified(proxy: Proxy, verified: Verified | None) -> Proxy:
    """
    Return a proxy with its verified identity; it must be the one that the proxy claims (C-A-8).

    The trust domain is not compared, as the node does not say it: that it is one of the mesh was
    the condition for being verified.

    Raises: NotAuthorized: The node says another namespace or service account.
    """
    if verified is None:
        return proxy
    identity = verified.identity
    claimed = (proxy.namespace, proxy.service_account)
    if claimed != (identity.namespace, identity.service_account):
        raise NotAuthorized(
            f"The credential says {identity}, the node says namespace {claimed[0][:253]!r} and"
            f" service account {claimed[1][:253]!r}."
        )
    return replace(proxy, identity=identity)
