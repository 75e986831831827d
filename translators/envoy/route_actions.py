"""
What is done with a request that matched: forward, redirect or answer.

Rows VS-19 to VS-29 of traffic.md. Destinations arrive resolved; this looks nothing up.
"""

from typing import Final

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.duration import Duration
from pilothouse.api.virtual_service import (
    HttpDirectResponse,
    HttpRedirect,
    HttpRewrite,
    HttpRoute,
    HttpRouteDestination,
)
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.translators.envoy.hash_policies import distinct, hash_policy
from pilothouse.translators.envoy.headers import header_changes, header_findings
from pilothouse.translators.envoy.http_connection import ALPN_OVERRIDE_FILTER
from pilothouse.translators.envoy.mirrors import mirror_policies
from pilothouse.translators.envoy.mutual_tls import offer_override
from pilothouse.translators.envoy.retries import retry_policy
from pilothouse.translators.envoy.route_context import Report, RouteContext, RouteTarget

Route = route_components_pb2.Route
RouteAction = route_components_pb2.RouteAction
RedirectAction = route_components_pb2.RedirectAction

NO_DESTINATION_STATUS: Final = 503
"""What Envoy answers where a cluster is missing, and we where no destination is left."""

_CODES: Final = {
    0: RedirectAction.MOVED_PERMANENTLY,
    301: RedirectAction.MOVED_PERMANENTLY,
    302: RedirectAction.FOUND,
    303: RedirectAction.SEE_OTHER,
    307: RedirectAction.TEMPORARY_REDIRECT,
    308: RedirectAction.PERMANENT_REDIRECT,
}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def set_action(
    route: Route, rule: HttpRoute, context: RouteContext, ref: ConfigRef, report: Report
) -> None:
    """
    Give a route the header changes and the action of a rule.

    `ref` is the rule's place; destinations without a live one among them answer 503, so that
    requests meant for them do not fall through to later rules.
    """
    changes = header_changes(rule.headers)
    _report_headers(rule, ref, report)
    changes.append_to(route)
    if rule.redirect is not None:
        _redirect(route, rule.redirect, context.listener_port, ref, report)
    elif rule.direct_response is not None:
        _direct_response(route, rule.direct_response)
    else:
        destinations = live_destinations(rule)
        if destinations:
            _forward(route, rule, destinations, changes.authority, context, ref)
        else:
            report(_no_destination(ref))
            route.direct_response.status = NO_DESTINATION_STATUS


def live_destinations(rule: HttpRoute) -> tuple[HttpRouteDestination, ...]:
    """Return the destinations that get requests: a single one always, of several the weighted."""
    if len(rule.route) == 1:
        return rule.route
    return tuple(destination for destination in rule.route if destination.weight > 0)


def disable_timeout(action: RouteAction) -> None:
    """Let a request take as long as its client waits; a grpc-timeout header still counts."""
    _limit_time(action, Duration())


def _limit_time(action: RouteAction, timeout: Duration) -> None:
    # The deprecated field says how far a grpc-timeout header counts (0: as far as it likes). With
    # max_stream_duration Envoy would not look at `timeout` at all, and would end the client's
    # stream rather than the request to the service. Upstream has it for the same reason.
    action.timeout.FromTimedelta(timeout)
    action.max_grpc_timeout.FromTimedelta(timeout)


def _forward(
    route: Route,
    rule: HttpRoute,
    destinations: tuple[HttpRouteDestination, ...],
    authority: str,
    context: RouteContext,
    ref: ConfigRef,
) -> None:
    action = route.route
    _limit_time(action, rule.timeout or Duration())
    if rule.rewrite is not None:
        _rewrite_path(action, rule.rewrite)
        authority = rule.rewrite.authority or authority
    if authority:
        action.host_rewrite_literal = authority
    action.append_x_forwarded_host = context.forwards_host
    action.request_mirror_policies.extend(mirror_policies(rule, ref, context.target))
    targets = [
        context.target(each.destination, ref.within(f"route[{rule.route.index(each)}].destination"))
        for each in destinations
    ]
    if len(destinations) == 1:
        _to_one(route, destinations[0], targets[0])
    else:
        _by_weight(action, destinations, targets)
    policies = [hash_policy(target.hash_policy) for target in targets]
    action.hash_policy.extend(distinct(policies))
    retries = context.default_retry if rule.retries is None else rule.retries
    retrying = retry_policy(retries, all(policy is not None for policy in policies))
    if retrying is not None:
        action.retry_policy.CopyFrom(retrying)


def _to_one(route: Route, destination: HttpRouteDestination, target: RouteTarget) -> None:
    route.route.cluster = target.cluster
    changes = header_changes(destination.headers)
    changes.append_to(route)
    _set_offer(route, target)
    # The rule's own authority wins, as it does in Envoy over that of a weighted cluster.
    if changes.authority and not route.route.host_rewrite_literal:
        route.route.host_rewrite_literal = changes.authority


def _by_weight(
    action: RouteAction,
    destinations: tuple[HttpRouteDestination, ...],
    targets: list[RouteTarget],
) -> None:
    for destination, target in zip(destinations, targets, strict=True):
        cluster = action.weighted_clusters.clusters.add(name=target.cluster)
        cluster.weight.value = destination.weight
        changes = header_changes(destination.headers)
        changes.append_to(cluster)
        _set_offer(cluster, target)
        if changes.authority:
            cluster.host_rewrite_literal = changes.authority


def _set_offer(
    place: Route | route_components_pb2.WeightedCluster.ClusterWeight, target: RouteTarget
) -> None:
    if target.offer:
        override = offer_override(target.offer)
        place.typed_per_filter_config[ALPN_OVERRIDE_FILTER].CopyFrom(override)


def _rewrite_path(action: RouteAction, rewrite: HttpRewrite) -> None:
    # Envoy's prefix_rewrite replaces what matched: the prefix, or the whole path where the match
    # is exact or a regex.
    if rewrite.uri_regex_rewrite is not None and rewrite.uri_regex_rewrite.match:
        action.regex_rewrite.pattern.regex = rewrite.uri_regex_rewrite.match
        action.regex_rewrite.substitution = rewrite.uri_regex_rewrite.rewrite
    elif rewrite.uri:
        action.prefix_rewrite = rewrite.uri


def _redirect(
    route: Route, wanted: HttpRedirect, listener_port: int, ref: ConfigRef, report: Report
) -> None:
    action = route.redirect
    action.host_redirect = wanted.authority
    if wanted.prefix_rewrite:
        action.prefix_rewrite = wanted.prefix_rewrite
    elif wanted.uri:
        action.path_redirect = wanted.uri
    if wanted.scheme:
        action.scheme_redirect = wanted.scheme
    port = wanted.port or 0
    if wanted.derive_port == "FROM_REQUEST_PORT":
        port = listener_port  # routes are made for one port, so it is the request's
    if port != _DEFAULT_PORTS.get(wanted.scheme or "http"):
        action.port_redirect = port
    if wanted.redirect_code not in _CODES:
        report(_bad_code(wanted.redirect_code, ref))
    action.response_code = _CODES.get(wanted.redirect_code, RedirectAction.MOVED_PERMANENTLY)


def _direct_response(route: Route, wanted: HttpDirectResponse) -> None:
    action = route.direct_response
    action.status = wanted.status
    if wanted.body is None:
        return
    if wanted.body.string is not None:
        action.body.inline_string = wanted.body.string
    elif wanted.body.bytes_ is not None:
        action.body.inline_bytes = wanted.body.bytes_


def _report_headers(rule: HttpRoute, ref: ConfigRef, report: Report) -> None:
    for finding in header_findings(rule.headers, ref.at(f"{ref.path}.headers")):
        report(finding)
    for index, destination in enumerate(rule.route):
        if destination.headers is not None:
            place = ref.at(f"{ref.path}.route[{index}].headers")
            for finding in header_findings(destination.headers, place):
                report(finding)


def _no_destination(ref: ConfigRef) -> Finding:
    return Finding(
        Severity.ERROR,
        "NoDestination",
        ref.at(f"{ref.path}.route"),
        f"No destination gets any request of this rule; they are answered {NO_DESTINATION_STATUS}.",
        "Give it a route with a weight above 0, a redirect or a directResponse.",
    )


def _bad_code(code: int, ref: ConfigRef) -> Finding:
    return Finding(
        Severity.WARNING,
        "RedirectCodeNotSupported",
        ref.at(f"{ref.path}.redirect.redirectCode"),
        f"Envoy does not redirect with {code}; 301 is used.",
        "Use 301, 302, 303, 307 or 308.",
    )
