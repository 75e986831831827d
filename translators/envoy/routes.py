"""
HTTP routes: from VirtualService rules, and the ones a service has without any.

Pure: who a destination is, what the mesh's defaults are and what metadata to attach arrive in the
`RouteContext`. One rule becomes one route per `match` entry, in the order written (VS-04, VS-18).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.virtual_service import HttpMatch, HttpRetry, HttpRoute, VirtualService
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.delegation import Rule, written_rules
from pilothouse.model.names import DEFAULT_ROUTE, BadName, ClusterName
from pilothouse.translators.envoy.cors import CORS_FILTER, cors_policy
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.faults import FAULT_FILTER, http_fault
from pilothouse.translators.envoy.hash_policies import hash_policy
from pilothouse.translators.envoy.http_connection import ALPN_OVERRIDE_FILTER
from pilothouse.translators.envoy.matches import is_catch_all, reads_claims, route_match
from pilothouse.translators.envoy.mutual_tls import offer_override
from pilothouse.translators.envoy.retries import INBOUND_RETRIES, retry_policy
from pilothouse.translators.envoy.route_actions import disable_timeout, set_action
from pilothouse.translators.envoy.route_context import Report, RouteContext, RouteTarget
from pilothouse.translators.envoy.source_matches import (
    applies,
    depends_on_source,
    reads_source_namespace,
    source_label_keys,
)
from pilothouse.translators.envoy.unreachable_rules import unreachable_rules

__all__ = [
    "Report",
    "RouteContext",
    "RouteTarget",
    "default_route",
    "depends_on_source",
    "inbound_route",
    "reads_source_namespace",
    "source_label_keys",
    "virtual_service_routes",
]

Route = route_components_pb2.Route


def virtual_service_routes(
    vs: VirtualService, context: RouteContext, report: Report, rules: Sequence[Rule] | None = None
) -> list[Route]:
    """
    Build the routes of a VirtualService for one listener and kind of client.

    `rules` are its rules with those of its delegates in place. Stops after a route that takes every
    request. Empty if no rule applies here. Short host names in destinations are for
    `context.target` to resolve.
    """
    rules = written_rules(vs) if rules is None else rules
    for finding in unreachable_rules(rules):
        report(finding)
    routes: list[Route] = []
    for rule in rules:
        entries = list(_entries(rule.http, context, rule.ref, report))
        if not entries:
            continue
        shared = _rule_route(rule, context, report)
        for wanted in entries:
            routes.append(_matched(shared, rule.http, wanted, vs, context.listener_port))
            if is_catch_all(wanted):
                return routes
    return routes


def default_route(
    target: RouteTarget,
    *,
    host: str,
    port: int,
    default_retry: HttpRetry | None = None,
    metadata: base_pb2.Metadata | None = None,
) -> Route:
    """Build the route of a service that no VirtualService shapes: everything to its cluster."""
    hashing = hash_policy(target.hash_policy)
    route = Route()
    route.CopyFrom(_default_template(default_retry, hashing is not None))
    route.route.cluster = target.cluster
    route.decorator.operation = f"{host}:{port}/*"
    if hashing is not None:
        route.route.hash_policy.append(hashing)
    if target.offer:
        override = offer_override(target.offer)
        route.typed_per_filter_config[ALPN_OVERRIDE_FILTER].CopyFrom(override)
    if metadata is not None:
        route.metadata.CopyFrom(metadata)
    return route


def inbound_route(
    cluster: str,
    *,
    host: str,
    port: int,
    is_grpc: bool,
    metadata: base_pb2.Metadata | None = None,
) -> Route:
    """
    Build the route of a workload's own port (N-44, LS-15): everything to the application.

    gRPC ports are not retried: a stream may have been answered in part.
    """
    route = Route()
    route.CopyFrom(_INBOUND_GRPC if is_grpc else _INBOUND)
    route.route.cluster = cluster
    route.decorator.operation = f"{host}:{port}/*"
    if metadata is not None:
        route.metadata.CopyFrom(metadata)
    return route


def _entries(
    rule: HttpRoute, context: RouteContext, ref: ConfigRef, report: Report
) -> Iterator[HttpMatch | None]:
    """Yield the match entries of a rule that can be served here; None for a rule without."""
    for index, wanted in enumerate(rule.match or (None,)):
        if not applies(wanted, context):
            continue
        if wanted is not None and reads_claims(wanted):
            report(_claims(ref.at(f"{ref.path}.match[{index}]")))
            continue
        yield wanted


def _rule_route(located: Rule, context: RouteContext, report: Report) -> Route:
    """Build what all routes of a rule share."""
    rule, ref = located.http, located.ref
    route = Route(metadata=context.metadata(located))
    set_action(route, rule, context, ref, report)
    if rule.fault is not None:
        fault = http_fault(rule.fault)
        if fault is not None:
            route.typed_per_filter_config[FAULT_FILTER].CopyFrom(pack(fault))
    if rule.cors_policy is not None:
        route.typed_per_filter_config[CORS_FILTER].CopyFrom(pack(cors_policy(rule.cors_policy)))
    return route


def _matched(
    shared: Route,
    rule: HttpRoute,
    wanted: HttpMatch | None,
    vs: VirtualService,
    listener_port: int,
) -> Route:
    route = Route()
    route.CopyFrom(shared)
    route.name = rule.name
    route.match.CopyFrom(route_match(wanted))
    if wanted is not None:
        if wanted.name:
            route.name = f"{rule.name}.{wanted.name}"
        route.stat_prefix = wanted.stat_prefix
    route.decorator.operation = _operation(route, vs.meta.name, listener_port)
    return route


def _operation(route: Route, vs_name: str, listener_port: int) -> str:
    """Name the span (N-52): by the one cluster's host and port, else by the VirtualService."""
    match = route.match
    path = match.path or match.safe_regex.regex or f"{match.prefix}*"
    try:
        cluster = ClusterName.parse(route.route.cluster)
    except BadName:
        return f"{vs_name}:{listener_port}{path}"
    return f"{cluster.host}:{cluster.port}{path}"


@lru_cache(maxsize=16)
def _default_template(default_retry: HttpRetry | None, is_hashed: bool) -> Route:  # noqa: FBT001
    # Copying a prepared route is several times cheaper than building one; never changed.
    route = Route(name=DEFAULT_ROUTE)
    route.match.prefix = "/"
    disable_timeout(route.route)
    retrying = retry_policy(default_retry, is_hashed)
    if retrying is not None:
        route.route.retry_policy.CopyFrom(retrying)
    return route


def _inbound_template(*, is_grpc: bool) -> Route:
    route = Route(name=DEFAULT_ROUTE)
    route.match.prefix = "/"
    route.route.timeout.SetInParent()
    route.route.max_stream_duration.max_stream_duration.SetInParent()
    route.route.max_stream_duration.grpc_timeout_header_max.SetInParent()
    if not is_grpc:
        route.route.retry_policy.CopyFrom(INBOUND_RETRIES)
    return route


_INBOUND: Final = _inbound_template(is_grpc=False)
_INBOUND_GRPC: Final = _inbound_template(is_grpc=True)


def _claims(ref: ConfigRef) -> Finding:
    return Finding(
        Severity.ERROR,
        "ClaimMatchNotTranslated",
        ref,
        "Matching on claims of a token is not translated yet; this entry matches nothing.",
        "Match on a header that the application or an authorization layer sets.",
    )
