"""
CORS preflights that the proxy answers itself.

Source: envoyproxy/envoy, docs of the HTTP CORS filter and its CorsPolicy.
"""

from pilothouse._pb.envoy.extensions.filters.http.cors.v3.cors_pb2 import CorsPolicy
from pilothouse.simulator.filter_overrides import Levels, override
from pilothouse.simulator.http_request import HttpRequest
from pilothouse.simulator.matchers import NotSimulatedMatcher, happens, string_matches


def answers_preflight(levels: Levels, filter_name: str, request: HttpRequest) -> bool:
    """Tell whether a request is a preflight that the route's policy answers."""
    policy = override(levels, filter_name, CorsPolicy)
    origin = request.header("origin")
    if policy is None or not origin or not _is_enabled(policy, request):
        return False
    is_preflight = request.method == "OPTIONS" and bool(
        request.header("access-control-request-method")
    )
    if not is_preflight:
        return False
    if _allows(policy, origin):
        return True
    passes_on = policy.forward_not_matching_preflights
    return policy.HasField("forward_not_matching_preflights") and not passes_on.value


def _is_enabled(policy: CorsPolicy, request: HttpRequest) -> bool:
    if not policy.HasField("filter_enabled"):
        return True
    return happens(policy.filter_enabled.default_value, request.random_value)


def _allows(policy: CorsPolicy, origin: str) -> bool:
    try:
        return any(
            each.exact == "*" or string_matches(each, origin)
            for each in policy.allow_origin_string_match
        )
    except NotSimulatedMatcher:
        return False
