"""
Rules for limits, ejection and TLS of connections to a destination, as Istio publishes them.

DestinationRule, Sidecar and the mesh config have these blocks in common.
"""

from collections.abc import Iterator

from pilothouse.api.destination_rule import (
    ClientTls,
    ConnectionPool,
    HttpSettings,
    OutlierDetection,
    TcpKeepalive,
    TcpSettings,
)
from pilothouse.api.problem import Problem, duration, not_negative, percent, warning


def check_pool(pool: ConnectionPool, path: str) -> Iterator[Problem]:
    """Yield problems of connection limits."""
    if pool.tcp is None and pool.http is None:
        yield Problem(path, "The connection pool says nothing.", "Add tcp or http.")
    if pool.tcp is not None:
        yield from _check_tcp(pool.tcp, f"{path}.tcp")
    if pool.http is not None:
        yield from _check_http(pool.http, f"{path}.http")


def _check_tcp(tcp: TcpSettings, path: str) -> Iterator[Problem]:
    yield from not_negative(tcp, path, "max_connections")
    yield from duration(tcp.connect_timeout, f"{path}.connectTimeout")
    yield from duration(tcp.max_connection_duration, f"{path}.maxConnectionDuration")
    if tcp.idle_timeout:  # 0s turns the timeout off
        yield from duration(tcp.idle_timeout, f"{path}.idleTimeout")
    if tcp.tcp_keepalive is not None:
        yield from check_keepalive(tcp.tcp_keepalive, f"{path}.tcpKeepalive")


def check_keepalive(keepalive: TcpKeepalive, path: str) -> Iterator[Problem]:
    """Yield problems of socket keepalive; the mesh config has it by itself too."""
    yield from not_negative(keepalive, path, "probes")
    yield from duration(keepalive.time, f"{path}.time")
    yield from duration(keepalive.interval, f"{path}.interval")


def _check_http(http: HttpSettings, path: str) -> Iterator[Problem]:
    yield from not_negative(
        http,
        path,
        "http1_max_pending_requests",
        "http2_max_requests",
        "max_requests_per_connection",
        "max_retries",
        "max_concurrent_streams",
    )
    yield from duration(http.idle_timeout, f"{path}.idleTimeout")
    if http.use_client_protocol and http.h2_upgrade_policy == "UPGRADE":
        message = "useClientProtocol cannot be true while h2UpgradePolicy is UPGRADE."
        yield Problem(f"{path}.useClientProtocol", message, "Choose one of them.")
    ping = http.http2_keep_alive
    if ping is not None:
        for field, value in (("interval", ping.interval), ("timeout", ping.timeout)):
            at = f"{path}.http2KeepAlive.{field}"
            if value is None:
                yield Problem(at, f"An HTTP/2 keepalive needs the {field}.")
            yield from duration(value, at)


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

    for index, code in enumerate(detection.outlier_detection_http_error_codes):
        if not 100 <= code <= 599:
            at = f"{path}.outlierDetectionHttpErrorCodes[{index}]"
            yield warning(at, f"{code} is no HTTP status, so it never counts.")


def check_client_tls(tls: ClientTls, path: str) -> Iterator[Problem]:
    """Yield problems of TLS towards a destination; the mesh config has it too."""
    files = tls.client_certificate or tls.private_key or tls.ca_certificates or tls.ca_crl
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
    moot = [
        name
        for name, value in (
            ("caCertificates", tls.ca_certificates),
            ("subjectAltNames", tls.subject_alt_names),
            ("credentialName", tls.credential_name if tls.mode == "SIMPLE" else ""),
        )
        if value
    ]
    if tls.insecure_skip_verify and tls.mode in ("SIMPLE", "MUTUAL") and moot:
        message = f"insecureSkipVerify verifies nothing, so {' and '.join(moot)} cannot be set."
        yield Problem(path, message, "Remove insecureSkipVerify.")
