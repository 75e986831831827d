"""
The secure port: the TLS front, the gRPC server behind it, and who is known there.

The gRPC server listens on a Unix socket in a directory of the server's own, which nobody else may
enter; only the front connects to it.
"""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from msgspec.structs import replace

from pilothouse.certs.callers import Callers
from pilothouse.certs.client_certificates import revoked_serials
from pilothouse.certs.front.ciphers import PortTls
from pilothouse.certs.front.control import Material
from pilothouse.certs.front.peers import CallerFinder, Peers, Recognise
from pilothouse.certs.front.supervisor import TlsFront
from pilothouse.certs.material import fingerprint, load_certificates
from pilothouse.certs.precedence import Precedence
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.authorization import OperatorsSeeAll, StreamAuthentication
from pilothouse.runtime.caller_log import CallerLog
from pilothouse.runtime.ports import CannotListen, why_not
from pilothouse.xds.server import DiscoveryServer
from pilothouse.xds.streams import Streams

OPTION: Final = "--secure-grpc-addr"
_QUEUE: Final = 1_024
"""Connections that wait for the front to take them, also while it is being replaced."""

log = structlog.get_logger()


class SecurePort:
    """
    The port 15012.

    `find_caller` is for services mounted on it: it tells who makes a gRPC call.
    """

    def __init__(
        self,
        streams: Streams,
        *,
        callers: Callers,
        recognise: Recognise,
        root_namespace: Callable[[], str],
        caller_log: CallerLog,
        clock: Callable[[], float],
        tls: PortTls | None = None,
        precedence: Precedence | None = None,
    ) -> None:
        """
        Serve `streams` to whom `callers` know; `recognise` reads client certificates.

        Requests for certificates are kept back while `precedence` is closed.
        `tls` is what is demanded of handshakes, beyond what always is.
        """
        self._streams = streams
        self._recognise = recognise
        self._root_namespace = root_namespace
        self._caller_log = caller_log
        self._clock = clock
        self._precedence = precedence or Precedence()
        self._tls = (tls or PortTls())._asdict()
        self._directory: Path | None = None
        self._listener: socket.socket | None = None
        self._front: TlsFront | None = None
        self._server: DiscoveryServer | None = None
        self.peers = Peers()
        self.find_caller = CallerFinder(self.peers, callers)

    @property
    def front(self) -> TlsFront | None:
        """The front, once the port listens."""
        return self._front

    async def listen(
        self,
        address: Address,
        material: Material,
        services: "Sequence[grpc.GenericRpcHandler[Any, Any]]" = (),
    ) -> Address:
        """
        Bind the port, start the gRPC server with `services` beside discovery, and the front.

        Raises: CannotListen: The address is in use. FrontFailed: The material cannot be used.
        """
        self._listener = _bound(address)
        self._directory = Path(tempfile.mkdtemp(prefix="pilothouse-"))  # mode 0700
        backend = self._directory / "grpc"
        self._server = DiscoveryServer(
            self._streams,
            authenticate=StreamAuthentication(self.find_caller),
            may_inspect=OperatorsSeeAll(self._root_namespace),
            address_of=self.peers.address,
            services=services,
        )
        await self._server.start(f"unix:{backend}")
        self._front = TlsFront(
            self._listener,
            backend,
            peers=self.peers,
            recognise=self._recognise,
            observer=self._caller_log,
            clock=self._clock,
        )
        await self._front.start(replace(material, **self._tls))
        self._precedence.heed(self._front.hold)
        self._caller_log.connections.set_function(lambda: len(self.peers))
        return address.with_port(self._listener.getsockname()[1])

    async def run(self) -> None:
        """Let callers in until cancelled."""
        if self._front is not None:
            await self._front.run()

    async def update(self, material: Material) -> None:
        """
        Use another certificate or other roots for new connections; those that are open stay.

        Only those by a certificate that is now revoked are closed, at once, and those by one of a
        root that is trusted no more, within a minute: with that root's key anybody can be forged.

        Raises: FrontFailed: It cannot be used, and the port goes on with what it has.
        """
        if self._front is not None:
            await self._front.update(replace(material, **self._tls))
            closed = self._front.close(revoked_serials(material.crl_pem))
            if closed:
                log.info("secure_port.revoked", connections_closed=closed)
            roots = load_certificates(material.roots_pem.encode("ascii"), "the bundle")
            retired = self._front.retire({fingerprint(root) for root in roots})
            if retired:
                log.info("secure_port.root_retired", connections_closed=retired)

    async def stop(self, grace_seconds: float) -> None:
        """Say goodbye to streams, then end the front; `run` must have ended."""
        if self._server is not None:
            await self._server.stop(grace_seconds)
        if self._front is not None:
            await self._front.stop()
        if self._listener is not None:
            self._listener.close()
        if self._directory is not None:
            with suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, self._directory)


def _bound(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        made = socket.create_server(
            (address.host, address.port),
            family=family,
            backlog=_QUEUE,
            # "::" is every address of this machine, as for other servers.
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise CannotListen(OPTION, address, why_not(address)) from error
    made.setblocking(False)
    return made
