"""Rules across the fields of one HTTP rule of a VirtualService, as Istio publishes them."""

from collections.abc import Iterator
from typing import Final

from pilothouse.api import names, paths
from pilothouse.api.destination_check import check_destination, check_gateways, check_weights
from pilothouse.api.problem import (
    Problem,
    duration,
    not_negative,
    one_of,
    percent,
    port,
    selector,
    warning,
)
from pilothouse.api.virtual_service import (
    CorsPolicy,
    Headers,
    HttpFault,
    HttpMatch,
    HttpRedirect,
    HttpRetry,
    HttpRewrite,
    HttpRoute,
    StringMatch,
)

GRPC_CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC status names; the index is the code."""

RETRY_ON: Final = frozenset(
    [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ]
)
"""Conditions Envoy can retry on, for HTTP and gRPC; numbers from 100 to 599 are allowed too."""

REDIRECT_CODES: Final = (0, 301, 302, 303, 307, 308)
_LARGEST_BODY: Final = 1024 * 1024

_ADD_PERCENTAGE: Final = "Add percentage.value, such as 100."


def check_route(route: HttpRoute, path: str, *, is_delegate: bool) -> Iterator[Problem]:
    """Yield what is wrong with one HTTP rule."""
    yield from _check_action(route, path, is_delegate=is_delegate)
    for index, match in enumerate(route.match):
        yield from _check_match(match, f"{path}.match[{index}]")
    yield from _check_destinations(route, path)
    if route.redirect is not None:
        yield from _check_redirect(route.redirect, f"{path}.redirect")
    if route.direct_response is not None:
        status, body = route.direct_response.status, route.direct_response.body
        if not 200 <= status <= 599:
            at = f"{path}.directResponse.status"
            yield Problem(at, f"The status {status} must be between 200 and 599.")
        if body is not None:
            at = f"{path}.directResponse.body"
            yield from one_of(body, at, "string", "bytes_", required=True)
            if len(body.bytes_ or body.string or "") > _LARGEST_BODY:
                yield Problem(at, "The body is larger than 1 MiB.", "Serve it from a service.")
    if route.rewrite is not None:
        yield from _check_rewrite(route.rewrite, f"{path}.rewrite")
    yield from duration(route.timeout, f"{path}.timeout")
    if route.retries is not None:
        yield from _check_retries(route.retries, f"{path}.retries")
    if route.fault is not None:
        yield from _check_fault(route.fault, f"{path}.fault")
    if route.cors_policy is not None:
        yield from _check_cors(route.cors_policy, f"{path}.corsPolicy")
    if route.headers is not None:
        yield from _check_headers(route.headers, f"{path}.headers")


def _check_action(route: HttpRoute, path: str, *, is_delegate: bool) -> Iterator[Problem]:
    actions = ("route", "redirect", "direct_response", "delegate")
    given = [name for name in actions if getattr(route, name)]
    shown = "route, redirect, directResponse and delegate"
    if not given:
        yield Problem(
            path, "The rule says what to match but not what to do.", f"Add one of {shown}."
        )
    elif len(given) > 1:
        yield Problem(path, f"Only one of {shown} may be set.", "Split the rule.")
    if route.delegate is not None and is_delegate:
        yield Problem(f"{path}.delegate", "A delegate cannot delegate again.")
    if route.route:
        return
    for name, spelled in (("fault", "fault"), ("rewrite", "rewrite")):
        if getattr(route, name) is not None and route.delegate is None:
            yield Problem(
                f"{path}.{spelled}", f"{spelled} needs a route to apply to.", f"Remove {spelled}."
            )


def _check_destinations(route: HttpRoute, path: str) -> Iterator[Problem]:
    for index, each in enumerate(route.route):
        at = f"{path}.route[{index}]"
        yield from check_destination(each.destination, f"{at}.destination")
        if each.headers is not None:
            yield from _check_headers(each.headers, f"{at}.headers")
    yield from check_weights([each.weight for each in route.route], f"{path}.route")
    if route.mirror is not None:
        yield from check_destination(route.mirror, f"{path}.mirror")
        if route.mirrors:
            yield Problem(f"{path}.mirrors", "Only one of mirror and mirrors may be set.")
    for index, mirror in enumerate(route.mirrors):
        at = f"{path}.mirrors[{index}]"
        yield from check_destination(mirror.destination, f"{at}.destination")
        if mirror.percentage is not None:
            yield from percent(mirror.percentage.value, f"{at}.percentage.value")
    yield from percent(route.mirror_percent, f"{path}.mirrorPercent")
    if route.mirror_percentage is not None:
        yield from percent(route.mirror_percentage.value, f"{path}.mirrorPercentage.value")


def check_string_match(match: StringMatch, path: str) -> Iterator[Problem]:
    """Yield problems of a text match: one form at most, and a readable regex."""
    yield from one_of(match, path, "exact", "prefix", "regex")
    if match.regex is not None and match.regex != "*":
        problem = names.regex(match.regex)
        if problem:
            yield Problem(
                f"{path}.regex",
                f'"{match.regex}" {problem}.',
                "Look-around and back-references do not exist in RE2.",
            )


def _check_match(match: HttpMatch, path: str) -> Iterator[Problem]:
    for name in ("uri", "scheme", "method", "authority"):
        found: StringMatch | None = getattr(match, name)
        if found is not None:
            yield from check_string_match(found, f"{path}.{name}")
    for field, found_in in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
        for name, header_match in found_in.items():
            at = paths.child(f"{path}.{field}", name)
            if names.header(name) and not name.startswith("@request.auth.claims"):
                yield Problem(at, f'"{name}" {names.header(name)}.')
            yield from check_string_match(header_match, at)
    for name, query_match in match.query_params.items():
        yield from check_string_match(query_match, paths.child(f"{path}.queryParams", name))
    yield from port(match.port, f"{path}.port", optional=True)
    yield from selector(match.source_labels, f"{path}.sourceLabels")
    if match.gateways and (match.source_labels or match.source_namespace):
        yield warning(
            path,
            "With gateways set, Istio does not look at sourceLabels and sourceNamespace (VS-14).",
            "Remove gateways from this match, or the source conditions.",
        )
    yield from check_gateways(match.gateways, f"{path}.gateways")


def _check_redirect(redirect: HttpRedirect, path: str) -> Iterator[Problem]:
    if redirect.uri and redirect.prefix_rewrite:
        yield Problem(path, "Only one of uri and prefixRewrite may be set.")
    yield from one_of(redirect, path, "port", "derive_port")
    yield from port(redirect.port, f"{path}.port")
    if redirect.redirect_code not in REDIRECT_CODES:
        yield Problem(
            f"{path}.redirectCode",
            f"{redirect.redirect_code} is not a redirect code.",
            "Write 301, 302, 303, 307 or 308.",
        )
    if redirect.scheme not in ("", "http", "https"):
        yield Problem(f"{path}.scheme", f'"{redirect.scheme}" is neither http nor https.')
    has_target = redirect.uri or redirect.prefix_rewrite or redirect.authority or redirect.scheme
    if not has_target and redirect.port is None and redirect.derive_port is None:
        yield Problem(path, "The redirect leads to the same place.", "Add uri or authority.")


def _check_rewrite(rewrite: HttpRewrite, path: str) -> Iterator[Problem]:
    pattern = rewrite.uri_regex_rewrite
    if not rewrite.uri and not rewrite.authority and pattern is None:
        yield Problem(
            path, "The rewrite changes nothing.", "Add uri, uriRegexRewrite or authority."
        )
    if pattern is None:
        return
    if rewrite.uri:
        yield Problem(path, "Only one of uri and uriRegexRewrite may be set.")
    at = f"{path}.uriRegexRewrite"
    if not pattern.match or not pattern.rewrite:
        yield Problem(at, "Both match and rewrite must be given.")
    problem = names.regex(pattern.match)
    if problem:
        yield Problem(f"{at}.match", f'"{pattern.match}" {problem}.')


def _check_retries(retries: HttpRetry, path: str) -> Iterator[Problem]:
    yield from not_negative(retries, path, "attempts")
    if retries.attempts == 0 and (retries.per_try_timeout is not None or retries.retry_on):
        yield Problem(
            f"{path}.attempts",
            "With 0 attempts there are no retries, so the other settings mean nothing.",
            "Set attempts, or remove perTryTimeout and retryOn.",
        )
    yield from duration(retries.per_try_timeout, f"{path}.perTryTimeout")
    yield from duration(retries.backoff, f"{path}.backoff")
    for word in filter(None, (part.strip() for part in retries.retry_on.split(","))):
        if word in RETRY_ON or (word.isdecimal() and 100 <= int(word) <= 599):
            continue
        yield Problem(
            f"{path}.retryOn",
            f'"{word}" is no condition Envoy can retry on.',
            "Write names such as connect-failure or status codes, with commas.",
        )


def _check_fault(fault: HttpFault, path: str) -> Iterator[Problem]:
    if fault.delay is None and fault.abort is None:
        yield Problem(path, "The fault does nothing.", "Add delay or abort.")
    delay, abort = fault.delay, fault.abort
    if delay is not None:
        at = f"{path}.delay"
        yield from one_of(delay, at, "fixed_delay", "exponential_delay", required=True)
        yield from duration(delay.fixed_delay, f"{at}.fixedDelay")
        yield from percent(delay.percent, f"{at}.percent")
        if delay.percentage is not None:
            yield from percent(delay.percentage.value, f"{at}.percentage.value")
        elif not delay.percent:
            message = "Without a percentage the delay meets no request."
            yield warning(at, message, _ADD_PERCENTAGE, "FaultWithoutPercentage")
    if abort is not None:
        at = f"{path}.abort"
        yield from one_of(abort, at, "http_status", "grpc_status", "http2_error", required=True)
        if abort.http_status is not None and not 200 <= abort.http_status <= 599:
            yield Problem(
                f"{at}.httpStatus", f"The status {abort.http_status} must be between 200 and 599."
            )
        if abort.grpc_status is not None and abort.grpc_status not in GRPC_CODES:
            yield Problem(
                f"{at}.grpcStatus",
                f'"{abort.grpc_status}" is no gRPC status.',
                "Write a name such as UNAVAILABLE.",
            )
        if abort.percentage is not None:
            yield from percent(abort.percentage.value, f"{at}.percentage.value")
        else:
            message = "Without a percentage the abort meets no request."
            yield warning(at, message, _ADD_PERCENTAGE, "FaultWithoutPercentage")


def _check_cors(cors: CorsPolicy, path: str) -> Iterator[Problem]:
    for index, origin in enumerate(cors.allow_origins):
        yield from check_string_match(origin, f"{path}.allowOrigins[{index}]")
    if cors.allow_origin and cors.allow_origins:
        message = "allowOrigin is the older form and is left out beside allowOrigins."
        yield warning(f"{path}.allowOrigin", message, "Remove it.")
    for index, method in enumerate(cors.allow_methods):
        if not method.isascii() or not (method == "*" or method.isupper()):
            at = f"{path}.allowMethods[{index}]"
            yield Problem(at, f'"{method}" is no HTTP method.', "Write it in capitals.")
    for field, listed in (
        ("allowHeaders", cors.allow_headers),
        ("exposeHeaders", cors.expose_headers),
    ):
        for index, name in enumerate(listed):
            if names.header(name):
                yield Problem(f"{path}.{field}[{index}]", f'"{name}" {names.header(name)}.')
    yield from duration(cors.max_age, f"{path}.maxAge")
    if cors.max_age is not None and cors.max_age.microseconds:
        yield Problem(f"{path}.maxAge", "Browsers take whole seconds only.", "Round it.")


def _check_headers(headers: Headers, path: str) -> Iterator[Problem]:
    for side, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for field, changed in (("set", operations.set), ("add", operations.add)):
            for name in changed:
                if names.header(name):
                    at = paths.child(f"{path}.{side}.{field}", name)
                    yield Problem(at, f'"{name}" {names.header(name)}.')
        for index, name in enumerate(operations.remove):
            at = f"{path}.{side}.remove[{index}]"
            if names.header(name):
                yield Problem(at, f'"{name}" {names.header(name)}.')
            elif name.startswith(":") or name.lower() == "host":
                yield Problem(at, f'"{name}" cannot be removed; every request has it.')
