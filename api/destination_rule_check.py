"""Rules across the fields of a DestinationRule, as Istio publishes them."""

from collections.abc import Iterator
from typing import Final

from pilothouse.api import names
from pilothouse.api.connection_check import check_client_tls, check_outliers, check_pool
from pilothouse.api.destination_rule import (
    ConsistentHash,
    DestinationRule,
    LoadBalancer,
    PortTrafficPolicy,
    TrafficPolicy,
    Warmup,
)
from pilothouse.api.locality_check import check_locality, check_zone_aware
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
    own = row.meta.namespace
    yield from export_to(spec.export_to, "spec.exportTo", own)
    if spec.workload_selector is not None and set(spec.export_to) - {".", own}:
        message = "A rule for some workloads of its namespace cannot be exported from there."
        yield Problem("spec.exportTo", message, "Remove it, or the workloadSelector.")
    if spec.workload_selector is not None:
        yield from selector(
            spec.workload_selector.match_labels, "spec.workloadSelector.matchLabels"
        )


def _check_policy(policy: TrafficPolicy, path: str) -> Iterator[Problem]:
    if policy == TrafficPolicy():
        yield Problem(path, "The traffic policy says nothing.", "Remove it or set a field.")
    if policy.tunnel is not None and policy.proxy_protocol is not None:
        message = "Only one of tunnel and proxyProtocol may be set."
        yield Problem(path, message, "Remove one of them.")
    yield from _check_blocks(policy, path)
    for index, setting in enumerate(policy.port_level_settings):
        at = f"{path}.portLevelSettings[{index}]"
        if setting.port is None:
            yield Problem(f"{at}.port", "A setting for a port must name the port.")
        else:
            yield from port(setting.port.number, f"{at}.port.number")
            if setting == PortTrafficPolicy(port=setting.port):
                yield Problem(at, "The port's policy says nothing.", "Remove it or set a field.")
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
        at = f"{path}.retryBudget"
        yield from percent(policy.retry_budget.percent, f"{at}.percent")
        yield from not_negative(policy.retry_budget, at, "min_retry_concurrency")
        yield from duration(policy.retry_budget.budget_interval, f"{at}.budgetInterval")


def _check_blocks(policy: TrafficPolicy | PortTrafficPolicy, path: str) -> Iterator[Problem]:
    if policy.load_balancer is not None:
        at = f"{path}.loadBalancer"
        has_ejection = policy.outlier_detection is not None
        yield from _check_load_balancer(policy.load_balancer, at, has_ejection=has_ejection)
    if policy.connection_pool is not None:
        yield from check_pool(policy.connection_pool, f"{path}.connectionPool")
    if policy.outlier_detection is not None:
        yield from check_outliers(policy.outlier_detection, f"{path}.outlierDetection")
    if policy.tls is not None:
        yield from check_client_tls(policy.tls, f"{path}.tls")


def _check_load_balancer(
    balancer: LoadBalancer, path: str, *, has_ejection: bool
) -> Iterator[Problem]:
    yield from one_of(balancer, path, "simple", "consistent_hash")
    if balancer.consistent_hash is not None:
        yield from _check_hash(balancer.consistent_hash, f"{path}.consistentHash")
    yield from one_of(balancer, path, "warmup_duration_secs", "warmup")
    yield from duration(balancer.warmup_duration_secs, f"{path}.warmupDurationSecs")
    if balancer.warmup is not None:
        yield from _check_warmup(balancer.warmup, f"{path}.warmup")
    if balancer.locality_lb_setting is not None:
        at = f"{path}.localityLbSetting"
        yield from check_locality(balancer.locality_lb_setting, at, has_ejection=has_ejection)
    if balancer.zone_aware_lb_setting is not None:
        at = f"{path}.zoneAwareLbSetting"
        yield from check_zone_aware(balancer.zone_aware_lb_setting, at, has_ejection=has_ejection)
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
