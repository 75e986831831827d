"""Rules across the fields of a DestinationRule, as Istio publishes them."""

from collections.abc import Iterator
from typing import Final

from pilothouse.api import names
from pilothouse.api.destination_rule import (
    ClientTls,
    ConnectionPool,
    ConsistentHash,
    DestinationRule,
    LoadBalancer,
    LocalityLbSetting,
    OutlierDetection,
    PortTrafficPolicy,
    TrafficPolicy,
    Warmup,
)
from pilothouse.api.problem import (
    Problem,
    duration,
    export_to,
    labels,
    not_negative,
    one_of,
    percent,
    port,
    selector,
)

_ALL_OF_IT: Final = 100
_LARGEST_MAGLEV: Final = 5_000_011


def check(row: DestinationRule) -> Iterator[Problem]:
    """Yield what is wrong with one DestinationRule."""
    spec = row.spec
    problem = names.host(spec.host)
    if problem:
        yield Problem("spec.host", f'The host "{spec.host}" {problem}.')
    if spec.traffic_policy is not None:
        yield from _check_policy(spec.traffic_policy, "spec.trafficPolicy")
    seen: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        path = f"spec.subsets[{index}]"
        problem = names.dns_label(subset.name)
        if problem:
            yield Problem(f"{path}.name", f'The subset name "{subset.name}" {problem}.')
        if subset.name in seen:
            message = f'The subset "{subset.name}" is there twice.'
            yield Problem(f"{path}.name", message, "Rename or remove one.")
        seen.add(subset.name)
        yield from labels(subset.labels, f"{path}.labels")
        if subset.traffic_policy is not None:
            yield from _check_policy(subset.traffic_policy, f"{path}.trafficPolicy")
    yield from export_to(spec.export_to, "spec.exportTo")
    if spec.workload_selector is not None:
        yield from selector(
            spec.workload_selector.match_labels, "spec.workloadSelector.matchLabels"
        )


def _check_policy(policy: TrafficPolicy, path: str) -> Iterator[Problem]:
    yield from _check_blocks(policy, path)
    for index, setting in enumerate(policy.port_level_settings):
        at = f"{path}.portLevelSettings[{index}]"
        if setting.port is None:
            yield Problem(f"{at}.port", "A setting for a port must name the port.")
        else:
            yield from port(setting.port.number, f"{at}.port.number")
        yield from _check_blocks(setting, at)
    tunnel = policy.tunnel
    if tunnel is not None:
        at = f"{path}.tunnel"
        if tunnel.protocol not in ("", "CONNECT", "POST"):
            yield Problem(f"{at}.protocol", f'"{tunnel.protocol}" is neither CONNECT nor POST.')
        problem = names.host(tunnel.target_host)
        if (problem or "*" in tunnel.target_host) and not names.is_address(tunnel.target_host):
            message = f'"{tunnel.target_host}" is neither a host nor an address.'
            yield Problem(f"{at}.targetHost", message)
        yield from port(tunnel.target_port, f"{at}.targetPort")
    if policy.retry_budget is not None:
        yield from percent(policy.retry_budget.percent, f"{path}.retryBudget.percent")


def _check_blocks(policy: TrafficPolicy | PortTrafficPolicy, path: str) -> Iterator[Problem]:
    if policy.load_balancer is not None:
        yield from _check_load_balancer(policy.load_balancer, f"{path}.loadBalancer")
    if policy.connection_pool is not None:
        yield from check_pool(policy.connection_pool, f"{path}.connectionPool")
    if policy.outlier_detection is not None:
        yield from check_outliers(policy.outlier_detection, f"{path}.outlierDetection")
    if policy.tls is not None:
        yield from check_client_tls(policy.tls, f"{path}.tls")


def _check_load_balancer(balancer: LoadBalancer, path: str) -> Iterator[Problem]:
    yield from one_of(balancer, path, "simple", "consistent_hash")
    if balancer.consistent_hash is not None:
        yield from _check_hash(balancer.consistent_hash, f"{path}.consistentHash")
    yield from one_of(balancer, path, "warmup_duration_secs", "warmup")
    yield from duration(balancer.warmup_duration_secs, f"{path}.warmupDurationSecs")
    if balancer.warmup is not None:
        yield from _check_warmup(balancer.warmup, f"{path}.warmup")
    if balancer.locality_lb_setting is not None:
        yield from check_locality(balancer.locality_lb_setting, f"{path}.localityLbSetting")
    if balancer.locality_lb_setting is not None and balancer.zone_aware_lb_setting is not None:
        message = "Only one of localityLbSetting and zoneAwareLbSetting may be set."
        yield Problem(path, message)


def _check_hash(hashing: ConsistentHash, path: str) -> Iterator[Problem]:
    yield from one_of(
        hashing,
        path,
        "http_header_name",
        "http_cookie",
        "use_source_ip",
        "http_query_parameter_name",
        required=True,
        spelled="httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName",
    )
    yield from one_of(hashing, path, "ring_hash", "maglev")
    if hashing.http_header_name is not None and names.header(hashing.http_header_name):
        message = f'"{hashing.http_header_name}" {names.header(hashing.http_header_name)}.'
        yield Problem(f"{path}.httpHeaderName", message)
    if hashing.http_cookie is not None and not hashing.http_cookie.name:
        yield Problem(f"{path}.httpCookie.name", "The cookie needs a name.")
    yield from not_negative(hashing, path, "minimum_ring_size")
    if hashing.ring_hash is not None:
        yield from not_negative(hashing.ring_hash, f"{path}.ringHash", "minimum_ring_size")
    if hashing.maglev is not None:
        size = hashing.maglev.table_size
        if size and (not _is_prime(size) or size > _LARGEST_MAGLEV):
            message = f"{size} is not a prime number up to {_LARGEST_MAGLEV}."
            yield Problem(f"{path}.maglev.tableSize", message, "Envoy uses 65537 by default.")


def _is_prime(number: int) -> bool:
    if number > _LARGEST_MAGLEV or number < 2:
        return False
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _check_warmup(warmup: Warmup, path: str) -> Iterator[Problem]:
    yield from duration(warmup.duration, f"{path}.duration")
    yield from percent(warmup.minimum_percent, f"{path}.minimumPercent")
    if warmup.aggression is not None and not warmup.aggression >= 1:
        yield Problem(f"{path}.aggression", "The aggression must be 1 or more.")


def check_locality(setting: LocalityLbSetting, path: str) -> Iterator[Problem]:
    """Yield problems of locality settings; also those of the mesh config."""
    yield from one_of(setting, path, "distribute", "failover")
    yield from one_of(setting, path, "distribute", "failover_priority")
    for index, share in enumerate(setting.distribute):
        at = f"{path}.distribute[{index}]"
        if any(not 0 < weight <= _ALL_OF_IT for weight in share.to.values()):
            yield Problem(f"{at}.to", "Each share must be between 1 and 100.")
        elif sum(share.to.values()) != _ALL_OF_IT:
            yield Problem(f"{at}.to", f"The shares add up to {sum(share.to.values())}, not 100.")
    for index, failover in enumerate(setting.failover):
        if failover.from_ == failover.to:
            at = f"{path}.failover[{index}]"
            yield Problem(at, f'The region "{failover.to}" cannot fail over to itself.')


def check_pool(pool: ConnectionPool, path: str) -> Iterator[Problem]:
    """Yield problems of connection limits; Sidecar and mesh config have them too."""
    if pool.tcp is None and pool.http is None:
        yield Problem(path, "The connection pool says nothing.", "Add tcp or http.")
    if pool.tcp is not None:
        at = f"{path}.tcp"
        yield from not_negative(pool.tcp, at, "max_connections")
        yield from duration(pool.tcp.connect_timeout, f"{at}.connectTimeout")
        yield from duration(pool.tcp.max_connection_duration, f"{at}.maxConnectionDuration")
        keepalive = pool.tcp.tcp_keepalive
        if keepalive is not None:
            yield from not_negative(keepalive, f"{at}.tcpKeepalive", "probes")
            yield from duration(keepalive.time, f"{at}.tcpKeepalive.time")
            yield from duration(keepalive.interval, f"{at}.tcpKeepalive.interval")
    if pool.http is not None:
        at = f"{path}.http"
        yield from not_negative(
            pool.http,
            at,
            "http1_max_pending_requests",
            "http2_max_requests",
            "max_requests_per_connection",
            "max_retries",
            "max_concurrent_streams",
        )
        if pool.http.use_client_protocol and pool.http.h2_upgrade_policy == "UPGRADE":
            message = "useClientProtocol cannot be true while h2UpgradePolicy is UPGRADE."
            yield Problem(f"{at}.useClientProtocol", message, "Choose one of them.")
        ping = pool.http.http2_keep_alive
        if ping is not None:
            yield from duration(ping.interval, f"{at}.http2KeepAlive.interval")
            yield from duration(ping.timeout, f"{at}.http2KeepAlive.timeout")


def check_outliers(detection: OutlierDetection, path: str) -> Iterator[Problem]:
    """Yield problems of outlier detection."""
    yield from duration(detection.interval, f"{path}.interval")
    yield from duration(detection.base_ejection_time, f"{path}.baseEjectionTime")
    yield from percent(detection.max_ejection_percent, f"{path}.maxEjectionPercent")
    yield from percent(detection.min_health_percent, f"{path}.minHealthPercent")
    yield from not_negative(
        detection,
        path,
        "consecutive_errors",
        "consecutive_local_origin_failures",
        "consecutive_gateway_errors",
    )
    if (detection.consecutive_5xx_errors or 0) < 0:
        message = f"{detection.consecutive_5xx_errors} must not be negative."
        yield Problem(f"{path}.consecutive5xxErrors", message)
    if detection.consecutive_local_origin_failures and (
        not detection.split_external_local_origin_errors
    ):
        yield Problem(
            f"{path}.consecutiveLocalOriginFailures",
            "This counts only with splitExternalLocalOriginErrors.",
            "Set splitExternalLocalOriginErrors to true.",
        )


def check_client_tls(tls: ClientTls, path: str) -> Iterator[Problem]:
    """Yield problems of TLS towards a destination; the mesh config has it too."""
    files = tls.client_certificate or tls.private_key or tls.ca_certificates
    if tls.credential_name and files and tls.mode in ("SIMPLE", "MUTUAL"):
        message = "Only one of credentialName and certificate files may be set."
        yield Problem(path, message)
    elif tls.mode == "MUTUAL" and not tls.credential_name:
        for field, value in (
            ("clientCertificate", tls.client_certificate),
            ("privateKey", tls.private_key),
        ):
            if not value:
                message = f"Mutual TLS needs {field}, or credentialName."
                yield Problem(f"{path}.{field}", message)
    elif tls.mode == "ISTIO_MUTUAL" and (files or tls.credential_name):
        message = "With ISTIO_MUTUAL the mesh brings the certificates; none may be named."
        yield Problem(path, message, "Remove them, or use MUTUAL.")
    if tls.insecure_skip_verify and (tls.ca_certificates or tls.subject_alt_names):
        message = (
            "insecureSkipVerify verifies nothing, so caCertificates and subjectAltNames are moot."
        )
        yield Problem(path, message, "Remove insecureSkipVerify.")
