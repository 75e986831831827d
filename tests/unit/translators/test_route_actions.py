"""What is done with a request that matched."""

import pytest
from route_building import TO_A, build, build_one, context

A = {"destination": {"host": "a"}}
B = {"destination": {"host": "b", "subset": "v2", "port": {"number": 8080}}}


def test_one_destination():
    """VS-19, VS-20, VS-29: a cluster by name, its weight ignored, and no time limit."""
    route = build_one({"route": [{**B, "weight": 7}]})
    action = route["route"]
    assert action["cluster"] == "outbound|8080|v2|b"
    assert "weighted_clusters" not in action
    assert action["timeout"] == "0s"
    assert action["max_grpc_timeout"] == "0s"
    assert "max_stream_duration" not in action


def test_weights():
    """VS-20: of several destinations those without weight get nothing and are left out."""
    clusters = build_one({"route": [{**A, "weight": 90}, {**B, "weight": 10}, A]})["route"][
        "weighted_clusters"
    ]["clusters"]
    assert clusters == [
        {"name": "outbound|80||a", "weight": 90},
        {"name": "outbound|8080|v2|b", "weight": 10},
    ]


def test_one_live_destination_of_several():
    """VS-20: with a single live destination there is no choice to describe."""
    assert (
        build_one({"route": [{**A, "weight": 0}, {**B, "weight": 100}]})["route"]["cluster"]
        == "outbound|8080|v2|b"
    )


@pytest.mark.parametrize("rule", [{}, {"route": [A, B]}])
def test_no_destination(rule):
    """VS-20: nobody to send to is said, and answered as a missing cluster would be."""
    (route,), (finding,) = build(rule)
    assert route["direct_response"] == {"status": 503}
    assert (finding.code, finding.ref.path) == ("NoDestination", "spec.http[0].route")


def test_timeout():
    """VS-29: a gRPC client cannot ask for more."""
    action = build_one({**TO_A, "timeout": "1.5s"})["route"]
    assert action["timeout"] == "1.500s"
    assert action["max_grpc_timeout"] == "1.500s"
    assert "max_stream_duration" not in action  # Envoy would ignore the timeout


def test_headers_of_a_rule():
    """VS-22: what is set overwrites, what is added appends, in order of name."""
    route = build_one(
        {
            **TO_A,
            "headers": {
                "request": {
                    "set": {"x-b": "1", "x-a": "2"},
                    "add": {"x-c": "3"},
                    "remove": ["x-d"],
                },
                "response": {"set": {"y-a": "1"}, "add": {"y-b": "2"}, "remove": ["y-c"]},
            },
        }
    )
    overwrite = "OVERWRITE_IF_EXISTS_OR_ADD"
    assert route["request_headers_to_add"] == [
        {"header": {"key": "x-a", "value": "2"}, "append_action": overwrite},
        {"header": {"key": "x-b", "value": "1"}, "append_action": overwrite},
        {"header": {"key": "x-c", "value": "3"}},  # the enum's zero value is to append
    ]
    assert route["request_headers_to_remove"] == ["x-d"]
    assert route["response_headers_to_add"] == [
        {"header": {"key": "y-a", "value": "1"}, "append_action": overwrite},
        {"header": {"key": "y-b", "value": "2"}},
    ]
    assert route["response_headers_to_remove"] == ["y-c"]


def test_headers_of_a_single_destination_follow_the_rules():
    """VS-21"""
    headers = [{"request": {"add": {name: "1"}, "remove": [f"no-{name}"]}} for name in ("r", "d")]
    route = build_one({"headers": headers[0], "route": [{**A, "headers": headers[1]}]})
    assert [each["header"]["key"] for each in route["request_headers_to_add"]] == ["r", "d"]
    assert route["request_headers_to_remove"] == ["no-r", "no-d"]


def test_headers_of_a_weighted_destination_stay_with_it():
    """VS-21"""
    headers = {"response": {"set": {"x-from": "b"}}, "request": {"set": {"host": "b.example"}}}
    route = build_one({"route": [{**A, "weight": 1}, {**B, "weight": 1, "headers": headers}]})
    first, second = route["route"]["weighted_clusters"]["clusters"]
    assert "response_headers_to_add" not in route
    assert "response_headers_to_add" not in first
    assert second["response_headers_to_add"][0]["header"] == {"key": "x-from", "value": "b"}
    assert second["host_rewrite_literal"] == "b.example"


@pytest.mark.parametrize(
    ("rewrite", "rule", "destination", "expected"),
    [
        ("by-rewrite", "by-rule", "by-destination", "by-rewrite"),
        (None, "by-rule", "by-destination", "by-rule"),
        (None, None, "by-destination", "by-destination"),
    ],
)
def test_who_sets_the_authority(rewrite, rule, destination, expected):
    """VS-22, VS-27: rewrite before rule before destination; host and :authority are the same."""
    action = build_one(
        {
            **({"rewrite": {"authority": rewrite}} if rewrite else {}),
            **({"headers": {"request": {"set": {":authority": rule}}}} if rule else {}),
            "route": [{**A, "headers": {"request": {"add": {"Host": destination}}}}],
        }
    )
    assert action["route"]["host_rewrite_literal"] == expected
    assert "request_headers_to_add" not in action


def test_headers_that_envoy_does_not_change():
    """VS-22: pseudo headers are dropped, and that is said."""
    (route,), findings = build(
        {
            **TO_A,
            "headers": {
                "request": {"set": {":path": "/"}, "remove": ["Host"]},
                "response": {"add": {":status": "200"}},
            },
        }
    )
    assert not {name for name in route if "headers" in name}
    assert {(each.code, each.ref.path) for each in findings} == {
        ("HeaderNotChangeable", "spec.http[0].headers.request.set"),
        ("HeaderNotChangeable", "spec.http[0].headers.request.remove"),
        ("HeaderNotChangeable", "spec.http[0].headers.response.add"),
    }


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "100%%",
        "%PROTOCOL%",
        "a%%b%PROTOCOL%",
        "%REQ(x-a?:path):3%",
        "%START_TIME(%Y-%m-%d)%",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "%METADATA(ROUTE:istio:config)%",
    ],
)
def test_header_values_that_envoy_fills_in(value):
    """VS-22: as written."""
    route = build_one({**TO_A, "headers": {"request": {"set": {"x-a": value}}}})
    assert route["request_headers_to_add"][0]["header"]["value"] == value


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("100%", "100%%"),
        ("%", "%%"),
        ("%%%", "%%%%"),
        ("50% of %PROTOCOL%", "50%% of %PROTOCOL%"),
        ("%NO_SUCH%", "%%NO_SUCH%%"),
        ("%REQ%", "%%REQ%%"),
        ("%REQ(x", "%%REQ(x"),
        ("%REQ(a b)%", "%%REQ(a b)%%"),
        ("%PROTOCOL:3%", "%%PROTOCOL:3%%"),
        ("%METADATA(X:y)%", "%%METADATA(X:y)%%"),
    ],
)
def test_header_values_that_envoy_would_refuse(value, sent):
    """VS-22: one stray percent sign would cost the proxy all its routes; it is sent as such."""
    (route,), (finding,) = build({**TO_A, "headers": {"request": {"set": {"x-a": value}}}})
    assert route["request_headers_to_add"][0]["header"]["value"] == sent
    assert (finding.code, finding.ref.path) == (
        "HeaderFormatUnknown",
        "spec.http[0].headers.request.set",
    )


@pytest.mark.parametrize("uri", [{"prefix": "/old"}, {"exact": "/old"}, {"regex": "/old.*"}])
def test_rewrite_of_the_path(uri):
    """VS-26: Envoy's prefix_rewrite replaces what matched, a prefix or the whole path."""
    action = build_one({"match": [{"uri": uri}], "rewrite": {"uri": "/new"}, **TO_A})["route"]
    assert action["prefix_rewrite"] == "/new"
    assert "regex_rewrite" not in action


def test_rewrite_by_regex():
    """VS-28"""
    action = build_one(
        {"rewrite": {"uriRegexRewrite": {"match": "/v1/(.*)", "rewrite": r"/v2/\1"}}, **TO_A}
    )["route"]
    assert action["regex_rewrite"] == {
        "pattern": {"regex": "/v1/(.*)"},
        "substitution": r"/v2/\1",
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"uri": "/new"}, {"path_redirect": "/new"}),
        ({"prefixRewrite": "/new"}, {"prefix_rewrite": "/new"}),
        ({"authority": "b.example"}, {"host_redirect": "b.example"}),
        ({"scheme": "https"}, {"scheme_redirect": "https"}),
        ({"port": 8443}, {"port_redirect": 8443}),
        ({"port": 80}, {}),
        ({"port": 443}, {"port_redirect": 443}),
        ({"port": 443, "scheme": "https"}, {"scheme_redirect": "https"}),
        ({"port": 80, "scheme": "https"}, {"scheme_redirect": "https", "port_redirect": 80}),
        ({"derivePort": "FROM_PROTOCOL_DEFAULT"}, {}),
        ({"redirectCode": 301}, {}),
        ({"redirectCode": 302}, {"response_code": "FOUND"}),
        ({"redirectCode": 303}, {"response_code": "SEE_OTHER"}),
        ({"redirectCode": 307}, {"response_code": "TEMPORARY_REDIRECT"}),
        ({"redirectCode": 308}, {"response_code": "PERMANENT_REDIRECT"}),
    ],
)
def test_redirect(wanted, expected):
    """VS-23"""
    route = build_one({"redirect": wanted})
    assert route["redirect"] == expected
    assert "route" not in route


@pytest.mark.parametrize(("listener_port", "expected"), [(80, {}), (8080, {"port_redirect": 8080})])
def test_redirect_to_the_port_asked(listener_port, expected):
    """VS-23: FROM_REQUEST_PORT is the listener's, left out where the scheme implies it."""
    rule = {"redirect": {"derivePort": "FROM_REQUEST_PORT"}}
    assert build_one(rule, context(listener_port=listener_port))["redirect"] == expected


def test_redirect_with_another_code():
    """VS-23: falls back to 301, and that is said."""
    (route,), (finding,) = build({"redirect": {"uri": "/", "redirectCode": 305}})
    assert route["redirect"] == {"path_redirect": "/"}
    assert finding.code == "RedirectCodeNotSupported"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"string": "busy"}, {"inline_string": "busy"}),
        ({"bytes": "AAEC"}, {"inline_bytes": "AAEC"}),
    ],
)
def test_direct_response(body, expected):
    """VS-24"""
    route = build_one({"directResponse": {"status": 418, "body": body}})
    assert route["direct_response"] == {"status": 418, "body": expected}


@pytest.mark.parametrize(
    ("rule", "operation"),
    [
        ({"route": [B]}, "b:8080/*"),
        ({"match": [{"uri": {"exact": "/x"}}], "route": [B]}, "b:8080/x"),
        ({"match": [{"uri": {"prefix": "/x"}}], "route": [B]}, "b:8080/x*"),
        ({"match": [{"uri": {"regex": "/x+"}}], "route": [B]}, "b:8080/x+"),
        ({"route": [{**A, "weight": 1}, {**B, "weight": 1}]}, "reviews:80/*"),
        ({"redirect": {"uri": "/"}}, "reviews:80/*"),
    ],
)
def test_operation(rule, operation):
    """N-52: the span names the one cluster's host and port, else the VirtualService."""
    assert build_one(rule)["decorator"] == {"operation": operation}


def test_metadata_names_the_rule():
    """N-69"""
    routes, _ = build({"match": [{"method": {"exact": "GET"}}], **TO_A}, TO_A)
    assert [route["metadata"]["filter_metadata"]["pilothouse"]["field"] for route in routes] == [
        "spec.http[0]",
        "spec.http[1]",
    ]
