"""
Conditions on a request: path, headers, method, query (traffic.md VS-06 to VS-11, VS-18).

Regular expressions go to Envoy as they are (RE2); nothing here runs them. A condition that Envoy
would refuse but whose meaning is plain (an empty prefix) is written in another way, because one
refused matcher would cost the proxy its whole route configuration.
"""

from typing import Final

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.envoy.type.matcher.v3 import string_pb2
from pilothouse.api.virtual_service import HttpMatch, StringMatch

ANYTHING: Final = "*"
"""Not RE2: how the API spells "present" as a regex."""

CLAIM_PREFIX: Final = "@request.auth.claims"
"""Header names that mean a claim of the request's token (VS-12)."""

_EVERY_PATH: Final = frozenset({"", "/"})
_EVERY_TEXT: Final = frozenset({".*", ANYTHING})


def route_match(wanted: HttpMatch | None) -> route_components_pb2.RouteMatch:
    """Build the matcher of one `match` entry; None, a rule without any, matches every request."""
    result = route_components_pb2.RouteMatch()
    if wanted is None:
        result.prefix = "/"
        return result
    _match_path(result, wanted)
    headers = [(name, condition, False) for name, condition in wanted.headers.items()]
    headers += [(name, condition, True) for name, condition in wanted.without_headers.items()]
    for name, condition, absent in sorted(headers, key=lambda item: (item[0], item[2])):
        matcher = result.headers.add(name=name)
        _match_header(matcher, condition)
        if absent:
            matcher.invert_match = True
            # With present_match Envoy refuses it; a missing header is what is asked for there.
            matcher.treat_missing_header_as_empty = not _is_presence(condition)
    for name, pseudo in (
        (":method", wanted.method),
        (":authority", wanted.authority),
        (":scheme", wanted.scheme),
    ):
        if pseudo is not None:
            _match_header(result.headers.add(name=name), pseudo)
    for name in sorted(wanted.query_params):
        condition = wanted.query_params[name]
        parameter = result.query_parameters.add(name=name)
        if _is_presence(condition):
            parameter.present_match = True
        else:
            set_string(parameter.string_match, condition)
    return result


def is_catch_all(wanted: HttpMatch | None) -> bool:
    """
    Tell whether a `match` entry takes every request that its static conditions let through.

    Static are port, gateways and source; see `pilothouse.translators.envoy.source_matches`.
    """
    if wanted is None:
        return True
    others = (wanted.headers, wanted.without_headers, wanted.query_params)
    if any(others) or wanted.method or wanted.scheme or wanted.authority:
        return False
    uri = wanted.uri
    if uri is None or uri.exact is not None:
        return uri is None
    if uri.prefix is not None:
        return uri.prefix in _EVERY_PATH
    return uri.regex is None or uri.regex in _EVERY_TEXT


def reads_claims(wanted: HttpMatch) -> bool:
    """Tell whether an entry asks about claims of the request's token (VS-12)."""
    names = (*wanted.headers, *wanted.without_headers)
    return any(name.startswith(CLAIM_PREFIX) for name in names)


def set_string(matcher: string_pb2.StringMatcher, condition: StringMatch) -> None:
    """Fill a string matcher; without a condition it matches every text."""
    if condition.exact is not None:
        matcher.exact = condition.exact
    elif condition.prefix:
        matcher.prefix = condition.prefix
    elif condition.regex == "":
        matcher.exact = ""  # Envoy refuses an empty regex, which matches the empty text only
    elif condition.regex is not None and condition.regex != ANYTHING:
        matcher.safe_regex.regex = condition.regex
    else:
        matcher.safe_regex.regex = ".*"


def _match_path(result: route_components_pb2.RouteMatch, wanted: HttpMatch) -> None:
    uri = wanted.uri or StringMatch()
    if uri.exact is not None:
        result.path = uri.exact
    elif uri.prefix is not None:
        result.prefix = uri.prefix or "/"  # every path begins with it
    elif uri.regex == "":
        result.path = ""  # no path is empty, so neither ever matches
    elif uri.regex is not None and uri.regex != ANYTHING:
        result.safe_regex.regex = uri.regex
    else:
        result.prefix = "/"
    if wanted.ignore_uri_case:
        result.case_sensitive.value = False


def _match_header(matcher: route_components_pb2.HeaderMatcher, condition: StringMatch) -> None:
    if _is_presence(condition):
        matcher.present_match = True
    else:
        set_string(matcher.string_match, condition)


def _is_presence(condition: StringMatch) -> bool:
    if condition.exact is not None:
        return False
    if condition.prefix is not None:
        return not condition.prefix
    return condition.regex is None or condition.regex == ANYTHING
