"""
The ledger: what becomes of every field of the Istio API in this version.

A field changes what proxies get, or it is reported when set; a third way does not exist. The table
names each field of each message type, and a test fails on one that is missing. It is also the
source of the support table in the documentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from pilothouse.api import destination_rule as rule
from pilothouse.api import (
    gateway,
    mesh_config,
    mesh_networks,
    paths,
    peer_authentication,
    proxy_config,
    service_entry,
    sidecar,
    structs,
    workload,
)
from pilothouse.api import virtual_service as vs


class Outcome(Enum):
    """What setting a field leads to."""

    TRANSLATED = "translated"
    """It changes what proxies get."""
    ELSEWHERE = "elsewhere"
    """Another program reads it (the proxy's agent, the injector); nothing to report."""
    NO_EFFECT = "no effect"
    """It is part of the API without an effect, in Istio too."""
    NOT_YET = "not yet"
    """Istio gives it an effect, this version does not."""


@dataclass(frozen=True, slots=True)
class Fate:
    """An outcome with the reason to show beside it."""

    outcome: Outcome
    reason: str = ""


def _fields(
    translated: str = "",
    *,
    elsewhere: str = "",
    not_yet: str = "",
    no_effect: dict[str, str] | None = None,
) -> dict[str, Fate]:
    return {
        **{name: Fate(Outcome.TRANSLATED) for name in translated.split()},
        **{name: Fate(Outcome.ELSEWHERE) for name in elsewhere.split()},
        **{name: Fate(Outcome.NOT_YET) for name in not_yet.split()},
        **{name: Fate(Outcome.NO_EFFECT, reason) for name, reason in (no_effect or {}).items()},
    }


_NOT_OF_SIDECARS: Final = "Istio refuses it for a sidecar"

LEDGER: Final[dict[type[msgspec.Struct], dict[str, Fate]]] = {
    # VirtualService
    vs.VirtualServiceSpec: _fields("hosts gateways http tls tcp export_to"),
    vs.HttpRoute: _fields(
        "name match route redirect direct_response rewrite timeout retries fault mirror mirrors "
        "mirror_percent mirror_percentage cors_policy headers delegate",
    ),
    vs.HttpMatch: _fields(
        "name uri scheme method authority headers port source_labels gateways query_params "
        "ignore_uri_case without_headers source_namespace stat_prefix"
    ),
    vs.StringMatch: _fields("exact prefix regex"),
    vs.HttpRouteDestination: _fields("destination weight headers"),
    vs.RouteDestination: _fields("destination weight"),
    vs.Destination: _fields("host subset port"),
    vs.PortSelector: _fields("number"),
    vs.Headers: _fields("request response"),
    vs.HeaderOperations: _fields("set add remove"),
    vs.HttpRedirect: _fields("uri prefix_rewrite authority port derive_port scheme redirect_code"),
    vs.HttpDirectResponse: _fields("status body"),
    vs.HttpBody: _fields("string bytes_"),
    vs.Delegate: _fields("name namespace"),
    vs.HttpRewrite: _fields("uri authority uri_regex_rewrite"),
    vs.RegexRewrite: _fields("match rewrite"),
    vs.HttpRetry: _fields(
        "attempts per_try_timeout retry_on retry_remote_localities retry_ignore_previous_hosts "
        "backoff"
    ),
    vs.HttpFault: _fields("delay abort"),
    vs.FaultDelay: _fields(
        "percent fixed_delay percentage",
        no_effect={"exponential_delay": "Envoy has no such delay, and Istio ignores it"},
    ),
    vs.FaultAbort: _fields(
        "http_status grpc_status percentage",
        no_effect={"http2_error": "Envoy has no such abort, and Istio ignores it"},
    ),
    vs.HttpMirror: _fields("destination percentage"),
    vs.CorsPolicy: _fields(
        "allow_origin allow_origins allow_methods allow_headers expose_headers max_age "
        "allow_credentials unmatched_preflights"
    ),
    vs.Percent: _fields("value"),
    vs.TlsRoute: _fields("match route"),
    vs.TlsMatch: _fields(
        "sni_hosts destination_subnets port source_labels gateways source_namespace"
    ),
    vs.TcpRoute: _fields("match route"),
    vs.L4Match: _fields(
        "destination_subnets port source_labels gateways source_namespace",
        no_effect={"source_subnet": "Istio accepts it without an effect"},
    ),
    # DestinationRule
    rule.DestinationRuleSpec: _fields("host traffic_policy subsets export_to workload_selector"),
    structs.MatchLabels: _fields("match_labels"),
    rule.Subset: _fields("name labels traffic_policy"),
    rule.TrafficPolicy: _fields(
        "load_balancer connection_pool outlier_detection tls port_level_settings tunnel "
        "proxy_protocol retry_budget",
    ),
    rule.PortTrafficPolicy: _fields("port load_balancer connection_pool outlier_detection tls"),
    rule.LoadBalancer: _fields(
        "simple consistent_hash warmup warmup_duration_secs locality_lb_setting "
        "zone_aware_lb_setting"
    ),
    rule.ConsistentHash: _fields(
        "http_header_name http_cookie use_source_ip http_query_parameter_name ring_hash maglev "
        "minimum_ring_size"
    ),
    rule.HttpCookie: _fields("name path ttl attributes"),
    rule.CookieAttribute: _fields("name value"),
    rule.RingHash: _fields("minimum_ring_size"),
    rule.Maglev: _fields("table_size"),
    rule.Warmup: _fields("duration minimum_percent aggression"),
    rule.LocalityLbSetting: _fields("distribute failover failover_priority enabled"),
    rule.LocalityDistribute: _fields("from_ to"),
    rule.LocalityFailover: _fields("from_ to"),
    rule.ZoneAwareLbSetting: _fields("enabled failover failover_priority min_cluster_size"),
    rule.ConnectionPool: _fields("tcp http"),
    rule.TcpSettings: _fields(
        "max_connections connect_timeout tcp_keepalive max_connection_duration idle_timeout"
    ),
    rule.TcpKeepalive: _fields("probes time interval"),
    rule.HttpSettings: _fields(
        "http1_max_pending_requests http2_max_requests max_requests_per_connection max_retries "
        "idle_timeout h2_upgrade_policy use_client_protocol max_concurrent_streams "
        "http2_keep_alive"
    ),
    rule.Http2KeepAlive: _fields("interval timeout"),
    rule.OutlierDetection: _fields(
        "split_external_local_origin_errors consecutive_local_origin_failures "
        "consecutive_gateway_errors consecutive_5xx_errors interval base_ejection_time "
        "max_ejection_percent min_health_percent outlier_detection_http_error_codes",
        no_effect={"consecutive_errors": "Istio replaced it by consecutive5xxErrors"},
    ),
    rule.ClientTls: _fields(
        "mode client_certificate private_key ca_certificates credential_name subject_alt_names "
        "sni insecure_skip_verify ca_crl"
    ),
    rule.Tunnel: _fields("target_host target_port protocol"),
    rule.ProxyProtocol: _fields("version"),
    rule.RetryBudget: _fields("percent min_retry_concurrency budget_interval"),
    # ServiceEntry, WorkloadEntry, WorkloadGroup
    service_entry.ServiceEntrySpec: _fields(
        "hosts addresses ports location resolution endpoints workload_selector export_to "
        "subject_alt_names"
    ),
    service_entry.ServicePort: _fields("number name protocol target_port"),
    structs.WorkloadLabels: _fields("labels"),
    workload.WorkloadEntrySpec: _fields(
        "address ports labels locality weight service_account network"
    ),
    # That there is a probe is read here; it is run by the agent, which has it in its ProxyConfig.
    workload.WorkloadGroupSpec: _fields("template metadata probe"),
    workload.GroupMetadata: _fields("labels annotations"),
    workload.ReadinessProbe: _fields(
        elsewhere="initial_delay_seconds timeout_seconds period_seconds success_threshold "
        "failure_threshold http_get tcp_socket exec grpc"
    ),
    workload.HttpProbe: _fields(elsewhere="port path host scheme http_headers"),
    workload.HttpHeader: _fields(elsewhere="name value"),
    workload.TcpProbe: _fields(elsewhere="port host"),
    workload.ExecProbe: _fields(elsewhere="command"),
    workload.GrpcProbe: _fields(elsewhere="port service"),
    # Sidecar
    sidecar.SidecarSpec: _fields(
        "workload_selector ingress egress outbound_traffic_policy inbound_connection_pool",
    ),
    sidecar.IngressListener: _fields("port bind capture_mode default_endpoint connection_pool tls"),
    sidecar.IngressTls: _fields(
        "mode server_certificate private_key ca_certificates ca_crl verify_certificate_spki "
        "verify_certificate_hash min_protocol_version max_protocol_version cipher_suites",
        no_effect={
            "https_redirect": _NOT_OF_SIDECARS,
            "credential_name": _NOT_OF_SIDECARS,
            "credential_names": _NOT_OF_SIDECARS,
            "ca_cert_credential_name": _NOT_OF_SIDECARS,
            "tls_certificates": _NOT_OF_SIDECARS,
            "subject_alt_names": _NOT_OF_SIDECARS,
            "insecure_skip_verify": "a sidecar checks clients all the same, as in Istio",
        },
    ),
    sidecar.EgressListener: _fields("hosts port bind capture_mode"),
    sidecar.SidecarPort: _fields(
        "number protocol name", no_effect={"target_port": "it is deprecated and unused"}
    ),
    sidecar.OutboundTrafficPolicy: _fields("mode egress_proxy"),
    # Gateway: held, not translated in this version
    gateway.GatewaySpec: _fields(not_yet="servers", elsewhere="selector"),
    gateway.Server: _fields(not_yet="port hosts bind tls default_endpoint name"),
    gateway.GatewayPort: _fields(
        not_yet="number protocol name",
        no_effect={"target_port": "it is deprecated and unused"},
    ),
    gateway.ServerTls: _fields(
        not_yet="https_redirect mode server_certificate private_key ca_certificates ca_crl "
        "credential_name credential_names ca_cert_credential_name tls_certificates "
        "subject_alt_names verify_certificate_spki verify_certificate_hash "
        "min_protocol_version max_protocol_version cipher_suites insecure_skip_verify"
    ),
    gateway.TlsCertificate: _fields(not_yet="server_certificate private_key ca_certificates"),
    # PeerAuthentication
    peer_authentication.PeerAuthenticationSpec: _fields("selector mtls port_level_mtls"),
    peer_authentication.MutualTls: _fields("mode"),
    # MeshConfig
    mesh_config.MeshConfig: _fields(
        "proxy_listen_port proxy_inbound_listen_port proxy_http_port connect_timeout "
        "protocol_detection_timeout tcp_keepalive outbound_traffic_policy trust_domain "
        "trust_domain_aliases default_service_export_to default_virtual_service_export_to "
        "default_destination_rule_export_to root_namespace dns_refresh_rate h2_upgrade_policy "
        "path_normalization default_http_retry_policy discovery_selectors default_config "
        "inbound_traffic_policy inbound_cluster_stat_name outbound_cluster_stat_name tls_defaults "
        "access_log_file access_log_format access_log_encoding disable_envoy_listener_log "
        "default_traffic_policy locality_lb_setting zone_aware_lb_setting service_settings "
        "enable_auto_mtls mesh_mtls ca_certificates service_entry_visibility",
        elsewhere="config_sources certificates ca",
        not_yet="hbone_idle_timeout ingress_class ingress_service ingress_controller_mode "
        "ingress_selector enable_tracing enable_envoy_access_log_service "
        "service_scope_configs enable_prometheus_merge extension_providers default_providers",
        no_effect={
            "verify_certificate_at_client": "it is deprecated and Istio ignores it",
        },
    ),
    mesh_config.MeshOutboundTrafficPolicy: _fields("mode tls"),
    mesh_config.MeshInboundTrafficPolicy: _fields("mode"),
    mesh_config.PathNormalization: _fields("normalization"),
    mesh_config.CertificateData: _fields(
        "pem spiffe_bundle_url trust_domains",
        no_effect={
            "cert_signers": "workloads' certificates are signed by the mesh's own authority, never"
            " by signers of Kubernetes"
        },
    ),
    mesh_config.MeshTls: _fields("min_protocol_version ecdh_curves cipher_suites"),
    mesh_config.DefaultTrafficPolicy: _fields("connection_pool outlier_detection"),
    mesh_config.ServiceSettings: _fields("settings hosts"),
    mesh_config.ServiceSettingsFlags: _fields("cluster_local"),
    mesh_config.ServiceScope: _fields(not_yet="namespace_selector services_selector scope"),
    mesh_config.ConfigSource: _fields(elsewhere="address tls_settings subscribed_resources"),
    mesh_config.DefaultProviders: _fields(not_yet="tracing metrics access_logging"),
    mesh_config.ServiceEntryVisibility: _fields("default_visibility apply_to_sidecars policies"),
    mesh_config.VisibilityPolicy: _fields("visibility matching_rules"),
    mesh_config.VisibilityRule: _fields("namespace_selector"),
    structs.LabelSelector: _fields("match_labels match_expressions"),
    structs.LabelRequirement: _fields("key operator values"),
    mesh_config.DefaultProxyConfig: _fields(
        "proxy_headers connection_settings",
        elsewhere="interception_mode config_path binary_path service_cluster "
        "tracing_service_name drain_duration discovery_address discovery_refresh_delay "
        "zipkin_address statsd_udp_address envoy_metrics_service_address proxy_admin_port "
        "availability_zone control_plane_auth_policy custom_config_file stat_name_length "
        "concurrency proxy_bootstrap_template_path sds envoy_metrics_service proxy_metadata "
        "runtime_values status_port extra_stat_tags termination_drain_duration mesh_id "
        "readiness_probe proxy_stats_matcher hold_application_until_proxy_starts "
        "ca_certificates_pem image file_flush_interval file_flush_min_size_kb stats_compression",
        not_yet="tracing envoy_access_log_service gateway_topology private_key_provider",
    ),
    mesh_networks.MeshNetworks: _fields("networks"),
    mesh_networks.Network: _fields("endpoints gateways"),
    mesh_networks.NetworkEndpoints: _fields("from_cidr from_registry"),
    mesh_networks.IstioNetworkGateway: _fields(
        "registry_service_name address port",
        no_effect={"locality": "Istio accepts it and does not use it"},
    ),
    proxy_config.ProxyHeaders: _fields(
        "forwarded_client_cert set_current_client_cert_details request_id server attempt_count "
        "envoy_debug_headers preserve_http1_header_case x_forwarded_host x_forwarded_port",
        no_effect={
            "metadata_exchange_headers": "these headers are never sent by proxies served here"
        },
    ),
    proxy_config.ServerHeader: _fields("disabled value"),
    proxy_config.Disabling: _fields("disabled"),
    proxy_config.Enabling: _fields("enabled"),
    proxy_config.MetadataExchangeHeaders: _fields(
        no_effect={"mode": "these headers are never sent by proxies served here"}
    ),
    proxy_config.ClientCertDetails: _fields("subject cert chain dns uri"),
    proxy_config.ConnectionSettings: _fields(
        "http_idle_timeout http_max_connection_duration http_drain_timeout http_request_timeout "
        "http_request_headers_timeout http_stream_idle_timeout http_max_stream_duration "
        "http_max_concurrent_streams http2_initial_stream_window_size "
        "http2_initial_connection_window_size http_headers_with_underscores_action "
        "http_merge_slashes http_path_with_escaped_slashes_action",
        elsewhere="global_downstream_connection_limit",
        not_yet="profile",
        no_effect={
            "listener_per_connection_buffer_limit_bytes": "Istio gives it to gateways only",
            "cluster_per_connection_buffer_limit_bytes": "Istio accepts it without an effect",
            "listener_connection_limit": "Istio accepts it without an effect",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class _Untranslated:
    """A field to report unless it is set to its default."""

    fate: Fate
    default: Any


_Plan = dict[str, "_Untranslated | _InMap | _Plan"]


@dataclass(frozen=True, slots=True)
class _InMap:
    """What to look for in each value of a map whose keys are the user's."""

    plan: _Plan


@cache
def _plan(of: type[msgspec.Struct]) -> _Plan:
    """Return, by wire name, the fields to report or to look into; the others are left out."""
    described = inspect.type_info(of)
    if not isinstance(described, inspect.StructType):  # pragma: no cover (callers pass structs)
        raise TypeError(of)
    plan: _Plan = {}
    fates = LEDGER[of]
    for field in described.fields:
        fate = fates[field.name]
        if fate.outcome in (Outcome.NO_EFFECT, Outcome.NOT_YET):
            default = None if field.default is msgspec.NODEFAULT else field.default
            plan[field.encode_name] = _Untranslated(fate, default)
        elif fate.outcome is Outcome.TRANSLATED:
            inner = struct_within(field.type)
            nested = _plan(inner) if inner is not None else {}
            if nested:
                plan[field.encode_name] = _InMap(nested) if _is_map(field.type) else nested
    return plan


def _is_map(of: inspect.Type) -> bool:
    kinds = of.types if isinstance(of, inspect.UnionType) else (of,)
    return any(isinstance(each, inspect.DictType) for each in kinds)


def struct_within(of: inspect.Type) -> type[msgspec.Struct] | None:
    """Return the message type a field holds, alone or in a list or map, if it holds one."""
    match of:
        case inspect.StructType():
            return of.cls
        case inspect.UnionType():
            return next((found for each in of.types if (found := struct_within(each))), None)
        case inspect.VarTupleType():
            return struct_within(of.item_type)
        case inspect.DictType():
            return struct_within(of.value_type)
        case _:
            return None


def unsupported(data: Any, of: type[msgspec.Struct], path: str) -> Iterator[tuple[str, str, Fate]]:
    """
    Yield (path, wire name, fate) of each field that is set and not translated.

    `data` is the document's data that decodes to `of`; `path` is where it stands in the object.
    """
    if of in LEDGER:
        plan = _plan(of)
        if plan:
            yield from _set_fields(data, plan, path)


def _set_fields(data: Any, plan: _Plan, path: str) -> Iterator[tuple[str, str, Fate]]:
    # Paths are spelled only when there is something to tell: this runs for every object.
    for name, inner in plan.items():
        value = data.get(name)
        if value is None:
            continue
        if isinstance(inner, _Untranslated):
            if value != inner.default and value not in ([], {}):
                yield paths.child(path, name), name, inner.fate
        elif isinstance(inner, _InMap):
            for key, each in value.items() if isinstance(value, dict) else ():
                if isinstance(each, dict):
                    at = paths.child(paths.child(path, name), str(key))
                    yield from _set_fields(each, inner.plan, at)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, dict) and not inner.keys().isdisjoint(each):
                    at = paths.item(paths.child(path, name), index)
                    yield from _set_fields(each, inner, at)
        elif isinstance(value, dict) and not inner.keys().isdisjoint(value):
            yield from _set_fields(value, inner, paths.child(path, name))
