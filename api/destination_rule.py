"""
DestinationRule: how to talk to a host once routing has chosen it.

Types of networking.istio.io; rules across fields are in `destination_rule_check`. Counts of 0 in
the connection pool mean "not set", as in the API.
"""

from typing import Literal

import msgspec

from pilothouse.api.duration import Duration
from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct, MatchLabels
from pilothouse.api.virtual_service import PortSelector


class RingHash(ApiStruct, frozen=True):
    """Ring hash; 0 leaves the ring size to the default of 1024."""

    minimum_ring_size: int = 0


class Maglev(ApiStruct, frozen=True):
    """Maglev; 0 leaves the table size to Envoy (65537)."""

    table_size: int = 0


class CookieAttribute(ApiStruct, frozen=True):
    """An attribute of the generated cookie."""

    name: str
    value: str = ""


class HttpCookie(ApiStruct, frozen=True):
    """A cookie to hash on; with a ttl it is generated when absent."""

    name: str
    path: str = ""
    ttl: Duration | None = None
    attributes: tuple[CookieAttribute, ...] = ()


class ConsistentHash(ApiStruct, frozen=True):
    """Affinity: one hash key of four, and at most one algorithm (ring hash by default)."""

    http_header_name: str | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: int = 0


class LocalityDistribute(ApiStruct, frozen=True):
    """Share of traffic from one locality to others, in percent that adds up to 100."""

    from_: str = msgspec.field(name="from", default="")
    to: dict[str, int] = {}


class LocalityFailover(ApiStruct, frozen=True):
    """Where traffic of a region goes when its own endpoints fail."""

    from_: str = msgspec.field(name="from", default="")
    to: str = ""


class LocalityLbSetting(ApiStruct, frozen=True):
    """Locality load balancing; at most one of distribute and the failover forms."""

    distribute: tuple[LocalityDistribute, ...] = ()
    failover: tuple[LocalityFailover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool | None = None


class ZoneAwareLbSetting(ApiStruct, frozen=True):
    """Envoy's zone-aware routing in place of locality priorities."""

    enabled: bool | None = None
    failover: tuple[LocalityFailover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: int | None = None


class Warmup(ApiStruct, frozen=True):
    """Slow start of new endpoints."""

    duration: Duration
    minimum_percent: float | None = None
    aggression: float | None = None


SimpleLb = Literal[
    "UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"
]


class LoadBalancer(ApiStruct, frozen=True):
    """LoadBalancerSettings: at most one of `simple` and `consistent_hash`."""

    simple: SimpleLb | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    warmup_duration_secs: Duration | None = None
    warmup: Warmup | None = None


class TcpKeepalive(ApiStruct, frozen=True):
    """Socket keepalive; 0 probes or no time leaves the system's value."""

    probes: int = 0
    time: Duration | None = None
    interval: Duration | None = None


class TcpSettings(ApiStruct, frozen=True):
    """Connection limits and times common to TCP and HTTP."""

    max_connections: int = 0
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(ApiStruct, frozen=True):
    """HTTP/2 PING keepalive."""

    interval: Duration | None = None
    timeout: Duration | None = None


H2UpgradePolicy = Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]


class HttpSettings(ApiStruct, frozen=True):
    """Limits of HTTP connections."""

    http1_max_pending_requests: int = 0
    http2_max_requests: int = 0
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: Duration | None = None
    h2_upgrade_policy: H2UpgradePolicy = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: int = 0
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPool(ApiStruct, frozen=True):
    """ConnectionPoolSettings."""

    tcp: TcpSettings | None = None
    http: HttpSettings | None = None


class OutlierDetection(ApiStruct, frozen=True):
    """When to stop sending to an endpoint that fails; percentages are 0 to 100."""

    consecutive_errors: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive_5xx_errors: int | None = msgspec.field(name="consecutive5xxErrors", default=None)
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: int = 0
    min_health_percent: int = 0
    outlier_detection_http_error_codes: tuple[int, ...] = ()


ClientTlsMode = Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]


class ClientTls(ApiStruct, frozen=True):
    """ClientTLSSettings: TLS from the proxy to the destination."""

    mode: ClientTlsMode = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool | None = None
    ca_crl: str = ""


class PortTrafficPolicy(ApiStruct, frozen=True):
    """A policy that replaces the destination's for one port."""

    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


class Tunnel(ApiStruct, frozen=True):
    """TunnelSettings: reach the target through an HTTP CONNECT or POST proxy."""

    target_host: str
    target_port: int
    protocol: str = ""


class ProxyProtocol(ApiStruct, frozen=True):
    """PROXY protocol header sent upstream."""

    version: Literal["V1", "V2"] = "V1"


class RetryBudget(ApiStruct, frozen=True):
    """Retries allowed as a share of active requests, in percent."""

    percent: float | None = None
    min_retry_concurrency: int = 0
    budget_interval: Duration | None = None


class TrafficPolicy(ApiStruct, frozen=True):
    """A policy for a destination or a subset, with exceptions by port."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: Tunnel | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(ApiStruct, frozen=True):
    """A named part of a service's endpoints, chosen by labels."""

    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(ApiStruct, frozen=True):
    """The host, its policy, its subsets, who sees the rule and which clients it is for."""

    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: MatchLabels | None = None


class DestinationRule(ApiStruct, frozen=True):
    """A DestinationRule object."""

    meta: ObjectMeta
    spec: DestinationRuleSpec
