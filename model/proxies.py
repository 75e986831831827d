"""
Proxies and the classes they are served by.

A `Proxy` is what a data plane said of itself when it connected. A `ProxyClass` is all of it that
may change what it is served: proxies of one class share every byte. Translators see classes, never
proxies. Reading the node message is the business of `pilothouse.xds.node`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pilothouse.api.duration import Duration
from pilothouse.api.proxy_config import OwnProxyConfig
from pilothouse.model.identity import WorkloadIdentity


class NodeType(StrEnum):
    """The first part of a node id."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    SIDECAR = "sidecar"
    ROUTER = "router"


class Profile(StrEnum):
    """Which build of Envoy a proxy is: decides which filters it may be sent (traffic.md 0.1)."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    ENVOY = "envoy"
    ISTIO_PROXY = "istio-proxy"


class InterceptionMode(StrEnum):
    """How traffic reaches the proxy (traffic.md NM-06)."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    REDIRECT = "REDIRECT"
    TPROXY = "TPROXY"
    NONE = "NONE"


class CertificateSource(StrEnum):
    """
    Where a proxy has the mesh's certificates from (SDS names ``default`` and ``ROOTCA``).

    AGENT: an agent beside it, over its bootstrap's cluster ``sds-grpc`` (security.md D-A-7). ADS:
    this server, over its discovery stream. NONE: it has none and speaks plain text.
    """

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    NONE = "none"
    AGENT = "agent"
    ADS = "ads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Where a proxy or an endpoint runs; empty parts are unknown."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    def __bool__(self) -> bool:
        """Tell whether anything is known."""
        return bool(self.region or self.zone or self.subzone)

    def __str__(self) -> str:
        """Render as ``region/zone/subzone``."""
        return "/".join(part for part in (self.region, self.zone, self.subzone) if part)

    @staticmethod
    def parse(text: str) -> "Locality":
        """Read ``region[/zone[/subzone]]``."""
        region, zone, subzone = (*text.split("/", 2), "", "", "")[:3]
        return Locality(region=region, zone=zone, subzone=subzone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """
    What a proxy asks its workload to be registered as (traffic.md NM-19).

    In `group`, a WorkloadGroup, else as `entry`, a WorkloadEntry that somebody wrote; at `address`.
    With `has_probe` an agent beside it reports health. With `only_reports` this is that agent,
    which speaks for the workload and is no sign that its proxy is there.
    """

    group: str = ""
    entry: str = ""
    address: str = ""
    has_probe: bool = False
    only_reports: bool = False


class TlsFiles(NamedTuple):
    """Paths of certificates on a proxy's own disk, in place of those of the mesh (NM-11, NM-12)."""

    chain: str = ""
    key: str = ""
    roots: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """
    What a proxy said of itself (traffic.md section 4), with the quirks of the wire undone.

    `name` and `id_namespace` are the parts of the third field of the node id; `namespace` is
    metadata NAMESPACE, else `id_namespace`. `ips` begins with the address of the node id. `domain`
    is the DNS domain of the node id (``NS.svc.cluster.local``). `labels` are sorted pairs. `config`
    is the ProxyConfig it brings along, None if it brings none. `networks` are the only ones whose
    endpoints it asks for, empty is all. `ports` are those its containers declare, by name. With
    `discovers_itself` its bootstrap has a cluster of the workloads that serve what it serves.
    `registration` is None unless it asks for one. `dns_resolver` (``IP:PORT``) is who it asks for
    the hosts of requests, empty for its system's name servers.
    `client_files` are what it shows as a client, `server_files` as a server.
    `identity` alone is not its own word: it was verified, and None if nobody was asked.
    """

    id: str
    type: NodeType
    ips: tuple[str, ...]
    name: str
    namespace: str
    domain: str
    labels: tuple[tuple[str, str], ...] = ()
    cluster_id: str = ""
    network: str = ""
    service_account: str = ""
    istio_version: str = ""
    interception_mode: InterceptionMode = InterceptionMode.REDIRECT
    profile: Profile = Profile.ENVOY
    locality: Locality = field(default_factory=Locality)
    node_name: str = ""
    dns_capture: bool = False
    dns_resolver: str = ""
    http10: bool = False
    idle_timeout: Duration | None = None
    config: OwnProxyConfig | None = None
    http_proxy_port: int | None = None
    networks: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    discovers_itself: bool = False
    balances_inbound: bool = False
    balances_outbound: bool = False
    unprivileged: bool = False
    certificates: CertificateSource = CertificateSource.NONE
    client_files: TlsFiles | None = None
    server_files: TlsFiles | None = None
    registration: Registration | None = None
    identity: WorkloadIdentity | None = None
