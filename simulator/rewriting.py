"""
What a path, a host or a redirect's URL becomes.

Source: envoyproxy/envoy, docs of route.v3.RouteAction (rewrites) and route.v3.RedirectAction.
"""

from collections.abc import Callable
from typing import Final, Protocol

import re2

from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import RedirectAction, RouteAction
from pilothouse._pb.envoy.type.matcher.v3.regex_pb2 import RegexMatchAndSubstitute
from pilothouse.simulator.http_request import HttpRequest, port_start

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_GROUPS: Final = "0123456789"


class _Rewrites(Protocol):
    prefix_rewrite: str

    @property
    def regex_rewrite(self) -> RegexMatchAndSubstitute:
        """An expression and what stands in its place."""


def rewritten_path(action: _Rewrites, request: HttpRequest, matched: str) -> str:
    """Return the path after a route's rewrite of the part its match took; the query stays."""
    if action.prefix_rewrite:
        return action.prefix_rewrite + request.path[len(matched) :]
    only = request.path_only
    if action.regex_rewrite.pattern.regex:
        return substituted(action.regex_rewrite, only) + request.path[len(only) :]
    return request.path


def substituted(rewrite: RegexMatchAndSubstitute, text: str) -> str:
    r"""
    Replace every match of an RE2 expression; ``\0`` to ``\9`` stand for its groups.

    As RE2 does it: no empty match directly behind another match.
    """
    pattern = re2.compile(rewrite.pattern.regex)
    out: list[str] = []
    place, last_end = 0, -1
    while place <= len(text):
        found = pattern.search(text, place)
        if found is None:
            break
        out.append(text[place : found.start()])
        place = found.end()
        if found.start() == found.end() == last_end:
            out.append(text[place : place + 1])
            place += 1
            continue
        out.append(_replacement(rewrite.substitution, found.group))
        last_end = place
    return "".join(out) + text[place:]


def _replacement(template: str, group: Callable[[int], str | None]) -> str:
    out: list[str] = []
    characters = iter(template)
    for character in characters:
        if character != "\\":
            out.append(character)
            continue
        following = next(characters, "")
        is_group = following and following in _GROUPS
        out.append((group(int(following)) or "") if is_group else following)
    return "".join(out)


def rewritten_host(action: RouteAction, cluster_literal: str, request: HttpRequest) -> str | None:
    """Return the authority the upstream sees; None where it is the endpoint's own name."""
    match action.WhichOneof("host_rewrite_specifier"):
        case "host_rewrite_literal":
            return action.host_rewrite_literal
        case "host_rewrite_header":
            return request.header(action.host_rewrite_header) or request.host
        case "host_rewrite_path_regex":
            return substituted(action.host_rewrite_path_regex, request.path_only) or request.host
        case "auto_host_rewrite" if action.auto_host_rewrite.value:
            return None
        case _:
            return cluster_literal or request.host


def redirect_url(action: RedirectAction, request: HttpRequest, matched: str) -> str:
    """Return where a redirect leads."""
    scheme = action.scheme_redirect or ("https" if action.https_redirect else request.scheme)
    port = f":{action.port_redirect}" if action.port_redirect else ""
    host = action.host_redirect or _kept_host(request, scheme, port)
    path = rewritten_path(action, request, matched)
    has_own_query = "?" in action.path_redirect
    if action.path_redirect:
        _, mark, query = request.path.partition("?")
        path = action.path_redirect + ("" if has_own_query else mark + query)
    if not path.startswith("/"):
        path = f"/{path}"
    if action.strip_query and not has_own_query:
        path = path.partition("?")[0]
    return f"{scheme}://{host}{port}{path}"


def _kept_host(request: HttpRequest, new_scheme: str, new_port: str) -> str:
    colon = port_start(request.host)
    if colon is None:
        return request.host
    arrived_by = request.header("x-forwarded-proto") or request.scheme
    is_default = new_scheme != arrived_by and (
        request.host[colon:] == _DEFAULT_PORTS.get(arrived_by)
    )
    return request.host[:colon] if new_port or is_default else request.host
