"""
What is asked of the simulator: one connection, and the HTTP request on it if there is one.

Values only. They say what the proxy can see, never what the config makes of it.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address


class Direction(StrEnum):
    """Which of a sidecar's two ways in a connection takes."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class ApplicationProtocol(StrEnum):
    """What is spoken inside the connection, within TLS if there is any."""

    HTTP_1_0 = "http/1.0"
    HTTP_1_1 = "http/1.1"
    HTTP_2 = "h2"
    TCP = "tcp"

    @property
    def is_http(self) -> bool:
        """Tell whether it has hosts, paths and headers."""
        return self is not ApplicationProtocol.TCP


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsHello:
    """What a TLS client hello says in the clear: SNI (empty: none) and ALPN in its order."""

    server_name: str = ""
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One connection to `address`:`port` and, for HTTP, one request on it.

    `address` and `source_address` are IP addresses as text. `tls` is None for plain text. `path` is
    as on the request line, with its query. `headers` are without pseudo headers and without the
    host; names in any case, a name may repeat. `is_captured` says that the workload's traffic is
    redirected to the proxy; else the client connects to a listener's own address. `random_value`
    stands in for Envoy's: what is decided by chance follows from it.

    Raises: ValueError: An address is no IP address, or a port is out of range.
    """

    address: str
    port: int
    direction: Direction = Direction.OUTBOUND
    protocol: ApplicationProtocol = ApplicationProtocol.HTTP_1_1
    tls: TlsHello | None = None
    host: str = ""
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    source_address: str = "127.0.0.1"
    source_port: int = 40000
    is_captured: bool = True
    random_value: int = 0

    def __post_init__(self) -> None:
        """Refuse what no connection can have."""
        ip_address(self.address)
        ip_address(self.source_address)
        for port in (self.port, self.source_port):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is not a port")

    @property
    def destination(self) -> IpAddress:
        """The address the client asked for."""
        return ip_address(self.address)

    @property
    def source(self) -> IpAddress:
        """The client's address."""
        return ip_address(self.source_address)
