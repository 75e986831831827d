"""
Row ids of the requirements behind each field, for the support table.

Message type -> rows of all its fields, or of single ones (by their names in `pilothouse.api`).
"""

from __future__ import annotations

from typing import Final

ALL: Final = "*"
"""Stands for the fields of a message that are not named."""

_VIRTUAL_SERVICE: Final = {
    "VirtualServiceSpec": "hosts=VS-01 gateways=VS-02 export_to=VS-03 http=VS-04 "
    "tls=VS-43 tcp=VS-47",
    "HttpRoute": "name=VS-05 match=VS-18 route=VS-19 redirect=VS-23 direct_response=VS-24 "
    "delegate=VS-25 rewrite=VS-26 timeout=VS-29 retries=VS-30 fault=VS-36 mirror=VS-38 "
    "mirrors=VS-39 mirror_percent=VS-38 mirror_percentage=VS-38 cors_policy=VS-40 headers=VS-22",
    "HttpMatch": "name=VS-16 stat_prefix=VS-17 uri=VS-06 ignore_uri_case=VS-07 headers=VS-08 "
    "without_headers=VS-09 scheme=VS-10 method=VS-10 authority=VS-10 query_params=VS-11 "
    "port=VS-13 gateways=VS-14 source_labels=VS-15 source_namespace=VS-15",
    "StringMatch": "*=VS-06",
    "HttpRouteDestination": "destination=VS-19 weight=VS-20 headers=VS-21",
    "RouteDestination": "destination=VS-46 weight=VS-46",
    "Destination": "*=VS-19",
    "PortSelector": "*=DR-64",
    "Headers": "*=VS-22",
    "HeaderOperations": "*=VS-22",
    "HttpRedirect": "*=VS-23",
    "HttpDirectResponse": "*=VS-24",
    "HttpBody": "*=VS-24",
    "Delegate": "*=VS-25",
    "HttpRewrite": "uri=VS-26 authority=VS-27 uri_regex_rewrite=VS-28",
    "RegexRewrite": "*=VS-28",
    "HttpRetry": "attempts=VS-30 retry_on=VS-32 per_try_timeout=VS-33 backoff=VS-33 "
    "retry_remote_localities=VS-34 retry_ignore_previous_hosts=VS-35",
    "HttpFault": "delay=VS-36 abort=VS-37",
    "FaultDelay": "*=VS-36",
    "FaultAbort": "*=VS-37",
    "HttpMirror": "*=VS-39",
    "CorsPolicy": "*=VS-40",
    "Percent": "*=VS-38",
    "TlsRoute": "match=VS-43 route=VS-46",
    "TlsMatch": "sni_hosts=VS-43 destination_subnets=VS-44 *=VS-45",
    "TcpRoute": "match=VS-47 route=VS-46",
    "L4Match": "source_subnet=VS-48 *=VS-47",
}

_DESTINATION_RULE: Final = {
    "DestinationRuleSpec": "host=DR-01 subsets=DR-02 traffic_policy=DR-03 export_to=DR-05 "
    "workload_selector=DR-06",
    "MatchLabels": "*=DR-06",
    "Subset": "name=DR-02 labels=DR-02 traffic_policy=DR-03",
    "TrafficPolicy": "load_balancer=DR-10 connection_pool=DR-30 outlier_detection=DR-40 tls=DR-50 "
    "port_level_settings=DR-04 tunnel=DR-60 proxy_protocol=DR-61 retry_budget=DR-62",
    "PortTrafficPolicy": "*=DR-04",
    "LoadBalancer": "simple=DR-10 consistent_hash=DR-13 warmup=DR-11 warmup_duration_secs=DR-12 "
    "locality_lb_setting=DR-15 zone_aware_lb_setting=DR-19",
    "ConsistentHash": "ring_hash=DR-14 maglev=DR-14 minimum_ring_size=DR-14 *=DR-13",
    "HttpCookie": "*=DR-13",
    "CookieAttribute": "*=DR-13",
    "RingHash": "*=DR-14",
    "Maglev": "*=DR-14",
    "Warmup": "*=DR-11",
    "LocalityLbSetting": "distribute=DR-16 failover=DR-17 failover_priority=DR-18 enabled=DR-15",
    "LocalityDistribute": "*=DR-16",
    "LocalityFailover": "*=DR-17",
    "ZoneAwareLbSetting": "*=DR-19",
    "ConnectionPool": "tcp=DR-30 http=DR-35",
    "TcpSettings": "max_connections=DR-30 connect_timeout=DR-31 tcp_keepalive=DR-32 "
    "max_connection_duration=DR-33 idle_timeout=DR-34",
    "TcpKeepalive": "*=DR-32",
    "HttpSettings": "http1_max_pending_requests=DR-35 http2_max_requests=DR-35 max_retries=DR-35 "
    "max_requests_per_connection=DR-36 idle_timeout=DR-36 max_concurrent_streams=DR-37 "
    "http2_keep_alive=DR-37 h2_upgrade_policy=DR-38 use_client_protocol=DR-39",
    "Http2KeepAlive": "*=DR-37",
    "OutlierDetection": "consecutive_5xx_errors=DR-40 consecutive_gateway_errors=DR-40 "
    "consecutive_errors=DR-40 min_health_percent=DR-43 outlier_detection_http_error_codes=DR-44 "
    "interval=DR-41 base_ejection_time=DR-41 max_ejection_percent=DR-41 *=DR-42",
    "ClientTls": "mode=DR-50 client_certificate=DR-52 private_key=DR-52 ca_certificates=DR-51 "
    "credential_name=DR-54 subject_alt_names=DR-55 sni=DR-55 insecure_skip_verify=DR-51 "
    "ca_crl=DR-56",
    "Tunnel": "*=DR-60",
    "ProxyProtocol": "*=DR-61",
    "RetryBudget": "*=DR-62",
}

_WORKLOADS: Final = {
    "ServiceEntrySpec": "hosts=SE-01 addresses=SE-03 ports=SE-04 location=SE-06 resolution=SE-07 "
    "endpoints=SE-08 workload_selector=SE-09 export_to=SE-10 subject_alt_names=SE-11",
    "ServicePort": "target_port=SE-05 *=SE-04",
    "WorkloadLabels": "*=SE-09",
    "WorkloadEntrySpec": "address=WE-01 ports=WE-02 labels=WE-03 locality=WE-04 weight=WE-04 "
    "network=WE-04 service_account=WE-05",
    "WorkloadGroupSpec": "template=WG-01 metadata=WG-02 probe=WG-03",
    "GroupMetadata": "*=WG-02",
    "ReadinessProbe": "*=WG-03",
    "HttpProbe": "*=WG-03",
    "HttpHeader": "*=WG-03",
    "TcpProbe": "*=WG-03",
    "ExecProbe": "*=WG-03",
    "GrpcProbe": "*=WG-03",
    "SidecarSpec": "workload_selector=SC-01 ingress=SC-06 egress=SC-02 "
    "outbound_traffic_policy=SC-11 inbound_connection_pool=SC-10",
    "IngressListener": "port=SC-06 bind=SC-07 capture_mode=SC-07 default_endpoint=SC-08 tls=SC-09 "
    "connection_pool=SC-10",
    "IngressTls": "*=SC-09",
    "EgressListener": "hosts=SC-02 port=SC-03 bind=SC-03 capture_mode=SC-05",
    "SidecarPort": "*=SC-06",
    "OutboundTrafficPolicy": "mode=SC-11 egress_proxy=SC-12",
}

_GATEWAY: Final = {
    "GatewaySpec": "selector=GW-01 servers=GW-24",
    "Server": "port=GW-02 hosts=GW-07 bind=GW-06 tls=GW-11 default_endpoint=GW-08 name=GW-09",
    "GatewayPort": "number=GW-02 protocol=GW-03 name=GW-04 target_port=GW-05",
    "ServerTls": "https_redirect=GW-10 mode=GW-11 server_certificate=GW-18 private_key=GW-18 "
    "ca_certificates=GW-18 credential_name=GW-19 credential_names=GW-20 tls_certificates=GW-20 "
    "min_protocol_version=GW-22 max_protocol_version=GW-22 cipher_suites=GW-22 "
    "insecure_skip_verify=GW-23 *=GW-21",
    "TlsCertificate": "*=GW-20",
}

_MESH: Final = {
    "MeshConfig": "proxy_listen_port=MC-01 proxy_inbound_listen_port=MC-01 proxy_http_port=MC-02 "
    "connect_timeout=MC-03 tcp_keepalive=MC-03 protocol_detection_timeout=MC-04 "
    "outbound_traffic_policy=MC-05 inbound_traffic_policy=MC-06 enable_auto_mtls=MC-07 "
    "trust_domain=MC-08 trust_domain_aliases=MC-08 default_service_export_to=MC-09 "
    "default_virtual_service_export_to=MC-09 default_destination_rule_export_to=MC-09 "
    "root_namespace=MC-10 locality_lb_setting=MC-11 zone_aware_lb_setting=MC-12 "
    "dns_refresh_rate=MC-13 h2_upgrade_policy=MC-14 inbound_cluster_stat_name=MC-15 "
    "outbound_cluster_stat_name=MC-15 service_settings=MC-16 service_scope_configs=MC-17 "
    "path_normalization=MC-18 default_http_retry_policy=MC-19 mesh_mtls=MC-20 tls_defaults=MC-21 "
    "default_traffic_policy=MC-22 service_entry_visibility=MC-23 ingress_class=MC-24 "
    "ingress_service=MC-24 ingress_controller_mode=MC-24 ingress_selector=MC-24 "
    "discovery_selectors=MC-25 config_sources=MC-26 extension_providers=MC-27 "
    "default_providers=MC-27 ca_certificates=MC-29 ca=MC-29 certificates=MC-29 "
    "hbone_idle_timeout=MC-30 verify_certificate_at_client=MC-31 default_config=PC-12 *=MC-28",
    "MeshOutboundTrafficPolicy": "*=MC-05",
    "MeshInboundTrafficPolicy": "*=MC-06",
    "PathNormalization": "*=MC-18",
    "MeshTls": "*=MC-20",
    "CertificateData": "trust_domains=S-PA-8 *=MC-29",
    "DefaultTrafficPolicy": "*=DR-63",
    "ServiceSettings": "*=MC-16",
    "ServiceSettingsFlags": "*=MC-16",
    "ServiceScope": "*=MC-17",
    "ConfigSource": "*=MC-26",
    "DefaultProviders": "*=MC-27",
    "ServiceEntryVisibility": "*=MC-23",
    "VisibilityPolicy": "*=MC-23",
    "VisibilityRule": "*=MC-23",
    "LabelSelector": "*=MC-25",
    "LabelRequirement": "*=MC-25",
    "MeshNetworks": "*=MN-01",
    "Network": "endpoints=MN-01 gateways=MN-02",
    "NetworkEndpoints": "*=MN-01",
    "IstioNetworkGateway": "registry_service_name=MN-02 locality=MN-04 *=MN-03",
    "ProxyHeaders": "forwarded_client_cert=PC-05 set_current_client_cert_details=PC-05 *=PC-06",
    "ClientCertDetails": "*=PC-05",
    "ServerHeader": "*=PC-06",
    "Disabling": "*=PC-06",
    "Enabling": "*=PC-06",
    "MetadataExchangeHeaders": "*=PC-06",
    "ConnectionSettings": "*=PC-07",
    "DefaultProxyConfig": "interception_mode=PC-10 tracing=PC-09 gateway_topology=PC-02 "
    "proxy_headers=PC-06 connection_settings=PC-07 private_key_provider=PC-08 "
    "concurrency=PC-01 image=PC-01 proxy_metadata=PC-11 *=PC-12",
}

_SECURITY: Final = {
    "PeerAuthenticationSpec": "port_level_mtls=S-PA-2 *=S-PA-1",
    "MutualTls": "*=S-PA-1",
}


GROUPS: Final = (_VIRTUAL_SERVICE, _DESTINATION_RULE, _WORKLOADS, _GATEWAY, _MESH, _SECURITY)


def row_of(message: str, field: str) -> str:
    """Return the row id of a field; empty if the table does not know it."""
    for group in GROUPS:
        if message in group:
            rows = dict(each.split("=") for each in group[message].split())
            return rows.get(field, rows.get(ALL, ""))
    return ""
