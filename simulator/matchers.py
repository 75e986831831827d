"""
Conditions on strings, headers, query parameters and cookies, and how a failed one is told.

Regular expressions are RE2 and match the whole text, as in Envoy. Source: envoyproxy/envoy, docs of
type.matcher.v3.StringMatcher and route.v3.HeaderMatcher, QueryParameterMatcher, CookieMatcher.
"""

from collections.abc import Callable
from typing import Final

import re2

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from pilothouse._pb.envoy.type.v3.percent_pb2 import FractionalPercent
from pilothouse.simulator.choice import Mismatch, Reason
from pilothouse.simulator.http_request import HttpRequest

HeaderMatcher = route_components_pb2.HeaderMatcher

_DENOMINATORS: Final = {
    FractionalPercent.HUNDRED: 100,
    FractionalPercent.TEN_THOUSAND: 10_000,
    FractionalPercent.MILLION: 1_000_000,
}

_OLD_TESTS: Final[dict[str, Callable[[str, str], bool]]] = {
    "exact_match": str.__eq__,
    "prefix_match": str.startswith,
    "suffix_match": str.endswith,
    "contains_match": str.__contains__,
}


class NotSimulatedMatcher(ValueError):
    """A matcher whose answer cannot be told here."""


def share_of(percent: FractionalPercent) -> float:
    """Return a fraction as a number from 0 to 1."""
    return min(percent.numerator / _DENOMINATORS[percent.denominator], 1.0)


def happens(percent: FractionalPercent, random_value: int) -> bool:
    """Tell whether something with this chance happens at a random value."""
    return random_value % _DENOMINATORS[percent.denominator] < percent.numerator


def matches_whole(pattern: str, text: str) -> bool:
    """
    Tell whether an RE2 expression matches the whole text.

    Raises: NotSimulatedMatcher: The expression is not RE2.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options).fullmatch(text) is not None
    except re2.error as error:
        raise NotSimulatedMatcher(f"the expression {pattern!r} is not RE2") from error


def string_matches(wanted: StringMatcher, text: str) -> bool:
    """
    Tell whether a string matcher takes a text.

    Raises: NotSimulatedMatcher: It is an extension, or no valid expression.
    """
    kind = wanted.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return matches_whole(wanted.safe_regex.regex, text)
    if kind in {None, "custom"}:
        raise NotSimulatedMatcher("a string matcher of an extension")
    value: str = getattr(wanted, kind)
    if wanted.ignore_case:
        value, text = value.lower(), text.lower()
    match kind:
        case "exact":
            return text == value
        case "prefix":
            return text.startswith(value)
        case "suffix":
            return text.endswith(value)
        case _:
            return value in text


def header_matches(wanted: HeaderMatcher, request: HttpRequest) -> bool:
    """
    Tell whether a header condition holds.

    An absent header fails every condition, an inverted one too, unless it counts as empty; only
    presence is asked of the absent as well. Raises: NotSimulatedMatcher.
    """
    value = request.header(wanted.name)
    kind = wanted.WhichOneof("header_match_specifier")
    if kind in {None, "present_match"}:
        wants_presence = True if kind is None else wanted.present_match
        if wanted.treat_missing_header_as_empty:
            value = value or ""
        return ((value is not None) == wants_presence) != wanted.invert_match
    if value is None:
        if not wanted.treat_missing_header_as_empty:
            return False
        value = ""
    return _value_matches(wanted, kind, value) != wanted.invert_match


def _value_matches(wanted: HeaderMatcher, kind: str | None, value: str) -> bool:
    match kind:
        case "string_match":
            return string_matches(wanted.string_match, value)
        case "safe_regex_match":
            return matches_whole(wanted.safe_regex_match.regex, value)
        case "range_match":
            try:
                number = int(value)
            except ValueError:
                return False
            return wanted.range_match.start <= number < wanted.range_match.end
        case _:
            return _OLD_TESTS[kind or ""](value, getattr(wanted, kind or ""))


def header_mismatch(wanted: HeaderMatcher, request: HttpRequest) -> Mismatch | None:
    """Return why a header condition does not hold; None if it does."""
    try:
        if header_matches(wanted, request):
            return None
    except NotSimulatedMatcher as error:
        return Mismatch(Reason.NOT_SIMULATED, f"header {wanted.name}: {error}")
    seen = request.header(wanted.name)
    shown = "is absent" if seen is None else f"is {seen!r}"
    return Mismatch(Reason.HEADER, f"it wants header {_shown_header(wanted)}; it {shown}")


def query_mismatch(
    wanted: route_components_pb2.QueryParameterMatcher, request: HttpRequest
) -> Mismatch | None:
    """Return why a condition on a query parameter does not hold; None if it does."""
    value = request.query_parameters.get(wanted.name)
    kind = wanted.WhichOneof("query_parameter_match_specifier")
    shown = "is absent" if value is None else f"is {value!r}"
    if kind == "string_match":
        text = f"{wanted.name} {_shown(wanted.string_match)}"
        try:
            holds = value is not None and string_matches(wanted.string_match, value)
        except NotSimulatedMatcher as error:
            return Mismatch(Reason.NOT_SIMULATED, f"query parameter {wanted.name}: {error}")
    else:
        text = f"{wanted.name} present"
        holds = (value is not None) == (kind is None or wanted.present_match)
    if holds:
        return None
    return Mismatch(Reason.QUERY, f"it wants query parameter {text}; it {shown}")


def cookie_mismatch(
    wanted: route_components_pb2.CookieMatcher, request: HttpRequest
) -> Mismatch | None:
    """Return why a condition on a cookie does not hold; None if it does."""
    value = request.cookies.get(wanted.name)
    shown = "is absent" if value is None else f"is {value!r}"
    try:
        matched = value is not None and string_matches(wanted.string_match, value)
    except NotSimulatedMatcher as error:
        return Mismatch(Reason.NOT_SIMULATED, f"cookie {wanted.name}: {error}")
    if matched != wanted.invert_match:
        return None
    verb = "not " if wanted.invert_match else ""
    text = f"it wants cookie {wanted.name} {verb}{_shown(wanted.string_match)}; it {shown}"
    return Mismatch(Reason.COOKIE, text)


def _shown_header(wanted: HeaderMatcher) -> str:
    kind = wanted.WhichOneof("header_match_specifier")
    verb = "not " if wanted.invert_match else ""
    match kind:
        case "string_match":
            condition = _shown(wanted.string_match)
        case "safe_regex_match":
            condition = f"matching {wanted.safe_regex_match.regex!r}"
        case "range_match":
            condition = f"in [{wanted.range_match.start}, {wanted.range_match.end})"
        case "present_match" | None:
            condition = "present" if kind is None or wanted.present_match else "absent"
        case _:
            condition = f"{kind.removesuffix('_match')} {getattr(wanted, kind)!r}"
    return f"{wanted.name} {verb}{condition}"


def _shown(wanted: StringMatcher) -> str:
    kind = wanted.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return f"matching {wanted.safe_regex.regex!r}"
    if kind in {None, "custom"}:
        return "as an extension says"
    case = " in any case" if wanted.ignore_case else ""
    verb = {"exact": "=", "prefix": "beginning with", "suffix": "ending with"}.get(kind, "with")
    return f"{verb} {getattr(wanted, kind)!r}{case}"
