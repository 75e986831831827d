"""
What a DestinationRule says of a cluster: balancing, limits, ejection (traffic.md DR-10 to DR-44).

Each function applies one block of a policy to a cluster under construction.
"""

from functools import lru_cache
from typing import Final

from pilothouse._pb.envoy.config.cluster.v3 import (
    circuit_breaker_pb2,
    cluster_pb2,
    outlier_detection_pb2,
)
from pilothouse._pb.envoy.config.core.v3 import protocol_pb2
from pilothouse._pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from pilothouse._pb.google.protobuf import any_pb2, wrappers_pb2
from pilothouse.api.destination_rule import ConnectionPool, LoadBalancer, TcpKeepalive
from pilothouse.api.duration import Duration
from pilothouse.model.policies import Policy
from pilothouse.model.protocols import Protocol
from pilothouse.translators.envoy.encoding import pack

UNLIMITED: Final = 2**32 - 1
MINIMUM_RING_SIZE: Final = 1024
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def is_passthrough(policy: Policy) -> bool:
    """Tell whether requests go to the address the client chose (DR-10)."""
    return policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH"


def apply_circuit_breakers(cluster: cluster_pb2.Cluster, policy: Policy) -> None:
    """Set the limits; what is unset is unlimited (DR-30, DR-31, DR-35)."""
    limits = cluster.circuit_breakers.thresholds.add()
    limits.CopyFrom(_NO_LIMITS)
    pool = policy.connection_pool
    if pool is None:
        return
    if pool.tcp is not None:
        if pool.tcp.max_connections > 0:
            limits.max_connections.value = pool.tcp.max_connections
        if pool.tcp.connect_timeout is not None:
            cluster.connect_timeout.FromTimedelta(pool.tcp.connect_timeout)
        _apply_keepalive(cluster, pool.tcp.tcp_keepalive)
    if pool.http is not None:
        if pool.http.http1_max_pending_requests > 0:
            limits.max_pending_requests.value = pool.http.http1_max_pending_requests
        if pool.http.http2_max_requests > 0:
            limits.max_requests.value = pool.http.http2_max_requests
        if pool.http.max_retries > 0:
            limits.max_retries.value = pool.http.max_retries


def _apply_keepalive(cluster: cluster_pb2.Cluster, keepalive: TcpKeepalive | None) -> None:
    if keepalive is None:
        return
    wanted = cluster.upstream_connection_options.tcp_keepalive
    wanted.SetInParent()
    if keepalive.probes:
        wanted.keepalive_probes.value = keepalive.probes
    if keepalive.time is not None:
        wanted.keepalive_time.value = int(keepalive.time.total_seconds())
    if keepalive.interval is not None:
        wanted.keepalive_interval.value = int(keepalive.interval.total_seconds())


def apply_outlier_detection(cluster: cluster_pb2.Cluster, policy: Policy) -> None:
    """Set ejection, and the panic threshold (DR-40 to DR-43)."""
    rule = policy.outlier_detection
    if rule is None or rule.min_health_percent == 0:
        # Unhealthy endpoints are sent and stay unused: no panic mode (DR-43).
        cluster.common_lb_config.healthy_panic_threshold.SetInParent()
    if rule is None:
        return
    wanted = outlier_detection_pb2.OutlierDetection()
    wanted.enforcing_success_rate.SetInParent()
    if rule.consecutive_5xx_errors is not None:
        wanted.consecutive_5xx.value = rule.consecutive_5xx_errors
        wanted.enforcing_consecutive_5xx.value = 100 if rule.consecutive_5xx_errors else 0
    if rule.consecutive_gateway_errors is not None:
        count = rule.consecutive_gateway_errors
        wanted.consecutive_gateway_failure.value = count
        wanted.enforcing_consecutive_gateway_failure.value = 100 if count else 0
    if rule.interval is not None:
        wanted.interval.FromTimedelta(rule.interval)
    if rule.base_ejection_time is not None:
        wanted.base_ejection_time.FromTimedelta(rule.base_ejection_time)
    if rule.max_ejection_percent:
        wanted.max_ejection_percent.value = rule.max_ejection_percent
    if rule.split_external_local_origin_errors:
        wanted.split_external_local_origin_errors = True
        if rule.consecutive_local_origin_failures:
            failures = rule.consecutive_local_origin_failures
            wanted.consecutive_local_origin_failure.value = failures
            wanted.enforcing_consecutive_local_origin_failure.value = 100
        wanted.enforcing_local_origin_success_rate.SetInParent()
    cluster.outlier_detection.CopyFrom(wanted)
    if rule.min_health_percent:
        cluster.common_lb_config.healthy_panic_threshold.value = rule.min_health_percent


def apply_load_balancer(cluster: cluster_pb2.Cluster, policy: Policy) -> None:
    """Choose the balancer; LEAST_REQUEST where nothing is said (DR-10 to DR-14)."""
    if cluster.lb_policy == cluster_pb2.Cluster.CLUSTER_PROVIDED:
        return
    wanted = policy.load_balancer or _DEFAULT_BALANCER
    hashing = wanted.consistent_hash
    if hashing is not None:
        if hashing.maglev is not None:
            cluster.lb_policy = cluster_pb2.Cluster.MAGLEV
            if hashing.maglev.table_size:
                cluster.maglev_lb_config.table_size.value = hashing.maglev.table_size
            return
        cluster.lb_policy = cluster_pb2.Cluster.RING_HASH
        size = hashing.ring_hash.minimum_ring_size if hashing.ring_hash else 0
        size = size or hashing.minimum_ring_size or MINIMUM_RING_SIZE
        cluster.ring_hash_lb_config.minimum_ring_size.value = size
        return
    match wanted.simple:
        case "RANDOM":
            cluster.lb_policy = cluster_pb2.Cluster.RANDOM
        case "ROUND_ROBIN":
            cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
            _apply_warmup(cluster.round_robin_lb_config.slow_start_config, wanted)
            if not cluster.round_robin_lb_config.HasField("slow_start_config"):
                cluster.ClearField("round_robin_lb_config")
        case _:
            cluster.lb_policy = cluster_pb2.Cluster.LEAST_REQUEST
            _apply_warmup(cluster.least_request_lb_config.slow_start_config, wanted)
            if not cluster.least_request_lb_config.HasField("slow_start_config"):
                cluster.ClearField("least_request_lb_config")


def _apply_warmup(slow_start: cluster_pb2.Cluster.SlowStartConfig, wanted: LoadBalancer) -> None:
    warmup = wanted.warmup
    window: Duration | None = warmup.duration if warmup else wanted.warmup_duration_secs
    if window is None:
        return
    slow_start.slow_start_window.FromTimedelta(window)
    aggression = warmup.aggression if warmup and warmup.aggression is not None else 1.0
    minimum = warmup.minimum_percent if warmup and warmup.minimum_percent is not None else 10.0
    slow_start.aggression.default_value = aggression
    slow_start.aggression.runtime_key = "pilothouse.slow_start.aggression"
    slow_start.min_weight_percent.value = minimum


def apply_http_options(cluster: cluster_pb2.Cluster, policy: Policy, protocol: Protocol) -> None:
    """Say how HTTP is spoken upstream (CL-06, DR-33, DR-36 to DR-39)."""
    options = http_options(policy.connection_pool, protocol)
    if options is not None:
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)


@lru_cache(maxsize=4096)
def _plain_options(protocol: Protocol) -> any_pb2.Any | None:
    return _build_options(None, protocol)


def http_options(pool: ConnectionPool | None, protocol: Protocol) -> any_pb2.Any | None:
    """Return the packed protocol options, None where HTTP/1.1 without options is meant."""
    return _plain_options(protocol) if pool is None else _build_options(pool, protocol)


def speaks_http2(pool: ConnectionPool | None, protocol: Protocol) -> bool:
    """Tell whether upstream connections are always HTTP/2 (CL-06, DR-38)."""
    http = pool.http if pool else None
    if http is not None and http.use_client_protocol:
        return False
    is_upgraded = http is not None and http.h2_upgrade_policy == "UPGRADE"
    return protocol.is_http2 or (is_upgraded and (protocol.is_http or protocol is Protocol.AUTO))


def _build_options(pool: ConnectionPool | None, protocol: Protocol) -> any_pb2.Any | None:
    http = pool.http if pool else None
    tcp = pool.tcp if pool else None
    options = http_protocol_options_pb2.HttpProtocolOptions()
    common = options.common_http_protocol_options
    idle = (http.idle_timeout if http else None) or (tcp.idle_timeout if tcp else None)
    if idle is not None:
        common.idle_timeout.FromTimedelta(idle)
    if http is not None and http.max_requests_per_connection:
        common.max_requests_per_connection.value = http.max_requests_per_connection
    if tcp is not None and tcp.max_connection_duration is not None:
        common.max_connection_duration.FromTimedelta(tcp.max_connection_duration)
    has_common = common.ByteSize() > 0
    if not has_common:
        options.ClearField("common_http_protocol_options")
    if http is not None and http.use_client_protocol:
        _follow_downstream(options)
    elif speaks_http2(pool, protocol):
        http2 = options.explicit_http_config.http2_protocol_options
        http2.SetInParent()
        if http is not None:
            _apply_http2(http2, http.max_concurrent_streams, pool)
    elif protocol is Protocol.AUTO:
        _follow_downstream(options)
    elif has_common:
        options.explicit_http_config.http_protocol_options.SetInParent()
    else:
        return None
    return pack(options)


def _apply_http2(
    http2: protocol_pb2.Http2ProtocolOptions, streams: int, pool: ConnectionPool | None
) -> None:
    if streams:
        http2.max_concurrent_streams.value = streams
    keepalive = pool.http.http2_keep_alive if pool and pool.http else None
    if keepalive is not None:
        if keepalive.interval is not None:
            http2.connection_keepalive.interval.FromTimedelta(keepalive.interval)
        if keepalive.timeout is not None:
            http2.connection_keepalive.timeout.FromTimedelta(keepalive.timeout)


def _follow_downstream(options: http_protocol_options_pb2.HttpProtocolOptions) -> None:
    options.use_downstream_protocol_config.http_protocol_options.SetInParent()
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()


def _no_limits() -> circuit_breaker_pb2.CircuitBreakers.Thresholds:
    unlimited = wrappers_pb2.UInt32Value(value=UNLIMITED)
    return circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=unlimited,
        max_pending_requests=unlimited,
        max_requests=unlimited,
        max_retries=unlimited,
        track_remaining=True,
    )


_NO_LIMITS: Final = _no_limits()
_DEFAULT_BALANCER: Final = LoadBalancer()
