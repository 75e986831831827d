"""
Session affinity: what of a request decides which endpoint gets it (traffic.md DR-13, VS-41).

The load balancer itself is the cluster's; a route only names what to hash.
"""

from collections.abc import Iterable

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.destination_rule import ConsistentHash

HashPolicy = route_components_pb2.RouteAction.HashPolicy


def hash_policy(wanted: ConsistentHash | None) -> HashPolicy | None:
    """
    Build the hash policy of a destination; None if it has no key to hash.

    A cookie with a ttl is generated where absent (0 makes a session cookie); without one it is
    only read.
    """
    if wanted is None:
        return None
    policy = HashPolicy()
    if wanted.http_header_name:
        policy.header.header_name = wanted.http_header_name
    elif wanted.http_cookie is not None and wanted.http_cookie.name:
        cookie = wanted.http_cookie
        policy.cookie.name = cookie.name
        policy.cookie.path = cookie.path
        if cookie.ttl is not None:
            policy.cookie.ttl.FromTimedelta(cookie.ttl)
        for attribute in cookie.attributes:
            policy.cookie.attributes.add(name=attribute.name, value=attribute.value)
    elif wanted.use_source_ip:
        policy.connection_properties.source_ip = True
    elif wanted.http_query_parameter_name:
        policy.query_parameter.name = wanted.http_query_parameter_name
    else:
        return None
    return policy


def distinct(policies: Iterable[HashPolicy | None]) -> list[HashPolicy]:
    """Return the policies of several destinations, each once, in order."""
    kept: list[HashPolicy] = []
    for policy in policies:
        if policy is not None and policy not in kept:
            kept.append(policy)
    return kept
