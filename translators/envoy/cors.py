"""Cross-origin rules of a route (traffic.md VS-40)."""

from datetime import timedelta
from typing import Final

from pilothouse._pb.envoy.extensions.filters.http.cors.v3 import cors_pb2
from pilothouse._pb.envoy.type.v3 import percent_pb2
from pilothouse.api.virtual_service import CorsPolicy
from pilothouse.translators.envoy.matches import set_string

CORS_FILTER: Final = "envoy.filters.http.cors"


def cors_policy(wanted: CorsPolicy) -> cors_pb2.CorsPolicy:
    """Build the per-route config of the CORS filter; `allowOrigins` hides the old `allowOrigin`."""
    policy = cors_pb2.CorsPolicy(
        allow_methods=",".join(wanted.allow_methods),
        allow_headers=",".join(wanted.allow_headers),
        expose_headers=",".join(wanted.expose_headers),
    )
    for origin in wanted.allow_origins:
        set_string(policy.allow_origin_string_match.add(), origin)
    if not wanted.allow_origins:
        for text in wanted.allow_origin:
            policy.allow_origin_string_match.add(exact=text)
    if wanted.max_age is not None:
        policy.max_age = str(wanted.max_age // timedelta(seconds=1))
    if wanted.allow_credentials is not None:
        policy.allow_credentials.value = wanted.allow_credentials
    policy.filter_enabled.default_value.numerator = 100
    policy.filter_enabled.default_value.denominator = percent_pb2.FractionalPercent.HUNDRED
    # Unless told otherwise, a preflight from an origin not listed goes on to the service.
    policy.forward_not_matching_preflights.value = wanted.unmatched_preflights != "IGNORE"
    return policy
