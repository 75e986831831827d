"""
MeshConfig: what holds for the whole mesh unless an object says otherwise.

Types of mesh.istio.io with the defaults istiod starts from (traffic.md 2.10). Every field of the
API is here; parts that nothing reads yet are kept as data.
"""

from typing import Any, Literal

import msgspec

from pilothouse.api.destination_rule import (
    ClientTls,
    ConnectionPool,
    LocalityLbSetting,
    OutlierDetection,
    TcpKeepalive,
    ZoneAwareLbSetting,
)
from pilothouse.api.duration import Duration
from pilothouse.api.proxy_config import ConnectionSettings, ProxyHeaders
from pilothouse.api.structs import ApiStruct, LabelSelector
from pilothouse.api.virtual_service import HttpRetry

OutboundMode = Literal["REGISTRY_ONLY", "ALLOW_ANY", "ALLOW_ANY_DYNAMIC_DNS"]
InterceptionMode = Literal["REDIRECT", "TPROXY", "NONE"]
PathNormalizationType = Literal[
    "DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"
]
Visibility = Literal["VISIBILITY_UNSPECIFIED", "NONE", "NAMESPACE", "PUBLIC"]


class MeshOutboundTrafficPolicy(ApiStruct, frozen=True):
    """MC-05: what happens to destinations nobody declared."""

    mode: OutboundMode = "ALLOW_ANY"
    tls: ClientTls | None = None


class MeshInboundTrafficPolicy(ApiStruct, frozen=True):
    """MC-06: where inbound traffic to undeclared ports goes."""

    mode: Literal["PASSTHROUGH", "LOCALHOST"] = "PASSTHROUGH"


class PathNormalization(ApiStruct, frozen=True):
    """MC-18; DEFAULT means BASE."""

    normalization: PathNormalizationType = "DEFAULT"


class MeshTls(ApiStruct, frozen=True):
    """MC-20, 21: TLS versions, curves and ciphers."""

    min_protocol_version: Literal["TLS_AUTO", "TLSV1_2", "TLSV1_3"] = "TLS_AUTO"
    ecdh_curves: tuple[str, ...] = ()
    cipher_suites: tuple[str, ...] = ()


class CertificateData(ApiStruct, frozen=True):
    """MC-29: roots beyond the mesh's own, and the trust domains whose workloads may call."""

    pem: str = ""
    spiffe_bundle_url: str = ""
    cert_signers: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()


class DefaultTrafficPolicy(ApiStruct, frozen=True):
    """MC-22: policy for destinations without one."""

    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None


class ServiceSettingsFlags(ApiStruct, frozen=True):
    """Flags of a group of services."""

    cluster_local: bool = False


class ServiceSettings(ApiStruct, frozen=True):
    """MC-16: flags for the hosts named."""

    settings: ServiceSettingsFlags = ServiceSettingsFlags()
    hosts: tuple[str, ...] = ()


class ServiceScope(ApiStruct, frozen=True):
    """MC-17: which services are seen beyond their cluster."""

    namespace_selector: LabelSelector | None = None
    services_selector: LabelSelector | None = None
    scope: Literal["LOCAL", "GLOBAL"] = "LOCAL"


class ConfigSource(ApiStruct, frozen=True):
    """MC-26: another place config comes from."""

    address: str = ""
    tls_settings: ClientTls | None = None
    subscribed_resources: tuple[str, ...] = ()


class DefaultProviders(ApiStruct, frozen=True):
    """MC-27: providers used where a Telemetry object names none."""

    tracing: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    access_logging: tuple[str, ...] = ()


class VisibilityRule(ApiStruct, frozen=True):
    """A condition of a visibility policy."""

    namespace_selector: LabelSelector | None = None


class VisibilityPolicy(ApiStruct, frozen=True):
    """The visibility for namespaces that match."""

    visibility: Visibility = "VISIBILITY_UNSPECIFIED"
    matching_rules: tuple[VisibilityRule, ...] = ()


class ServiceEntryVisibility(ApiStruct, frozen=True):
    """MC-23: how far ServiceEntries may be exported."""

    default_visibility: Visibility = "VISIBILITY_UNSPECIFIED"
    apply_to_sidecars: bool = False
    policies: tuple[VisibilityPolicy, ...] = ()


class DefaultProxyConfig(ApiStruct, frozen=True):
    """
    MeshConfig.defaultConfig (traffic.md 2.9).

    Fields that only the agent or the bootstrap reads are kept as data.
    """

    config_path: str = "./etc/istio/proxy"
    binary_path: str = "/usr/local/bin/envoy"
    service_cluster: str | None = None
    tracing_service_name: str | None = None
    drain_duration: Duration = Duration(seconds=45)
    discovery_address: str = ""
    discovery_refresh_delay: Duration | None = None
    zipkin_address: str = ""
    statsd_udp_address: str = ""
    envoy_metrics_service_address: str = ""
    proxy_admin_port: int = 15000
    availability_zone: str = ""
    control_plane_auth_policy: Literal["NONE", "MUTUAL_TLS", "INHERIT"] = "MUTUAL_TLS"
    custom_config_file: str = ""
    stat_name_length: int = 189
    concurrency: int | None = None
    proxy_bootstrap_template_path: str = ""
    interception_mode: InterceptionMode = "REDIRECT"
    tracing: dict[str, Any] | None = None
    sds: dict[str, Any] | None = None
    envoy_access_log_service: dict[str, Any] | None = None
    envoy_metrics_service: dict[str, Any] | None = None
    proxy_metadata: dict[str, str] = {}
    runtime_values: dict[str, str] = {}
    status_port: int = 15020
    extra_stat_tags: tuple[str, ...] = ()
    gateway_topology: dict[str, Any] | None = None
    termination_drain_duration: Duration = Duration(seconds=5)
    mesh_id: str = ""
    readiness_probe: dict[str, Any] | None = None
    proxy_stats_matcher: dict[str, Any] | None = None
    hold_application_until_proxy_starts: bool | None = None
    ca_certificates_pem: tuple[str, ...] = ()
    image: dict[str, Any] | None = None
    private_key_provider: dict[str, Any] | None = None
    proxy_headers: ProxyHeaders | None = None
    file_flush_interval: Duration | None = None
    file_flush_min_size_kb: int = 0
    stats_compression: bool | None = None
    connection_settings: ConnectionSettings | None = None


class MeshConfig(ApiStruct, frozen=True):
    """The mesh config; `MeshConfig()` is what a mesh without one has."""

    proxy_listen_port: int = 15001
    proxy_inbound_listen_port: int = 15006
    proxy_http_port: int = 0
    connect_timeout: Duration = Duration(seconds=10)
    hbone_idle_timeout: Duration | None = None
    protocol_detection_timeout: Duration = Duration()
    tcp_keepalive: TcpKeepalive | None = None
    ingress_class: str = "istio"
    ingress_service: str = "istio-ingressgateway"
    ingress_controller_mode: Literal["UNSPECIFIED", "OFF", "DEFAULT", "STRICT"] = "STRICT"
    ingress_selector: str = ""
    enable_tracing: bool = True
    access_log_file: str = ""
    access_log_format: str = ""
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    enable_envoy_access_log_service: bool = False
    disable_envoy_listener_log: bool = False
    default_config: DefaultProxyConfig = DefaultProxyConfig()
    outbound_traffic_policy: MeshOutboundTrafficPolicy = MeshOutboundTrafficPolicy()
    inbound_traffic_policy: MeshInboundTrafficPolicy = MeshInboundTrafficPolicy()
    config_sources: tuple[ConfigSource, ...] = ()
    enable_auto_mtls: bool = True
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    ca_certificates: tuple[CertificateData, ...] = ()
    default_service_export_to: tuple[str, ...] = ("*",)
    default_virtual_service_export_to: tuple[str, ...] = ("*",)
    default_destination_rule_export_to: tuple[str, ...] = ("*",)
    root_namespace: str = "istio-system"
    locality_lb_setting: LocalityLbSetting | None = LocalityLbSetting(enabled=True)
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    dns_refresh_rate: Duration = Duration(seconds=60)
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] = "DO_NOT_UPGRADE"
    inbound_cluster_stat_name: str = ""
    outbound_cluster_stat_name: str = ""
    certificates: tuple[dict[str, Any], ...] = ()
    service_settings: tuple[ServiceSettings, ...] = ()
    service_scope_configs: tuple[ServiceScope, ...] = ()
    enable_prometheus_merge: bool | None = True
    verify_certificate_at_client: bool | None = None
    ca: dict[str, Any] | None = None
    extension_providers: tuple[dict[str, Any], ...] = ()
    default_providers: DefaultProviders = DefaultProviders()
    discovery_selectors: tuple[LabelSelector, ...] = ()
    path_normalization: PathNormalization = PathNormalization()
    default_http_retry_policy: HttpRetry | None = None
    mesh_mtls: MeshTls | None = msgspec.field(name="meshMTLS", default=None)
    tls_defaults: MeshTls | None = None
    default_traffic_policy: DefaultTrafficPolicy | None = None
    service_entry_visibility: ServiceEntryVisibility | None = None
