"""
What a DestinationRule says of a cluster: balancing, limits, ejection (traffic.md DR-10 to DR-44).

Each function applies one block of a policy to a cluster under construction.
"""

from typing import Final

from pilothouse._pb.envoy.config.cluster.v3 import (
    circuit_breaker_pb2,
    cluster_pb2,
    outlier_detection_pb2,
)
from pilothouse._pb.google.protobuf import wrappers_pb2
from pilothouse.api.destination_rule import LoadBalancer, RetryBudget, TcpKeepalive
from pilothouse.api.duration import Duration
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.model.policies import Policy

UNLIMITED: Final = 2**32 - 1
MINIMUM_RING_SIZE: Final = 1024
RETRY_BUDGET_PERCENT: Final = 20.0
RETRY_BUDGET_FLOOR: Final = 3
"""Retries that are always allowed, where a budget does not say how many."""


def is_passthrough(policy: Policy) -> bool:
    """Tell whether requests go to the address the client chose (DR-10)."""
    return policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH"


def apply_connection_pool(cluster: cluster_pb2.Cluster, policy: Policy, mesh: MeshConfig) -> None:
    """Set times and limits; what is unset is the mesh's or unlimited (DR-30 to DR-35, DR-62)."""
    limits = cluster.circuit_breakers.thresholds.add()
    limits.CopyFrom(_NO_LIMITS)
    _apply_retry_budget(limits, policy.retry_budget)
    cluster.connect_timeout.FromTimedelta(mesh.connect_timeout)
    _apply_keepalive(cluster, mesh.tcp_keepalive)
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


def _apply_retry_budget(
    limits: circuit_breaker_pb2.CircuitBreakers.Thresholds, budget: RetryBudget | None
) -> None:
    if budget is None:
        return
    wanted = limits.retry_budget
    share = RETRY_BUDGET_PERCENT if budget.percent is None else budget.percent
    wanted.budget_percent.value = share
    wanted.min_retry_concurrency.value = budget.min_retry_concurrency or RETRY_BUDGET_FLOOR
    if budget.budget_interval is not None:
        wanted.budget_interval.FromTimedelta(budget.budget_interval)


def _apply_keepalive(cluster: cluster_pb2.Cluster, keepalive: TcpKeepalive | None) -> None:
    # Called for the mesh's settings, then for the rule's, which win field by field (DR-32).
    if keepalive is None:
        return
    wanted = cluster.upstream_connection_options.tcp_keepalive
    wanted.SetInParent()
    if keepalive.probes > 0:
        wanted.keepalive_probes.value = keepalive.probes
    if keepalive.time is not None:
        wanted.keepalive_time.value = int(keepalive.time.total_seconds())
    if keepalive.interval is not None:
        wanted.keepalive_interval.value = int(keepalive.interval.total_seconds())


def apply_outlier_detection(
    cluster: cluster_pb2.Cluster, policy: Policy, *, never_panics: bool = False
) -> None:
    """Set ejection, and the panic threshold (DR-40 to DR-43); `never_panics` overrules it."""
    rule = policy.outlier_detection
    panics_at = 0 if rule is None or never_panics else rule.min_health_percent
    if not panics_at:
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
    if panics_at:
        cluster.common_lb_config.healthy_panic_threshold.value = panics_at


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
