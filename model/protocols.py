"""Which protocol a port speaks (traffic.md 3.8), and what that means for listeners and clusters."""

from enum import StrEnum
from typing import Final


class Protocol(StrEnum):
    """A declared or assumed application protocol; AUTO means detect it from the first bytes."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    GRPC_WEB = "GRPC-Web"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    UDP = "UDP"
    MONGO = "Mongo"
    MYSQL = "MySQL"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """Spoken by the HTTP connection manager."""
        return self in _HTTP

    @property
    def is_http2(self) -> bool:
        """Always HTTP/2 upstream (CL-06)."""
        return self in _HTTP2

    @property
    def is_grpc(self) -> bool:
        """Streams of messages, which may have been answered in part."""
        return self in (Protocol.GRPC, Protocol.GRPC_WEB)

    @property
    def speaks_first(self) -> bool:
        """Spoken first by the server, so that nothing may wait for the client (3.7)."""
        return self in (Protocol.MONGO, Protocol.MYSQL)

    @property
    def is_tls(self) -> bool:
        """Opaque TLS that may be routed by SNI."""
        return self in (Protocol.HTTPS, Protocol.TLS)

    @property
    def within_tls(self) -> "Protocol":
        """What is left to speak where the proxy ends the TLS (SC-09)."""
        return _WITHIN_TLS.get(self, self)


_HTTP: Final = frozenset({Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_HTTP2: Final = frozenset({Protocol.HTTP2, Protocol.GRPC, Protocol.GRPC_WEB})
_WITHIN_TLS: Final = {Protocol.HTTPS: Protocol.HTTP, Protocol.TLS: Protocol.TCP}

_WORDS: Final = {
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC_WEB,
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "https": Protocol.HTTPS,
    "tls": Protocol.TLS,
    "mongo": Protocol.MONGO,
    # Their filters are off by default upstream, so that both are opaque.
    "redis": Protocol.TCP,
    "mysql": Protocol.MYSQL,
}

_APP_PROTOCOLS: Final = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.HTTPS,
}

_SERVER_FIRST_PORTS: Final = frozenset({25, 53, 3306, 27017})
"""Well-known ports whose servers speak first: detection would wait for ever."""


def kubernetes_protocol(
    name: str, transport: str, app_protocol: str | None, number: int
) -> Protocol:
    """Return the protocol of a Kubernetes Service port."""
    if transport.upper() == "UDP":
        return Protocol.UDP
    if app_protocol and app_protocol in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[app_protocol]
    # Where it is given, the name says nothing, even if no such protocol is known.
    lowered = (app_protocol or name).lower()
    word = "grpc-web" if lowered.startswith("grpc-web") else lowered.split("-", 1)[0]
    named = _WORDS.get(word)
    if named is not None:
        return named
    return Protocol.TCP if number in _SERVER_FIRST_PORTS else Protocol.AUTO


def declared_protocol(text: str) -> Protocol:
    """Return the protocol that a ServiceEntry, Sidecar or Gateway port declares."""
    return _WORDS.get(text.lower(), Protocol.AUTO)
