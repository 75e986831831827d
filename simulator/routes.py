"""
Which route of a virtual host takes a request: the first whose every condition holds.

Source: envoyproxy/envoy, docs of route.v3.RouteMatch.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import Route, RouteMatch, VirtualHost
from pilothouse.simulator.choice import Loss, Mismatch, Reason, Step, Taken
from pilothouse.simulator.http_request import HttpRequest
from pilothouse.simulator.matchers import (
    NotSimulatedMatcher,
    cookie_mismatch,
    happens,
    header_mismatch,
    matches_whole,
    query_mismatch,
    share_of,
)
from pilothouse.simulator.provenance import made_by


class ChosenRoute(NamedTuple):
    """The route of a request (None: 404), and the choice."""

    route: Route | None
    taken: Taken | None
    losses: tuple[Loss, ...]


def choose_route(
    host: VirtualHost, request: HttpRequest, *, is_tls: bool, ignores_path_parameters: bool
) -> ChosenRoute:
    """Choose among the routes of a virtual host; it must not use a `matcher`."""
    taken: Taken | None = None
    losses = []
    for index, route in enumerate(host.routes):
        mismatches: tuple[Mismatch, ...]
        if taken is not None:
            mismatches = (Mismatch(Reason.EARLIER, f"{taken.name} comes first"),)
        else:
            mismatches = tuple(
                _mismatches(
                    route.match,
                    request,
                    is_tls=is_tls,
                    ignores_path_parameters=ignores_path_parameters,
                )
            )
        objects = made_by(route.metadata)
        name = route.name or f"routes[{index}]"
        if mismatches:
            losses.append(
                Loss(
                    step=Step.ROUTE,
                    candidate=name,
                    index=index,
                    mismatches=mismatches,
                    made_by=objects,
                )
            )
        else:
            why = f"it is the first that takes {_described(route.match)}"
            taken = Taken(name=name, index=index, why=why, made_by=objects)
    return ChosenRoute(host.routes[taken.index] if taken else None, taken, tuple(losses))


def matched_path(match: RouteMatch, request: HttpRequest) -> str:
    """Return the part of the path that a match took, which a prefix rewrite replaces."""
    kind = match.WhichOneof("path_specifier")
    if kind in {"prefix", "path_separated_prefix"}:
        return request.path[: len(getattr(match, kind))]
    return request.path_only


def _mismatches(
    match: RouteMatch, request: HttpRequest, *, is_tls: bool, ignores_path_parameters: bool
) -> Iterator[Mismatch]:
    """Yield every condition that fails."""
    if match.HasField("runtime_fraction"):
        share = match.runtime_fraction.default_value
        if not happens(share, request.random_value):
            text = f"it takes {share_of(share):.2%} of requests, by chance not this one"
            yield Mismatch(Reason.CHANCE, text)
    path = _path_mismatch(match, request, ignores_path_parameters=ignores_path_parameters)
    if path is not None:
        yield path
    content_type = request.header("content-type") or ""
    if match.HasField("grpc") and not (
        content_type == "application/grpc" or content_type.startswith("application/grpc+")
    ):
        yield Mismatch(Reason.GRPC, f"it wants gRPC; the content type is {content_type!r}")
    found = [header_mismatch(each, request) for each in match.headers]
    found += [query_mismatch(each, request) for each in match.query_parameters]
    found += [cookie_mismatch(each, request) for each in match.cookies]
    yield from (each for each in found if each is not None)
    if match.HasField("tls_context"):
        yield from _tls_mismatches(match, is_tls=is_tls)
    if match.dynamic_metadata or match.filter_state:
        yield Mismatch(Reason.METADATA, "it asks for what other filters set, which is not known")


def _path_mismatch(
    match: RouteMatch, request: HttpRequest, *, ignores_path_parameters: bool
) -> Mismatch | None:
    path = request.path_only
    if ignores_path_parameters:
        path = path.partition(";")[0]
    kind = match.WhichOneof("path_specifier")
    if kind == "connect_matcher":
        if request.method == "CONNECT":
            return None
        return Mismatch(Reason.PATH, "it takes CONNECT requests only")
    if request.method == "CONNECT":
        return Mismatch(Reason.PATH, "a CONNECT request has no path")
    if kind == "safe_regex":
        try:
            taken = matches_whole(match.safe_regex.regex, path)
        except NotSimulatedMatcher as error:
            return Mismatch(Reason.NOT_SIMULATED, str(error))
        text = f"it wants a path matching {match.safe_regex.regex!r}"
    elif kind in {"prefix", "path", "path_separated_prefix"}:
        wanted: str = getattr(match, kind)
        is_cased = not match.HasField("case_sensitive") or match.case_sensitive.value
        taken = (
            _path_matches(kind, wanted, path)
            if is_cased
            else (_path_matches(kind, wanted.lower(), path.lower()))
        )
        text = f"it wants {kind.replace('_', ' ')} {wanted!r}"
    else:
        return Mismatch(Reason.NOT_SIMULATED, f"its {kind} is not simulated")
    return None if taken else Mismatch(Reason.PATH, f"{text}; it is {path!r}")


def _path_matches(kind: str, wanted: str, path: str) -> bool:
    if kind == "path":
        return path == wanted
    if not path.startswith(wanted):
        return False
    return kind == "prefix" or path[len(wanted) : len(wanted) + 1] in {"", "/"}


def _tls_mismatches(match: RouteMatch, *, is_tls: bool) -> Iterator[Mismatch]:
    # Whether the client shows a certificate is not part of a request here: over TLS it does.
    for name in ("presented", "validated"):
        context = match.tls_context
        if context.HasField(name) and getattr(context, name).value != is_tls:
            shown = "a" if is_tls else "no"
            yield Mismatch(Reason.TLS_CONTEXT, f"{shown} client certificate is {name}")


def _described(match: RouteMatch) -> str:
    kind = match.WhichOneof("path_specifier")
    if kind == "safe_regex":
        shown = f"paths matching {match.safe_regex.regex!r}"
    elif kind in {"prefix", "path", "path_separated_prefix"}:
        shown = f"{kind.replace('_', ' ')} {getattr(match, kind)!r}"
    else:
        shown = "CONNECT"
    others = len(match.headers) + len(match.query_parameters) + len(match.cookies)
    return f"{shown} and meets its {others} other conditions" if others else shown
