"""
TLS of the control plane's own port: a certificate renewed in time, client certificates required.

Fails closed: a client without a certificate of this root does not get past the handshake. grpcio
can either require certificates or not ask for them, so clients that hold only a token (bootstrap)
have no place on this port.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import grpc

from pilothouse.certs.authority import Authority
from pilothouse.certs.issued import KeyPair
from pilothouse.certs.issuing import BACKDATING, DEFAULT_TTL


class ServerTls:
    """The server's certificate, issued anew once half its life is over."""

    def __init__(
        self, authority: Authority, names: Sequence[str], clock: Callable[[], datetime]
    ) -> None:
        """Serve as `names` (DNS names and IP addresses); `clock` gives the time with a zone."""
        self._authority = authority
        self._names = tuple(names)
        self._clock = clock
        self._current = authority.issue_server(self._names, clock())

    def certificate(self) -> KeyPair:
        """Return a certificate with at least half its life left."""
        now = self._clock()
        if self._current.not_after - now < (DEFAULT_TTL + BACKDATING) / 2:
            self._current = self._authority.issue_server(self._names, now)
        return self._current

    def credentials(self) -> grpc.ServerCredentials:
        """Return gRPC credentials that ask for the current certificate at each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def _configuration(self) -> Any:  # noqa: ANN401 (grpc's type is private in its stubs)
        pair = self.certificate()
        return grpc.ssl_server_certificate_configuration(
            [(pair.key_pem, pair.certificate_pem)], root_certificates=self._authority.root_pem
        )
