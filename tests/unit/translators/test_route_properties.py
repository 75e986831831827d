"""Laws of route building, for any rule that validation lets through."""

from envoy_constraints import violations
from hypothesis import given, settings
from hypothesis import strategies as st
from route_building import context, from_data, virtual_service

from pilothouse.api.destination_rule import ConsistentHash
from pilothouse.graph.findings import Finding
from pilothouse.translators.envoy.header_formats import acceptable
from pilothouse.translators.envoy.routes import source_label_keys, virtual_service_routes

HASHES = {
    "a": from_data({"httpHeaderName": "x-user"}, ConsistentHash),
    "b": from_data({"httpCookie": {"name": "u", "ttl": "1h"}}, ConsistentHash),
}


def objects(**optional):
    """Data with any of these fields."""
    return st.fixed_dictionaries({}, optional=optional)


names = st.sampled_from(["x-a", "X-B", "host", ":authority", ":path", "cookie", "end-user"])
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
ports = st.integers(1, 65535)
durations = st.integers(0, 10**7).map(lambda milliseconds: f"{milliseconds}ms")
percents = st.fixed_dictionaries({"value": st.floats(0, 100)})
matches = st.one_of(
    st.just({}),
    texts.map(lambda text: {"exact": text}),
    texts.map(lambda text: {"prefix": text}),
    st.sampled_from(["", "*", ".*", "a|b", "/v[0-9]+/.*", r"\d{3}"]).map(
        lambda text: {"regex": text}
    ),
)
labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["web", "x"]))
conditions = objects(
    name=texts,
    uri=matches,
    scheme=matches,
    method=matches,
    authority=matches,
    headers=st.dictionaries(names, matches, max_size=3),
    withoutHeaders=st.dictionaries(names, matches, max_size=3),
    queryParams=st.dictionaries(st.sampled_from(["q", "r"]), matches),
    port=st.sampled_from([80, 8080]),
    sourceLabels=labels,
    sourceNamespace=st.sampled_from(["default", "other"]),
    gateways=st.lists(st.sampled_from(["mesh", "default/edge"])),
    ignoreUriCase=st.booleans(),
    statPrefix=texts,
)
operations = objects(
    set=st.dictionaries(names, texts, max_size=3),
    add=st.dictionaries(names, texts, max_size=3),
    remove=st.lists(names, max_size=2),
)
headers = objects(request=operations, response=operations)
destinations = st.builds(
    lambda host, more: {"host": host, **more},
    st.sampled_from(["a", "b", "c"]),
    objects(subset=st.just("v2"), port=st.fixed_dictionaries({"number": ports})),
)
weighted = st.builds(
    lambda to, more: {"destination": to, **more},
    destinations,
    objects(weight=st.integers(0, 1000), headers=headers),
)
retries = objects(
    attempts=st.integers(0, 20),
    perTryTimeout=durations,
    backoff=durations,
    retryOn=st.sampled_from(["", "5xx", "503", "reset,429", " , "]),
    retryRemoteLocalities=st.booleans(),
    retryIgnorePreviousHosts=st.booleans(),
)
faults = objects(
    delay=objects(fixedDelay=durations, percent=st.integers(0, 100), percentage=percents),
    abort=st.one_of(
        objects(httpStatus=st.integers(200, 599), percentage=percents),
        objects(grpcStatus=st.sampled_from(["OK", "UNAVAILABLE"]), percentage=percents),
        objects(http2Error=texts, percentage=percents),
    ),
)
cors = objects(
    allowOrigins=st.lists(matches, max_size=3),
    allowOrigin=st.lists(texts, max_size=2),
    allowMethods=st.lists(st.sampled_from(["GET", "PUT"])),
    maxAge=durations,
    allowCredentials=st.booleans(),
    unmatchedPreflights=st.sampled_from(["UNSPECIFIED", "FORWARD", "IGNORE"]),
)
redirects = objects(
    uri=texts,
    prefixRewrite=texts,
    authority=texts,
    scheme=st.sampled_from(["http", "https"]),
    port=ports,
    redirectCode=st.sampled_from([0, 301, 302, 303, 305, 307, 308]),
)
direct_responses = st.fixed_dictionaries(
    {"status": st.integers(200, 599)},
    optional={"body": st.one_of(texts.map(lambda text: {"string": text}), st.just({}))},
)
rewrites = objects(
    uri=texts,
    authority=texts,
    uriRegexRewrite=st.just({"match": "/(.*)", "rewrite": r"/x/\1"}),
)
common = {
    "name": texts,
    "match": st.lists(conditions, max_size=3),
    "headers": headers,
    "fault": faults,
    "corsPolicy": cors,
}
rules = st.one_of(
    objects(
        **common,
        route=st.lists(weighted, max_size=3),
        rewrite=rewrites,
        timeout=durations,
        retries=retries,
        mirror=destinations,
        mirrorPercentage=percents,
        mirrors=st.lists(st.fixed_dictionaries({"destination": destinations}), max_size=2),
    ),
    objects(**common).flatmap(lambda rule: redirects.map(lambda to: {**rule, "redirect": to})),
    objects(**common).flatmap(
        lambda rule: direct_responses.map(lambda answer: {**rule, "directResponse": answer})
    ),
)
rule_lists = st.lists(rules, max_size=4)


def encoded(written, **changes):
    """Return the routes of rules as bytes, and the findings."""
    findings: list[Finding] = []
    vs = virtual_service(*written)
    routes = virtual_service_routes(vs, context(HASHES, **changes), findings.append)
    return [route.SerializeToString(deterministic=True) for route in routes], findings


@settings(deadline=None)  # a busy machine is no counterexample
@given(rule_lists)
def test_envoy_would_take_every_route(written):
    """Whatever is written, no route costs a proxy its route configuration."""
    routes = virtual_service_routes(virtual_service(*written), context(HASHES), lambda _: None)
    for route in routes:
        assert list(violations(route)) == []


@settings(deadline=None)
@given(rule_lists)
def test_equal_rules_make_equal_bytes(written):
    """Nothing but the rules and the context decides, so equal content is never sent twice."""
    reordered = [dict(reversed(rule.items())) for rule in written]
    for rule in reordered:
        for key in ("headers", "withoutHeaders", "queryParams"):
            rule["match"] = [
                {**each, key: dict(reversed(each[key].items()))} if key in each else each
                for each in rule.get("match", [])
            ]
    assert encoded(written) == encoded(reordered)


@settings(deadline=None)
@given(rule_lists, labels)
def test_labels_that_are_not_read_change_nothing(written, more):
    """VS-15: clients that agree on the labels a VirtualService reads may share its routes."""
    read = source_label_keys(virtual_service(*written))
    unread = {key: value for key, value in more.items() if key not in read}
    assert encoded(written, source_labels={"other": "x", **unread}) == encoded(
        written, source_labels={"other": "x"}
    )


@settings(deadline=None)
@given(rule_lists)
def test_routes_are_those_of_the_rules_before_the_first_catch_all(written):
    """VS-04: what follows a route for everything is not sent, and adding rules changes no route."""
    whole, _ = encoded(written)
    for count in range(len(written)):
        part, _ = encoded(written[:count])
        assert whole[: len(part)] == part


formats = st.text("%REQ(x):3PTOCL", max_size=16) | st.from_regex(
    r"(%(REQ|START_TIME|PROTOCOL|METADATA|FILTER_STATE)(\([%a-zA-Z:?]*\))?(:[0-9])?%){1,3}",
    fullmatch=True,
)


@settings(deadline=None)
@given(formats)
def test_a_corrected_header_value_needs_no_second_correction(text):
    """VS-22: what is sent differs from what is written in percent signs only."""
    once = acceptable(text)
    assert acceptable(once) == once
    assert once.replace("%", "") == text.replace("%", "")
