"""
The connections of the secure port that are open, by the name under which gRPC sees them.

Fails closed: a call whose peer is not known here came round the front and has no credentials.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pilothouse.certs.callers import (
    CallContext,
    Caller,
    Callers,
    ClientCertificate,
    Credentials,
    NotAuthenticated,
    bearer_tokens,
    cluster_name,
)
from pilothouse.certs.front.half_open import network

_PREFIX: Final = "unix-abstract:"


@dataclass(slots=True, eq=False)
class Peer:
    """
    A connection that the front let in; `opened_at` is seconds of the front's clock.

    `root` is the fingerprint of the root that its certificate was verified by, "" if not known.
    """

    name: str
    address: str
    certificate: ClientCertificate | None
    opened_at: float
    root: str = ""
    was_recognised: bool = False
    wants_certificates: bool | None = None
    """Whether it has asked for certificates and nothing else; None before its first call."""
    on_recognised: Callable[[], None] = lambda: None


class Peers:
    """All of them."""

    def __init__(self) -> None:
        """Know nobody."""
        self._peers: dict[str, Peer] = {}
        self.want_certificates = 0
        """How many have asked for certificates and nothing else."""
        self.on_wants: Callable[[str, bool], None] = _nobody
        """Told the name of a connection when that changes."""

    def __len__(self) -> int:
        """Count the open connections."""
        return len(self._peers)

    def add(self, peer: Peer) -> None:
        """Know a connection, from before its first byte reaches gRPC."""
        self._peers[peer.name] = peer

    def discard(self, name: str) -> None:
        """Forget a connection."""
        peer = self._peers.pop(name, None)
        if peer is not None and peer.wants_certificates:
            self.want_certificates -= 1

    def clear(self) -> None:
        """Forget all of them."""
        self._peers.clear()
        self.want_certificates = 0

    def wants(self, peer: Peer, certificates: bool) -> None:  # noqa: FBT001
        """Note what a call of a connection is about; other things than certificates prevail."""
        before = peer.wants_certificates
        if before is certificates or before is False:
            return
        peer.wants_certificates = certificates
        self.want_certificates += 1 if certificates else -bool(before)
        if certificates or before:
            self.on_wants(peer.name, certificates)

    def find(self, grpc_peer: str) -> Peer | None:
        """Return the connection that gRPC calls so."""
        return self._peers.get(grpc_peer.removeprefix(_PREFIX))

    def address(self, grpc_peer: str) -> str:
        """Return where a connection comes from, for people."""
        peer = self.find(grpc_peer)
        return peer.address if peer is not None else grpc_peer

    def holding(self, serials: Collection[str]) -> Iterator[str]:
        """Yield the names of connections by certificates of these serial numbers."""
        for peer in self._peers.values():
            if peer.certificate is not None and peer.certificate.serial in serials:
                yield peer.name

    def relying_on_others(self, roots: Collection[str]) -> Iterator[str]:
        """Yield the names of connections by certificates of other roots than these."""
        for peer in self._peers.values():
            if peer.certificate is not None and peer.root and peer.root not in roots:
                yield peer.name

    def strangers(self, opened_before: float) -> Iterator[str]:
        """Yield the names of older connections on which no call was ever recognised."""
        for peer in self._peers.values():
            if not peer.was_recognised and peer.opened_at < opened_before:
                yield peer.name


class CallerFinder:
    """Finds who makes a call on the secure port."""

    def __init__(self, peers: Peers, callers: Callers) -> None:
        """Look for connections in `peers` and ask `callers` for identities."""
        self._peers = peers
        self._callers = callers

    async def __call__(self, context: CallContext) -> Caller:
        """Return who makes a call for a certificate. Raises: NotAuthenticated."""
        return await self._caller(context.peer(), context.invocation_metadata() or ())

    def arrived(self, context: CallContext) -> str:
        """A call for a certificate has come; return the address whose turn it waits for."""
        peer = self._peers.find(context.peer())
        if peer is None:
            return ""
        self._peers.wants(peer, True)
        return network(peer.address.rpartition(":")[0].strip("[]"))

    async def caller(self, grpc_peer: str, headers: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return who makes another call with these headers. Raises: NotAuthenticated."""
        if (peer := self._peers.find(grpc_peer)) is not None:
            self._peers.wants(peer, False)
        return await self._caller(grpc_peer, headers)

    async def _caller(self, grpc_peer: str, headers: Iterable[tuple[str, str | bytes]]) -> Caller:
        peer = self._peers.find(grpc_peer)
        if peer is None:
            raise NotAuthenticated
        metadata = tuple(headers)
        credentials = Credentials(
            address=peer.address,
            certificate=peer.certificate,
            tokens=bearer_tokens(metadata),
            cluster=cluster_name(metadata),
        )
        caller = await self._callers.authenticate(credentials)
        if not peer.was_recognised:
            peer.was_recognised = True
            peer.on_recognised()
        return caller


Recognise = Callable[[bytes], ClientCertificate]
"""Read a verified leaf (DER). Raises: CredentialRefused."""


def _nobody(_name: str, _is_all: bool) -> None:  # noqa: FBT001
    return
