"""
Every generated xDS name, with its parser: the one home of wire names (traffic.md section 1).

Tools, dashboards and EnvoyFilter patches parse these names, so they are part of the contract.
"""

from sys import intern
from typing import Final, NamedTuple

BLACK_HOLE_CLUSTER: Final = "BlackHoleCluster"  # N-05
PASSTHROUGH_CLUSTER: Final = "PassthroughCluster"  # N-06
INBOUND_PASSTHROUGH_CLUSTER: Final = "InboundPassthroughCluster"  # N-07
ALLOW_ANY_DYNAMIC_DNS_CLUSTER: Final = "AllowAnyDynamicDNSCluster"  # N-08

XDS_CLUSTER: Final = "xds-grpc"  # N-13
AGENT_CLUSTER: Final = "sds-grpc"  # N-13, D-A-7

VIRTUAL_OUTBOUND: Final = "virtualOutbound"  # N-22
VIRTUAL_INBOUND: Final = "virtualInbound"  # N-23
OUTBOUND_BLACKHOLE_CHAIN: Final = "virtualOutbound-blackhole"  # N-26
OUTBOUND_CATCHALL_CHAIN: Final = "virtualOutbound-catchall-tcp"  # N-26
OUTBOUND_CATCHALL_HTTP_CHAIN: Final = "virtualOutbound-catchall-tcp-http"  # N-26
INBOUND_BLACKHOLE_CHAIN: Final = "virtualInbound-blackhole"  # N-27
INBOUND_CATCHALL_HTTP_CHAIN: Final = "virtualInbound-catchall-http"  # N-27
INBOUND_CATCHALL_CHAIN: Final = "virtualInbound"  # N-27
PASSTHROUGH_FILTER_CHAIN: Final = "PassthroughFilterChain"  # N-29

HTTP_PROXY_ROUTE: Final = "http_proxy"  # N-24

ALLOW_ANY_VIRTUAL_HOST: Final = "allow_any"  # N-49
BLOCK_ALL_VIRTUAL_HOST: Final = "block_all"  # N-49
ALLOW_ANY_DYNAMIC_DNS: Final = "allow_any_dynamic_dns"  # N-49
ANY_DOMAIN: Final = "*"
DEFAULT_ROUTE: Final = "default"  # N-51


class BadName(ValueError):
    """A text is not a name of the expected form."""

    def __init__(self, what: str, text: str) -> None:
        """Say what was expected of `text`."""
        super().__init__(f"{text!r} is not {what}")


def _port(what: str, text: str, whole: str) -> int:
    # Only as we would write it: two texts must not name one thing.
    if not (text.isascii() and text.isdigit()) or text[0] == "0" or len(text) > 5:
        raise BadName(what, whole)
    return int(text)


class ClusterName(NamedTuple):
    """An outbound cluster, ``outbound|PORT|SUBSET|HOST`` (N-01); PORT is the service port."""

    port: int
    subset: str
    host: str

    def __str__(self) -> str:
        """Format the name."""
        return f"outbound|{self.port}|{self.subset}|{self.host}"

    @staticmethod
    def parse(text: str) -> "ClusterName":
        """Read the name. Raises: BadName."""
        parts = text.split("|")
        if len(parts) != 4 or parts[0] != "outbound" or not parts[3]:
            raise BadName("an outbound cluster name", text)
        # Interned: the same name is read for every client that asks for it, and kept.
        host = intern(parts[3])
        return ClusterName(_port("an outbound cluster name", parts[1], text), parts[2], host)

    @staticmethod
    def host_of(text: str) -> str:
        """Return the host of a cluster's name; of any other text, some part of it."""
        return text.rpartition("|")[2]

    @property
    def sni(self) -> str:
        """The SNI-DNAT form, ``outbound_.PORT_.SUBSET_.HOST`` (N-03)."""
        return f"outbound_.{self.port}_.{self.subset}_.{self.host}"


class InboundClusterName(NamedTuple):
    """An inbound cluster, ``inbound|PORT||`` (N-02); PORT is the target port."""

    port: int

    def __str__(self) -> str:
        """Format the name."""
        return f"inbound|{self.port}||"

    @staticmethod
    def parse(text: str) -> "InboundClusterName":
        """Read the name. Raises: BadName."""
        parts = text.split("|")
        if len(parts) != 4 or parts[0] != "inbound" or parts[2] or parts[3]:
            raise BadName("an inbound cluster name", text)
        return InboundClusterName(_port("an inbound cluster name", parts[1], text))


def is_pipe(address: str) -> bool:
    """Tell whether an address is a Unix socket: a path, or an abstract name after ``@``."""
    return address.startswith(("/", "@"))


class ListenerName(NamedTuple):
    """A listener bound to an address, ``BIND_PORT`` (N-20); a Unix path names itself (port 0)."""

    bind: str
    port: int

    def __str__(self) -> str:
        """Format the name."""
        return self.bind if is_pipe(self.bind) else f"{self.bind}_{self.port}"

    @staticmethod
    def parse(text: str) -> "ListenerName":
        """Read the name. Raises: BadName."""
        if is_pipe(text):
            return ListenerName(text, 0)
        bind, mark, port = text.rpartition("_")
        if not mark or not bind:
            raise BadName("a listener name", text)
        return ListenerName(bind, _port("a listener name", port, text))


class RouteName(NamedTuple):
    """
    A sidecar's outbound route configuration.

    ``PORT`` for all HTTP services on a port (N-40), ``HOST:PORT`` for one auto-detected service
    with a listener of its own (N-41), a Unix path for a Sidecar egress bind (N-43, port 0),
    ``http_proxy`` for clients that use the proxy as such (N-24, port 0).
    """

    port: int
    host: str = ""

    @property
    def pipe(self) -> str:
        """The Unix path, empty for the others."""
        return self.host if is_pipe(self.host) else ""

    @property
    def is_http_proxy(self) -> bool:
        """Tell whether the routes are for clients that name host and port themselves."""
        return self.host == HTTP_PROXY_ROUTE and not self.port

    def __str__(self) -> str:
        """Format the name."""
        if self.pipe or self.is_http_proxy:
            return self.host
        return f"{self.host}:{self.port}" if self.host else str(self.port)

    @staticmethod
    def parse(text: str) -> "RouteName":
        """Read the name. Raises: BadName."""
        if is_pipe(text) or text == HTTP_PROXY_ROUTE:
            return RouteName(0, text)
        host, _, port = text.rpartition(":")
        return RouteName(_port("a route configuration name", port, text), host)


class VirtualHostName(NamedTuple):
    """A virtual host of a service or VirtualService host, ``HOST:PORT`` (N-48)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Format the name."""
        return f"{self.host}:{self.port}"

    @staticmethod
    def parse(text: str) -> "VirtualHostName":
        """Read the name. Raises: BadName."""
        host, _, port = text.rpartition(":")
        if not host:
            raise BadName("a virtual host name", text)
        return VirtualHostName(host, _port("a virtual host name", port, text))


def config_path(group_version: str, namespace: str, kind: str, name: str) -> str:
    """Return the path under which Istio's metadata names an object (N-68)."""
    kebab = "".join(f"-{c.lower()}" if c.isupper() else c for c in kind).lstrip("-")
    return f"/apis/{group_version}/namespaces/{namespace}/{kebab}/{name}"
