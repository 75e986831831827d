"""
Retry policies of routes (traffic.md VS-30 to VS-35, LS-15).

Messages returned here are shared: copy them into a route, never change them.
"""

from functools import lru_cache
from typing import Final

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from pilothouse._pb.envoy.extensions.retry.priority.previous_priorities.v3 import (
    previous_priorities_config_pb2,
)
from pilothouse.api.virtual_service import HttpRetry
from pilothouse.translators.envoy.encoding import pack

RetryPolicy = route_components_pb2.RetryPolicy

DEFAULT_ATTEMPTS: Final = 2
DEFAULT_CONDITIONS: Final = (
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
)
INBOUND_CONDITIONS: Final = "reset-before-request"
STATUS_CODES_KEYWORD: Final = "retriable-status-codes"
HOST_SELECTION_ATTEMPTS: Final = 5
PRIORITY_UPDATE_FREQUENCY: Final = 2

_PREVIOUS_HOSTS: Final = RetryPolicy.RetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts",
    typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate()),
)
_PREVIOUS_PRIORITIES: Final = RetryPolicy.RetryPriority(
    name="envoy.retry_priorities.previous_priorities",
    typed_config=pack(
        previous_priorities_config_pb2.PreviousPrioritiesConfig(
            update_frequency=PRIORITY_UPDATE_FREQUENCY
        )
    ),
)

INBOUND_RETRIES: Final = RetryPolicy(
    retry_on=INBOUND_CONDITIONS, num_retries={"value": DEFAULT_ATTEMPTS}
)
"""A request that never reached the application may be sent again, whatever its method."""


@lru_cache(maxsize=256)
def retry_policy(wanted: HttpRetry | None, is_hashed: bool) -> RetryPolicy | None:  # noqa: FBT001
    """
    Build a retry policy; None where retries are off (0 attempts).

    `wanted` None is the built-in policy. A destination with consistent hash (`is_hashed`) may see
    a retry at the host that failed, rather than leave its affinity.
    """
    policy = RetryPolicy(
        retry_on=DEFAULT_CONDITIONS,
        num_retries={"value": DEFAULT_ATTEMPTS},
        host_selection_retry_max_attempts=HOST_SELECTION_ATTEMPTS,
    )
    avoids_previous = not is_hashed
    if wanted is not None:
        if wanted.attempts <= 0:
            return None
        policy.num_retries.value = wanted.attempts
        if wanted.retry_on:
            policy.retry_on, codes = conditions(wanted.retry_on)
            policy.retriable_status_codes.extend(codes)
        if wanted.per_try_timeout is not None:
            policy.per_try_timeout.FromTimedelta(wanted.per_try_timeout)
        if wanted.retry_ignore_previous_hosts is not None:
            avoids_previous = wanted.retry_ignore_previous_hosts
        if wanted.retry_remote_localities:
            policy.retry_priority.CopyFrom(_PREVIOUS_PRIORITIES)
        if wanted.backoff:  # Envoy refuses 0
            policy.retry_back_off.base_interval.FromTimedelta(wanted.backoff)
    if avoids_previous:
        policy.retry_host_predicate.append(_PREVIOUS_HOSTS)
    return policy


def conditions(text: str) -> tuple[str, tuple[int, ...]]:
    """
    Split `retryOn` into Envoy's keywords and HTTP status codes.

    Codes without the keyword that makes Envoy look at them get it.
    """
    parts = [part for part in (raw.strip() for raw in text.split(",")) if part]
    codes = tuple(int(part) for part in parts if _is_status_code(part))
    keywords = [part for part in parts if not _is_status_code(part)]
    if codes and STATUS_CODES_KEYWORD not in keywords:
        keywords.append(STATUS_CODES_KEYWORD)
    return ",".join(keywords), codes


def _is_status_code(part: str) -> bool:
    return part.isascii() and part.isdigit() and 100 <= int(part) <= 599
