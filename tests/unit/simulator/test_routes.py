"""Which route takes a request (VS-04 to VS-11, VS-18)."""

import pytest
from served_config import ask, cluster, config, host, http_chain, listener, route, routed, taken

from pilothouse.simulator.choice import Reason
from pilothouse.simulator.outcome import LocalReply, Outcome, ReplyReason


def takes(match: dict[str, object], **request: object) -> bool:
    return taken(routed(route("r", match), **request)) == "r"


def why(match: dict[str, object], **request: object) -> list[Reason]:
    outcome = routed(route("r", match), **request)
    return [each.reason for each in outcome.losses[-1].mismatches]


@pytest.mark.parametrize(
    ("match", "path", "expected"),
    [
        ({"prefix": "/a"}, "/ab?q", True),
        ({"prefix": "/a"}, "/A", False),
        ({"prefix": "/a", "case_sensitive": False}, "/Ab", True),
        ({"path": "/a"}, "/a?x=/b", True),
        ({"path": "/a"}, "/a/", False),
        ({"path": "/A", "case_sensitive": False}, "/a", True),
        ({"path_separated_prefix": "/a"}, "/a", True),
        ({"path_separated_prefix": "/a"}, "/a/b", True),
        ({"path_separated_prefix": "/a"}, "/a?b", True),
        ({"path_separated_prefix": "/a"}, "/ab", False),
        ({"safe_regex": {"regex": "/v[0-9]+"}}, "/v12?x", True),
        ({"safe_regex": {"regex": "/v[0-9]+"}}, "/v12/", False),
        ({"safe_regex": {"regex": "/V.*"}, "case_sensitive": False}, "/v1", False),
        ({"connect_matcher": {}}, "/", False),
    ],
)
def test_paths(match: dict[str, object], path: str, expected: bool) -> None:
    assert takes(match, path=path) is expected
    if not expected:
        assert why(match, path=path) == [Reason.PATH]


H = "x-h"


@pytest.mark.parametrize(
    ("matcher", "value", "expected"),
    [
        ({"string_match": {"exact": "v"}}, "v", True),
        ({"string_match": {"exact": "v"}}, "V", False),
        ({"string_match": {"exact": "v", "ignore_case": True}}, "V", True),
        ({"string_match": {"prefix": "v"}}, "vx", True),
        ({"string_match": {"suffix": "v"}}, "xv", True),
        ({"string_match": {"contains": "v"}}, "xvx", True),
        ({"string_match": {"safe_regex": {"regex": "v+"}}}, "vv", True),
        ({"string_match": {"safe_regex": {"regex": "v"}}}, "vv", False),
        ({"exact_match": "v"}, "v", True),
        ({"prefix_match": "v"}, "xv", False),
        ({"suffix_match": "v"}, "xv", True),
        ({"contains_match": "v"}, "x", False),
        ({"safe_regex_match": {"regex": "v."}}, "vv", True),
        ({"range_match": {"start": -10, "end": 0}}, "-1", True),
        ({"range_match": {"start": -10, "end": 0}}, "0", False),
        ({"range_match": {"start": -10, "end": 0}}, "a", False),
        ({"present_match": True}, "", True),
        ({"present_match": True}, None, False),
        ({"present_match": False}, None, True),
        ({"present_match": True, "invert_match": True}, None, True),
        ({}, "v", True),
        ({}, None, False),
        ({"string_match": {"exact": "v"}, "invert_match": True}, "x", True),
        ({"string_match": {"exact": "v"}, "invert_match": True}, "v", False),
        ({"string_match": {"exact": "v"}, "invert_match": True}, None, False),
        (
            {
                "string_match": {"exact": "v"},
                "invert_match": True,
                "treat_missing_header_as_empty": True,
            },
            None,
            True,
        ),
        (
            {"string_match": {"exact": ""}, "treat_missing_header_as_empty": True},
            None,
            True,
        ),
    ],
)
def test_headers(matcher: dict[str, object], value: str | None, expected: bool) -> None:
    """VS-08, VS-09: an absent header fails inverted conditions too, unless it counts as empty."""
    headers = ((H, value),) if value is not None else ()
    match = {"headers": [{"name": H, **matcher}]}
    assert takes(match, headers=headers) is expected
    if not expected:
        assert why(match, headers=headers) == [Reason.HEADER]


def test_repeated_headers_are_one_list() -> None:
    match = {"headers": [{"name": H, "string_match": {"exact": "a,b"}}]}
    assert takes(match, headers=(("X-H", "a"), ("x-h", " b ")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (":method", "PUT"),
        (":authority", "a:80"),
        ("Host", "a:80"),
        (":scheme", "http"),
        (":path", "/x?y"),
        ("x-forwarded-proto", "http"),
    ],
)
def test_pseudo_headers(name: str, value: str) -> None:
    match = {"headers": [{"name": name, "string_match": {"exact": value}}]}
    assert takes(match, method="PUT", host="a:80", path="/x?y")


@pytest.mark.parametrize(
    ("matcher", "query", "expected"),
    [
        ({"string_match": {"exact": "1"}}, "q=1&q=2", True),
        ({"string_match": {"exact": "2"}}, "q=1&q=2", False),
        ({"string_match": {"exact": ""}}, "q", True),
        ({"string_match": {"exact": " "}}, "q=%20", False),
        ({"string_match": {"safe_regex": {"regex": "[0-9]+"}}}, "a=b&q=42", True),
        ({"present_match": True}, "q", True),
        ({"present_match": True}, "Q=1", False),
        ({}, "q=1", True),
    ],
)
def test_query_parameters(matcher: dict[str, object], query: str, expected: bool) -> None:
    """VS-11."""
    match = {"query_parameters": [{"name": "q", **matcher}]}
    assert takes(match, path=f"/?{query}") is expected
    if not expected:
        assert why(match, path=f"/?{query}") == [Reason.QUERY]


def test_cookies() -> None:
    match = {"cookies": [{"name": "c", "string_match": {"exact": "1"}}]}
    assert takes(match, headers=(("cookie", "b=2; c=1"),))
    assert why(match, headers=(("cookie", "c=2"),)) == [Reason.COOKIE]
    inverted = {"cookies": [{"name": "c", "string_match": {"exact": "1"}, "invert_match": True}]}
    assert takes(inverted)


def test_grpc() -> None:
    assert takes({"grpc": {}}, headers=(("content-type", "application/grpc+proto"),))
    assert why({"grpc": {}}, headers=(("content-type", "application/grpcx"),)) == [Reason.GRPC]


def test_chance_follows_the_random_value() -> None:
    fraction = {"default_value": {"numerator": 25, "denominator": "HUNDRED"}}
    match = {"runtime_fraction": fraction}
    assert sum(takes(match, random_value=value) for value in range(200)) == 50
    assert why(match, random_value=25) == [Reason.CHANCE]


def test_what_is_not_known_does_not_match() -> None:
    metadata = {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}}
    assert why({"dynamic_metadata": [metadata]}) == [Reason.METADATA]
    assert why({"safe_regex": {"regex": "(?=x)"}}) == [Reason.NOT_SIMULATED]
    custom = {"name": "c", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}
    header = {"name": H, "string_match": {"custom": custom}}
    assert why({"headers": [header]}, headers=((H, "v"),)) == [Reason.NOT_SIMULATED]


def test_every_failed_condition_is_told() -> None:
    match = {
        "path": "/x",
        "headers": [{"name": H, "present_match": True}],
        "query_parameters": [{"name": "q", "present_match": True}],
    }
    assert why(match) == [Reason.PATH, Reason.HEADER, Reason.QUERY]


def test_the_first_match_wins() -> None:
    """VS-04: order decides, not how specific a match is."""
    outcome = routed(route("wide"), route("narrow", {"path": "/"}))
    assert taken(outcome) == "wide"
    assert outcome.losses[-1].mismatches[0].reason is Reason.EARLIER


def test_without_a_route_it_is_404() -> None:
    outcome = routed(route("r", {"path": "/x"}))
    assert isinstance(outcome.action, LocalReply)
    assert (outcome.status, outcome.action.reason) == (404, ReplyReason.NO_ROUTE)


def canonical(path: str, **manager: object) -> Outcome:
    chain = http_chain("h", host("v", route("r", {"path": "/b"}), route("rest")), **manager)
    served = config(listener("l", "0.0.0.0", 80, chain), clusters=(cluster("r"), cluster("rest")))
    return ask(served, path=path)


@pytest.mark.parametrize("path", ["/a/../b", "/./b", "/a/%2e%2E/b", "/%62", "\\b", "/a/..\\b"])
def test_paths_are_normalised(path: str) -> None:
    if path.startswith("/"):
        assert taken(canonical(path, normalize_path=True)) == "r"
        assert taken(canonical(path)) == "rest"
    else:
        assert canonical(path).status == 400


def test_slashes() -> None:
    assert taken(canonical("//b", merge_slashes=True)) == "r"
    assert taken(canonical("//b")) == "rest"
    rejects = {"path_with_escaped_slashes_action": "REJECT_REQUEST"}
    assert canonical("/a%2fb", **rejects).status == 400
    forwards = {"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}
    assert taken(canonical("/a/..%2Fb", normalize_path=True, **forwards)) == "r"


def test_hosts_can_lose_their_port() -> None:
    for name, is_any, is_kept in (("a:80", True, False), ("a:81", True, True)):
        match = {"headers": [{"name": ":authority", "string_match": {"exact": "a"}}]}
        chain = http_chain("h", host("v", route("r", match)), strip_matching_host_port=True)
        served = config(listener("l", "0.0.0.0", 80, chain), clusters=(cluster("r"),))
        assert (taken(ask(served, host=name)) == "") is is_kept
        chain = http_chain("h", host("v", route("r", match)), strip_any_host_port=True)
        served = config(listener("l", "0.0.0.0", 80, chain), clusters=(cluster("r"),))
        assert (taken(ask(served, host=name)) == "r") is is_any
