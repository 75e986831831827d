"""Which requests a rule takes."""

import pytest
from route_building import TO_A, build, build_one, context, virtual_service

from pilothouse.translators.envoy.routes import (
    depends_on_source,
    reads_source_namespace,
    source_label_keys,
)


def matched(**conditions):
    return build_one({"match": [conditions], **TO_A})["match"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ({"exact": "/login"}, {"path": "/login"}),
        ({"prefix": "/api"}, {"prefix": "/api"}),
        ({"regex": "/v[0-9]+/.*"}, {"safe_regex": {"regex": "/v[0-9]+/.*"}}),
        ({"prefix": ""}, {"prefix": "/"}),
        ({"regex": "*"}, {"prefix": "/"}),
        ({"regex": ""}, {"path": ""}),
        ({}, {"prefix": "/"}),
    ],
)
def test_path(uri, expected):
    """VS-06: exact, prefix and regex; what Envoy would refuse is said in another way."""
    assert matched(uri=uri) == expected


def test_path_without_case():
    """VS-07"""
    assert matched(uri={"exact": "/Login"}, ignoreUriCase=True) == {
        "path": "/Login",
        "case_sensitive": False,
    }


def test_headers_are_matched_in_order_of_name():
    """VS-08: an empty match and the regex * ask for presence."""
    headers = matched(
        headers={
            "x-d": {"regex": "*"},
            "x-b": {"prefix": "v"},
            "x-c": {},
            "x-a": {"exact": "jason"},
            "x-e": {"regex": "a|b"},
            "x-f": {"prefix": ""},
        }
    )["headers"]
    assert headers == [
        {"name": "x-a", "string_match": {"exact": "jason"}},
        {"name": "x-b", "string_match": {"prefix": "v"}},
        {"name": "x-c", "present_match": True},
        {"name": "x-d", "present_match": True},
        {"name": "x-e", "string_match": {"safe_regex": {"regex": "a|b"}}},
        {"name": "x-f", "present_match": True},
    ]


def test_without_headers():
    """VS-09: a missing header counts as empty, except where presence is what is asked."""
    headers = matched(withoutHeaders={"x-value": {"exact": "1"}, "x-any": {}})["headers"]
    assert headers == [
        {"name": "x-any", "present_match": True, "invert_match": True},
        {
            "name": "x-value",
            "string_match": {"exact": "1"},
            "invert_match": True,
            "treat_missing_header_as_empty": True,
        },
    ]


def test_pseudo_headers():
    """VS-10: method, scheme and authority are headers to Envoy."""
    headers = matched(
        method={"exact": "GET"}, scheme={"exact": "https"}, authority={"prefix": "www."}
    )["headers"]
    assert {each["name"]: each["string_match"] for each in headers} == {
        ":method": {"exact": "GET"},
        ":scheme": {"exact": "https"},
        ":authority": {"prefix": "www."},
    }


def test_query_parameters():
    """VS-11"""
    parameters = matched(queryParams={"q": {"exact": "1"}, "debug": {}, "a": {"regex": "b+"}})
    assert parameters["query_parameters"] == [
        {"name": "a", "string_match": {"safe_regex": {"regex": "b+"}}},
        {"name": "debug", "present_match": True},
        {"name": "q", "string_match": {"exact": "1"}},
    ]


def test_a_claim_is_never_taken_for_a_header():
    """VS-12: an entry on claims matches nothing yet, in particular not by their absence."""
    routes, (finding,) = build(
        {"match": [{"withoutHeaders": {"@request.auth.claims.group": {"exact": "x"}}}], **TO_A}
    )
    assert routes == []
    assert (finding.code, finding.ref.path) == ("ClaimMatchNotTranslated", "spec.http[0].match[0]")


@pytest.mark.parametrize(("port", "count"), [(80, 1), (8080, 0)])
def test_port(port, count):
    """VS-13: an entry for another port is not there at all."""
    assert len(build({"match": [{"port": port}], **TO_A})[0]) == count


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ({"sourceLabels": {"app": "web"}}, 1),
        ({"sourceLabels": {"app": "web", "version": "v1"}}, 0),
        ({"sourceNamespace": "default"}, 1),
        ({"sourceNamespace": "other"}, 0),
        ({"gateways": ["default/edge"]}, 0),
        ({"gateways": ["default/edge", "mesh"]}, 1),
        ({"gateways": ["mesh"], "sourceNamespace": "other"}, 1),
    ],
)
def test_client(conditions, count):
    """VS-14, VS-15: gateways, if given, are asked instead of the client's labels."""
    assert len(build({"match": [conditions], **TO_A})[0]) == count


def test_what_is_read_of_the_client():
    """VS-15: labels asked behind gateways are never read, so they split no proxies."""
    vs = virtual_service(
        {"match": [{"sourceLabels": {"app": "web"}}, {"sourceLabels": {"tier": "x"}}], **TO_A},
        {"match": [{"gateways": ["mesh"], "sourceLabels": {"unread": "x"}}], **TO_A},
    )
    assert source_label_keys(vs) == {"app", "tier"}
    assert depends_on_source(vs)
    assert not reads_source_namespace(vs)
    indifferent = virtual_service({"match": [{"uri": {"prefix": "/a"}}], **TO_A}, TO_A)
    assert not depends_on_source(indifferent)
    assert reads_source_namespace(virtual_service({"match": [{"sourceNamespace": "a"}], **TO_A}))


def test_an_entry_is_a_route():
    """VS-05, VS-18, N-51, VS-16: one route per entry in order, named by rule and entry."""
    routes, _ = build(
        {
            "name": "canary",
            "match": [{"name": "x", "uri": {"prefix": "/x"}}, {"uri": {"exact": "/y"}}],
            **TO_A,
        },
        TO_A,
    )
    assert [route.get("name") for route in routes] == ["canary.x", "canary", None]
    assert [route["match"] for route in routes] == [
        {"prefix": "/x"},
        {"path": "/y"},
        {"prefix": "/"},
    ]
    assert {route["route"]["cluster"] for route in routes} == {"outbound|80||a"}


def test_stat_prefix():
    """N-53: only from the match."""
    route = build_one({"match": [{"statPrefix": "checkout"}], **TO_A})
    assert route["stat_prefix"] == "checkout"


@pytest.mark.parametrize(
    "catch_all",
    [
        {},
        {"match": [{"uri": {"prefix": "/"}}]},
        {"match": [{"uri": {"regex": ".*"}}]},
        {"match": [{"uri": {"regex": "*"}}]},
    ],
)
def test_nothing_follows_a_catch_all(catch_all):
    """VS-04: later rules are not sent, and it is said that they are dead."""
    routes, (finding,) = build(
        {**catch_all, **TO_A}, {"match": [{"uri": {"prefix": "/late"}}], **TO_A}
    )
    assert len(routes) == 1
    assert (finding.code, finding.ref.path) == ("UnreachableRule", "spec.http[1].match[0]")


@pytest.mark.parametrize(
    "condition",
    [
        {"method": {"exact": "GET"}},
        {"headers": {"x": {}}},
        {"withoutHeaders": {"x": {}}},
        {"queryParams": {"x": {}}},
        {"uri": {"exact": "/"}},
    ],
)
def test_a_condition_is_no_catch_all(condition):
    """VS-04"""
    routes, findings = build({"match": [condition], **TO_A}, TO_A)
    assert (len(routes), findings) == (2, [])


def test_what_one_client_never_reaches_another_may():
    """VS-04, VS-15: a catch-all for some clients ends their routes; the rest is not dead."""
    rules = ({"match": [{"sourceLabels": {"app": "web"}}], **TO_A}, {"name": "rest", **TO_A})
    routes, findings = build(*rules)
    assert (len(routes), findings) == (1, [])
    routes, findings = build(*rules, within=context(source_labels={}))
    assert [route["name"] for route in routes] == ["rest"]
    assert findings == []
