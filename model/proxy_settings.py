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
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.mesh import mesh_config
from pilothouse.model.proxies import CertificateSource, Proxy, TlsFiles


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
    `client_files` and `server_files` are shown in place of the mesh's certificates (NM-11, NM-12).
    """

    headers: ProxyHeaders | None = None
    connections: ConnectionSettings | None = None
    idle_timeout: Duration | None = None
    accepts_http10: bool = False
    balances_inbound: bool = False
    balances_outbound: bool = False
    http_proxy_port: int = 0
    client_files: TlsFiles | None = None
    server_files: TlsFiles | None = None

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
        client_files=_usable(ctx, proxy, proxy.client_files, "TLS_CLIENT"),
        server_files=_usable(ctx, proxy, proxy.server_files, "TLS_SERVER"),
    )


def secret_source(certificates: CertificateSource, files: TlsFiles | None) -> CertificateSource:
    """
    Return where a proxy with files of its own asks for certificates.

    Files are told of by this server, so a proxy that has all it needs in files has certificates.
    """
    if certificates is CertificateSource.NONE and files is not None and files.roots:
        return CertificateSource.ADS
    return certificates


def _usable(ctx: Ctx, proxy: Proxy, files: TlsFiles | None, side: str) -> TlsFiles | None:
    if files is None:
        return None
    problem = ""
    if not (files.chain and files.key):
        problem = f"{side}_CERT_CHAIN and {side}_KEY go together, and one is not there"
    elif "~" in files.chain or "~" in files.key:
        problem = f"{side}_CERT_CHAIN and {side}_KEY cannot have ~ in their paths"
    elif not files.roots and proxy.certificates is CertificateSource.NONE:
        problem = f"Without certificates of the mesh {side}_ROOT_CERT is needed too"
    if not problem:
        return files
    ctx.report(
        Finding(
            Severity.WARNING,
            "ProxyFilesUnusable",
            ConfigRef("Proxy", proxy.namespace, proxy.name, f"metadata.{side}_CERT_CHAIN"),
            f"{problem}; the files are not used.",
            "Give the proxy's metadata the paths of the chain, its key, and the roots.",
        )
    )
    return None
