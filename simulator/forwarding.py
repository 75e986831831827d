"""
What a route does with a request: which clusters, with what changed on the way.

Source: envoyproxy/envoy, docs of route.v3.RouteAction, WeightedCluster and RetryPolicy.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from pilothouse._pb.envoy.config.core.v3.base_pb2 import HeaderValueOption
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.google.protobuf.duration_pb2 import Duration
from pilothouse.simulator.actions import (
    ClusterShare,
    DirectResponse,
    HashPolicy,
    HeaderAddition,
    HeaderOperations,
    HttpForward,
    Mirror,
    Redirect,
    Retries,
    at_random_value,
)
from pilothouse.simulator.clusters import reach
from pilothouse.simulator.http_request import HttpRequest
from pilothouse.simulator.matchers import share_of
from pilothouse.simulator.outcome import Action, LocalReply, NotSimulated, ReplyReason
from pilothouse.simulator.request import Request
from pilothouse.simulator.rewriting import redirect_url, rewritten_host, rewritten_path
from pilothouse.simulator.routes import matched_path
from pilothouse.simulator.served import ServedConfig

Route = route_components_pb2.Route
RouteAction = route_components_pb2.RouteAction
RedirectAction = route_components_pb2.RedirectAction
VirtualHost = route_components_pb2.VirtualHost
ClusterWeight = route_components_pb2.WeightedCluster.ClusterWeight

DEFAULT_TIMEOUT: Final = timedelta(seconds=15)
_BASE_INTERVAL: Final = timedelta(milliseconds=25)

_REDIRECT_STATUS: Final = {
    RedirectAction.MOVED_PERMANENTLY: 301,
    RedirectAction.FOUND: 302,
    RedirectAction.SEE_OTHER: 303,
    RedirectAction.TEMPORARY_REDIRECT: 307,
    RedirectAction.PERMANENT_REDIRECT: 308,
}
_NOT_FOUND_STATUS: Final = {
    RouteAction.SERVICE_UNAVAILABLE: 503,
    RouteAction.NOT_FOUND: 404,
    RouteAction.INTERNAL_SERVER_ERROR: 500,
}

_Level = Route | VirtualHost | RouteConfiguration | ClusterWeight


class Forwarding:
    """One request with a route found for it, and the config around them."""

    def __init__(
        self,
        served: ServedConfig,
        request: Request,
        http: HttpRequest,
        levels: tuple[RouteConfiguration, VirtualHost, Route],
    ) -> None:
        """Hold what the action depends on; nothing is changed."""
        self._served = served
        self._request = request
        self._http = http
        self._configuration, self._host, self._route = levels

    def action(self) -> Action:
        """Return what the route does."""
        matched = matched_path(self._route.match, self._http)
        match self._route.WhichOneof("action"):
            case "route":
                return self._forward(matched)
            case "redirect":
                redirect = self._route.redirect
                return Redirect(
                    status=_REDIRECT_STATUS[redirect.response_code],
                    location=redirect_url(redirect, self._http, matched),
                    headers=self._operations(),
                )
            case "direct_response":
                answer = self._route.direct_response
                return DirectResponse(
                    status=answer.status, body=_body(answer), headers=self._operations()
                )
            case kind:
                return NotSimulated(text=f"A route's {kind or 'lack of action'} is not simulated.")

    def _forward(self, matched: str) -> Action:
        action = self._route.route
        shares = tuple(self._shares())
        if not shares:
            kind = action.WhichOneof("cluster_specifier")
            return NotSimulated(text=f"A cluster chosen by {kind} is not simulated.")
        if action.path_rewrite or action.HasField("path_rewrite_policy"):
            return NotSimulated(text="A path rewritten by an extension is not simulated.")
        chosen = at_random_value(shares, self._http.random_value)
        if not chosen.reach.is_known:
            return LocalReply(
                status=_NOT_FOUND_STATUS[action.cluster_not_found_response_code],
                reason=ReplyReason.CLUSTER_NOT_FOUND,
                text=f"The route leads to cluster {chosen.cluster!r}, which the proxy lacks.",
                cluster=chosen.cluster,
            )
        policy = action if action.HasField("retry_policy") else self._host
        return HttpForward(
            shares=shares,
            chosen=chosen,
            path=rewritten_path(action, self._http, matched),
            timeout=_timeout(action),
            retries=_retries(policy.retry_policy) if policy.HasField("retry_policy") else None,
            mirrors=tuple(self._mirrors()),
            hash_policies=tuple(_hash_policy(each) for each in action.hash_policy),
        )

    def _shares(self) -> Iterator[ClusterShare]:
        """Yield who may get the request; nothing where that is not known."""
        action = self._route.route
        match action.WhichOneof("cluster_specifier"):
            case "cluster":
                yield self._share(action.cluster)
            case "cluster_header":
                yield self._share(self._http.header(action.cluster_header) or "")
            case "weighted_clusters":
                weights = action.weighted_clusters.clusters
                total = sum(each.weight.value for each in weights)
                for each in weights:
                    name = each.name or self._http.header(each.cluster_header) or ""
                    if each.weight.value:
                        yield self._share(name, each, total)

    def _share(self, name: str, entry: ClusterWeight | None = None, total: int = 1) -> ClusterShare:
        literal = entry.host_rewrite_literal if entry is not None else ""
        weight = entry.weight.value if entry is not None else 1
        return ClusterShare(
            cluster=name,
            weight=weight,
            share=weight / total,
            reach=reach(self._served, name, self._request),
            host=rewritten_host(self._route.route, literal, self._http),
            headers=self._operations(entry),
        )

    def _operations(self, entry: ClusterWeight | None = None) -> HeaderOperations:
        levels: list[_Level] = [self._route, self._host, self._configuration]
        if entry is not None:
            levels.insert(0, entry)
        if self._configuration.most_specific_header_mutations_wins:
            levels.reverse()
        return HeaderOperations(
            request_add=tuple(_additions(each.request_headers_to_add for each in levels)),
            request_remove=tuple(n for each in levels for n in each.request_headers_to_remove),
            response_add=tuple(_additions(each.response_headers_to_add for each in levels)),
            response_remove=tuple(n for each in levels for n in each.response_headers_to_remove),
        )

    def _mirrors(self) -> Iterator[Mirror]:
        levels = (self._route.route, self._host, self._configuration)
        policies = next(
            (e.request_mirror_policies for e in levels if e.request_mirror_policies), ()
        )
        for policy in policies:
            name = policy.cluster or self._http.header(policy.cluster_header) or ""
            fraction = policy.runtime_fraction
            share = share_of(fraction.default_value) if policy.HasField("runtime_fraction") else 1.0
            if name:
                yield Mirror(
                    cluster=name, share=share, reach=reach(self._served, name, self._request)
                )


def _additions(levels: Iterable[Iterable[HeaderValueOption]]) -> Iterator[HeaderAddition]:
    for options in levels:
        for option in options:
            action = HeaderValueOption.HeaderAppendAction.Name(option.append_action).lower()
            yield HeaderAddition(name=option.header.key, value=option.header.value, action=action)


def _timeout(action: RouteAction) -> timedelta | None:
    if not action.HasField("timeout"):
        return DEFAULT_TIMEOUT
    return action.timeout.ToTimedelta() or None


def _retries(policy: route_components_pb2.RetryPolicy) -> Retries:
    back_off = policy.retry_back_off
    base = back_off.base_interval.ToTimedelta() or _BASE_INTERVAL
    return Retries(
        retry_on=tuple(each for each in policy.retry_on.split(",") if each),
        count=policy.num_retries.value if policy.HasField("num_retries") else 1,
        per_try_timeout=_optional(policy.per_try_timeout),
        statuses=tuple(policy.retriable_status_codes),
        base_interval=base,
        max_interval=back_off.max_interval.ToTimedelta() or base * 10,
    )


def _optional(duration: Duration) -> timedelta | None:
    return duration.ToTimedelta() or None


def _hash_policy(policy: RouteAction.HashPolicy) -> HashPolicy:
    kind = policy.WhichOneof("policy_specifier") or ""
    names = {
        "header": policy.header.header_name,
        "cookie": policy.cookie.name,
        "query_parameter": policy.query_parameter.name,
        "filter_state": policy.filter_state.key,
    }
    return HashPolicy(kind=kind, name=names.get(kind, ""), is_terminal=policy.terminal)


def _body(answer: route_components_pb2.DirectResponseAction) -> bytes | None:
    match answer.body.WhichOneof("specifier"):
        case "inline_string":
            return answer.body.inline_string.encode()
        case "inline_bytes":
            return answer.body.inline_bytes
        case None:
            return b""
        case _:
            return None
