"""
The rules of the secure port: who a proxy is, and who may look at others (security.md C-A-8, 3.2).

Joins `certs` and `xds`, which may not know each other.
"""

from collections.abc import Callable

from pilothouse.certs.callers import Caller, NotAuthenticated
from pilothouse.certs.front.peers import CallerFinder
from pilothouse.model.proxies import Proxy
from pilothouse.xds import auth
from pilothouse.xds.transport import Call

STREAM_REFUSED = "authentication failure"
"""All that a stream is told; istiod's words."""


class StreamAuthentication:
    """Asks the chain of authenticators who a discovery stream is."""

    def __init__(self, find: CallerFinder) -> None:
        """Ask `find`."""
        self._find = find

    async def __call__(self, call: Call) -> auth.Verified:
        """Return who is there. Raises: NotAuthenticated."""
        try:
            caller = await self._find.caller(call.peer, call.metadata)
        except NotAuthenticated:
            raise auth.NotAuthenticated(STREAM_REFUSED) from None
        return verified(caller)


def verified(caller: Caller) -> auth.Verified:
    """Return what discovery streams are told of a caller."""
    return auth.Verified(
        identity=caller.identity,
        credential=caller.credential,
        ends_at_epoch_seconds=caller.ends_at.timestamp() if caller.ends_at is not None else None,
    )


class OperatorsSeeAll:
    """
    Who may see what proxies were sent: operators everything, others what is of their namespace.

    An operator is a caller of the mesh's root namespace, where the control plane runs (Z-8, GN-07).
    """

    def __init__(self, root_namespace: Callable[[], str]) -> None:
        """`root_namespace` is asked anew each time: the mesh config changes."""
        self._root_namespace = root_namespace

    def __call__(self, caller: auth.Verified | None, proxy: Proxy) -> bool:
        """Tell whether a caller may see a proxy."""
        if caller is None:
            return False
        # Of a proxy without a verified identity the namespace is its own word; what it was sent is
        # what that namespace's proxies are sent.
        return caller.identity.namespace in {self._root_namespace(), proxy.namespace}
