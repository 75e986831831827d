"""
What a proxy's own config says of the connections it accepts, apart from any traffic rule.

From the ProxyConfig that the proxy brings along, else from the mesh's defaults (traffic.md 2.9),
and from single keys of its metadata. Part of its class: proxies that differ here are served apart.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pilothouse.api.duration import Duration
from pilothouse.api.proxy_config import ConnectionSettings, ProxyHeaders
from pilothouse.graph.core import Ctx, query
from pilothouse.model.mesh import mesh_config
from pilothouse.model.proxies import Proxy


class RouteHeaders(NamedTuple):
    """
    Which headers routes add to requests (PC-06).

    `counts_attempts`: how often a request was tried. `forwards_host`: the host before a rewrite.
    """

    counts_attempts: bool = True
    forwards_host: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """
    How a proxy treats connections and headers; None is Istio's default.

    `idle_timeout` closes connections without traffic, HTTP and other (NM-14). `accepts_http10`
    answers clients that speak HTTP/1.0 (NM-15). `balances_inbound` and
    `balances_outbound` give each connection to the worker with the fewest (LS-20). At
    `http_proxy_port` clients use the proxy as one, by the names of hosts; 0 is nowhere (NM-13).
    """

    headers: ProxyHeaders | None = None
    connections: ConnectionSettings | None = None
    idle_timeout: Duration | None = None
    accepts_http10: bool = False
    balances_inbound: bool = False
    balances_outbound: bool = False
    http_proxy_port: int = 0

    @property
    def on_routes(self) -> RouteHeaders:
        """What routes add to requests."""
        count = self.headers.attempt_count if self.headers else None
        host = self.headers.x_forwarded_host if self.headers else None
        return RouteHeaders(not (count and count.disabled), bool(host and host.enabled))

    @property
    def preserves_case(self) -> bool:
        """Whether headers of HTTP/1.x keep the case they came in (PC-06)."""
        return bool(self.headers and self.headers.preserve_http1_header_case)


NO_SETTINGS: Final = ProxySettings()
"""The settings of a proxy that says nothing in a mesh that says nothing."""


@query
def default_settings(ctx: Ctx, _key: None) -> ProxySettings:
    """Return what the mesh config says, so that its other changes stop here."""
    mesh = ctx.get(mesh_config, None)
    return ProxySettings(
        headers=mesh.default_config.proxy_headers,
        connections=mesh.default_config.connection_settings,
        http_proxy_port=mesh.proxy_http_port,
    )


def settings_of(ctx: Ctx, proxy: Proxy) -> ProxySettings:
    """
    Return the settings of a proxy.

    Its own ProxyConfig replaces the mesh's as a whole, for the agent has merged them already; only
    connectionSettings are the mesh's where the proxy brings none, as upstream.
    """
    found = ctx.get(default_settings, None)
    own = proxy.config
    if own is not None:
        connections = own.connection_settings or found.connections
        found = replace(found, headers=own.proxy_headers, connections=connections)
    if proxy.http_proxy_port is not None:
        found = replace(found, http_proxy_port=proxy.http_proxy_port)
    return replace(
        found,
        idle_timeout=proxy.idle_timeout,
        accepts_http10=proxy.http10,
        balances_inbound=proxy.balances_inbound,
        balances_outbound=proxy.balances_outbound,
    )
