"""What is done with a request (VS-19 to VS-41), as data."""

from datetime import timedelta

import pytest
from served_config import (
    TYPE,
    ask,
    cluster,
    config,
    host,
    http_chain,
    listener,
    route,
    routed,
    taken,
    tcp_chain,
)

from pilothouse.graph.findings import ConfigRef
from pilothouse.simulator.actions import (
    DirectResponse,
    HashPolicy,
    HeaderAddition,
    HttpForward,
    Redirect,
    TcpForward,
)
from pilothouse.simulator.clusters import Health
from pilothouse.simulator.faults import Fault
from pilothouse.simulator.outcome import (
    Closed,
    CloseReason,
    LocalReply,
    NotSimulated,
    Outcome,
    ReplyReason,
)
from pilothouse.simulator.request import ApplicationProtocol

FAULT = {
    "name": "envoy.filters.http.fault",
    "typed_config": {"@type": f"{TYPE}.filters.http.fault.v3.HTTPFault"},
}
CORS = {
    "name": "envoy.filters.http.cors",
    "typed_config": {"@type": f"{TYPE}.filters.http.cors.v3.Cors"},
}


def forwarded(action: dict[str, object], match=None, **request: object) -> HttpForward:
    whole = {"cluster": "r", **action}
    for other in ("weighted_clusters", "cluster_header"):
        if other in action:
            del whole["cluster"]
    outcome = routed(route("r", match, route=whole), **request)
    assert isinstance(outcome.action, HttpForward), outcome.action
    return outcome.action


@pytest.mark.parametrize(
    ("match", "action", "path", "expected"),
    [
        (None, {}, "/a?b", "/a?b"),
        ({"prefix": "/api/"}, {"prefix_rewrite": "/"}, "/api/x?q=1", "/x?q=1"),
        ({"path": "/one"}, {"prefix_rewrite": "/two"}, "/one?q=1", "/two?q=1"),
        ({"safe_regex": {"regex": "/v.*"}}, {"prefix_rewrite": "/x"}, "/v1/y?q", "/x?q"),
        ({"path_separated_prefix": "/a"}, {"prefix_rewrite": "/z"}, "/a/b", "/z/b"),
        (
            None,
            {"regex_rewrite": {"pattern": {"regex": "^/v[0-9]+/(.*)$"}, "substitution": "/\\1"}},
            "/v2/x/y?q=/v3/",
            "/x/y?q=/v3/",
        ),
        (
            None,
            {"regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "\\0\\\\b"}},
            "/aa",
            "/a\\ba\\b",
        ),
    ],
)
def test_paths_are_rewritten(match, action, path: str, expected: str) -> None:
    """VS-26, VS-27."""
    assert forwarded(action, match, path=path).path == expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({}, "a:80"),
        ({"host_rewrite_literal": "b"}, "b"),
        ({"host_rewrite_header": "x-host"}, "from-header"),
        ({"host_rewrite_header": "x-none"}, "a:80"),
        (
            {
                "host_rewrite_path_regex": {
                    "pattern": {"regex": "^/(.+)/.*$"},
                    "substitution": "\\1",
                }
            },
            "x",
        ),
        ({"auto_host_rewrite": True}, None),
    ],
)
def test_hosts_are_rewritten(action, expected: str | None) -> None:
    """VS-28."""
    found = forwarded(action, host="a:80", path="/x/y", headers=(("X-Host", "from-header"),))
    assert found.chosen.host == expected


@pytest.mark.parametrize(
    ("action", "path", "location"),
    [
        ({"host_redirect": "b"}, "/x?y", "http://b/x?y"),
        ({"path_redirect": "/new"}, "/x?y=1", "http://a:8080/new?y=1"),
        ({"path_redirect": "/new?z=2"}, "/x?y=1", "http://a:8080/new?z=2"),
        ({"path_redirect": "new", "strip_query": True}, "/x?y=1", "http://a:8080/new"),
        ({"prefix_rewrite": "/z"}, "/x?y", "http://a:8080/zx?y"),
        ({"https_redirect": True}, "/", "https://a:8080/"),
        ({"scheme_redirect": "https", "port_redirect": 443}, "/", "https://a:443/"),
        ({"port_redirect": 9}, "/", "http://a:9/"),
        ({"host_redirect": "b", "port_redirect": 9}, "/", "http://b:9/"),
    ],
)
def test_redirects(action, path: str, location: str) -> None:
    """VS-23."""
    outcome = routed(route("r", redirect=action), path=path, host="a:8080")
    assert isinstance(outcome.action, Redirect)
    assert (outcome.action.location, outcome.status) == (location, 301)


@pytest.mark.parametrize(
    ("code", "status"),
    [("FOUND", 302), ("SEE_OTHER", 303), ("TEMPORARY_REDIRECT", 307), ("PERMANENT_REDIRECT", 308)],
)
def test_redirect_codes(code: str, status: int) -> None:
    assert routed(route("r", redirect={"response_code": code})).status == status


def test_a_default_port_goes_when_the_scheme_changes() -> None:
    outcome = routed(route("r", redirect={"https_redirect": True}), host="a:80")
    assert isinstance(outcome.action, Redirect)
    assert outcome.action.location == "https://a/"


def test_direct_responses() -> None:
    """VS-24."""
    answer = {"status": 418, "body": {"inline_string": "short"}}
    outcome = routed(route("r", direct_response=answer))
    assert isinstance(outcome.action, DirectResponse)
    assert (outcome.status, outcome.action.body) == (418, b"short")


def test_weights_are_shares() -> None:
    """VS-19, VS-20: a cluster of weight zero gets nothing."""
    weights = [{"name": "r", "weight": 3}, {"name": "s", "weight": 1}, {"name": "t", "weight": 0}]
    action = {"weighted_clusters": {"clusters": weights}}
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("x", route=action)))),
        clusters=(cluster("r"), cluster("s"), cluster("t")),
    )
    chosen = []
    for value in range(8):
        outcome = ask(served, random_value=value)
        assert isinstance(outcome.action, HttpForward)
        assert {each.cluster: each.share for each in outcome.action.shares} == {
            "r": 0.75,
            "s": 0.25,
        }
        chosen.append(outcome.action.chosen.cluster)
    assert chosen == ["r", "r", "r", "s"] * 2


def test_a_header_can_name_the_cluster() -> None:
    assert forwarded({"cluster_header": "x-c"}, headers=(("x-c", "r"),)).chosen.cluster == "r"
    outcome = routed(route("r", route={"cluster_header": "x-c"}))
    assert isinstance(outcome.action, LocalReply)
    assert outcome.action.reason is ReplyReason.CLUSTER_NOT_FOUND


@pytest.mark.parametrize(
    ("code", "status"),
    [("SERVICE_UNAVAILABLE", 503), ("NOT_FOUND", 404), ("INTERNAL_SERVER_ERROR", 500)],
)
def test_a_missing_cluster(code: str, status: int) -> None:
    action = {"cluster": "gone", "cluster_not_found_response_code": code}
    outcome = routed(route("r", route=action))
    assert isinstance(outcome.action, LocalReply)
    assert (outcome.status, outcome.action.cluster) == (status, "gone")


def test_timeouts() -> None:
    """VS-30: none said is Envoy's 15 s, zero is no limit."""
    assert forwarded({}).timeout == timedelta(seconds=15)
    assert forwarded({"timeout": "0s"}).timeout is None
    assert forwarded({"timeout": "1.5s"}).timeout == timedelta(seconds=1.5)


def test_retries_mirrors_and_hashing_are_data() -> None:
    """VS-31, VS-38, VS-41."""
    found = forwarded(
        {
            "retry_policy": {
                "retry_on": "5xx,reset",
                "num_retries": 3,
                "per_try_timeout": "2s",
                "retriable_status_codes": [503],
                "retry_back_off": {"base_interval": "0.1s"},
            },
            "request_mirror_policies": [
                {
                    "cluster": "r",
                    "runtime_fraction": {"default_value": {"numerator": 10}},
                }
            ],
            "hash_policy": [
                {"header": {"header_name": "x-user"}, "terminal": True},
                {"connection_properties": {"source_ip": True}},
            ],
        }
    )
    assert found.retries is not None
    assert found.retries.retry_on == ("5xx", "reset")
    assert (found.retries.count, found.retries.statuses) == (3, (503,))
    assert found.retries.per_try_timeout == timedelta(seconds=2)
    assert found.retries.max_interval == timedelta(seconds=1)
    assert [(each.cluster, each.share) for each in found.mirrors] == [("r", 0.1)]
    assert found.hash_policies == (
        HashPolicy(kind="header", name="x-user", is_terminal=True),
        HashPolicy(kind="connection_properties", name="", is_terminal=False),
    )


def test_the_virtual_hosts_retries_apply_where_the_route_has_none() -> None:
    policy = {"retry_on": "reset"}
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("r"), retry_policy=policy))),
        clusters=(cluster("r"),),
    )
    action = ask(served).action
    assert isinstance(action, HttpForward)
    assert action.retries is not None
    assert (action.retries.retry_on, action.retries.count) == (("reset",), 1)


def test_header_operations_in_the_order_they_are_made() -> None:
    """VS-21, VS-22: the most specific level first."""

    def add(name: str) -> dict[str, object]:
        return {"request_headers_to_add": [{"header": {"key": "x", "value": name}}]}

    weights = [{"name": "r", "weight": 1, **add("weight")}]
    one = route("r", route={"weighted_clusters": {"clusters": weights}}, **add("route"))
    one["response_headers_to_remove"] = ["y"]
    hosts = [host("v", one, **add("host"))]
    for wins, expected in (
        (False, ["weight", "route", "host", "config"]),
        (True, ["config", "host", "route", "weight"]),
    ):
        inline = {
            "virtual_hosts": hosts,
            "most_specific_header_mutations_wins": wins,
            **add("config"),
        }
        served = config(
            listener("l", "0.0.0.0", 80, http_chain("h", route_config=inline)),
            clusters=(cluster("r"),),
        )
        action = ask(served).action
        assert isinstance(action, HttpForward)
        operations = action.chosen.headers
        assert [each.value for each in operations.request_add] == expected
        assert operations.response_remove == ("y",)
    assert operations.request_add[0] == HeaderAddition(
        name="x", value="config", action="append_if_exists_or_add"
    )


def faulty(fault: dict[str, object], **request: object) -> Outcome:
    own = {"@type": f"{TYPE}.filters.http.fault.v3.HTTPFault", **fault}
    one = route("r", typed_per_filter_config={FAULT["name"]: own})
    return routed(one, filters=(FAULT,), **request)


def percent(numerator: int) -> dict[str, object]:
    return {"numerator": numerator, "denominator": "HUNDRED"}


def test_faults() -> None:
    """VS-36, VS-37."""
    abort = {"http_status": 555, "percentage": percent(50)}
    delay = {"fixed_delay": "2s", "percentage": percent(10)}
    outcome = faulty({"abort": abort, "delay": delay})
    assert outcome.fault == Fault(
        delay=timedelta(seconds=2), delay_share=0.1, status=555, abort_share=0.5
    )
    assert outcome.clusters == ("r",)
    always = faulty({"abort": {"http_status": 555, "percentage": percent(100)}})
    assert isinstance(always.action, LocalReply)
    assert (always.status, always.action.reason) == (555, ReplyReason.FAULT)
    grpc = faulty({"abort": {"grpc_status": 14, "percentage": percent(100)}})
    assert grpc.status == 200
    assert grpc.fault is not None
    assert grpc.fault.grpc_status == 14


def test_faults_for_some_requests_only() -> None:
    abort = {"http_status": 555, "percentage": percent(100)}
    asked = {"abort": abort, "headers": [{"name": "x-f", "present_match": True}]}
    assert faulty(asked).fault is None
    assert faulty(asked, headers=(("x-f", "1"),)).status == 555
    assert faulty({"abort": abort, "upstream_cluster": "other"}).fault is None


@pytest.mark.parametrize(
    ("request_parts", "status"),
    [
        ({"method": "OPTIONS", "origin": "https://good.example", "asks": True}, 200),
        ({"method": "OPTIONS", "origin": "https://bad.example", "asks": True}, None),
        ({"method": "OPTIONS", "origin": "https://good.example", "asks": False}, None),
        ({"method": "GET", "origin": "https://good.example", "asks": True}, None),
        ({"method": "OPTIONS", "origin": "", "asks": True}, None),
    ],
)
def test_cors_preflights(request_parts: dict[str, object], status: int | None) -> None:
    """VS-40."""
    own = {
        "@type": f"{TYPE}.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": "https://good.example"}],
    }
    headers = [("origin", request_parts["origin"])] if request_parts["origin"] else []
    headers += [("access-control-request-method", "PUT")] if request_parts["asks"] else []
    outcome = routed(
        route("r", typed_per_filter_config={CORS["name"]: own}),
        filters=(CORS,),
        method=request_parts["method"],
        headers=tuple(headers),
    )
    assert outcome.status == status


def test_upgrades_need_leave() -> None:
    asked = (("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"))
    assert routed(route("r"), headers=asked).status == 403
    action = {"cluster": "r", "upgrade_configs": [{"upgrade_type": "websocket"}]}
    assert routed(route("r", route=action), headers=asked).clusters == ("r",)
    assert routed(route("r"), headers=(("upgrade", "websocket"),)).clusters == ("r",)


def test_what_is_not_http() -> None:
    outcome = routed(route("r"), protocol=ApplicationProtocol.TCP)
    assert isinstance(outcome.action, Closed)
    assert outcome.action.reason is CloseReason.NOT_HTTP
    old = ApplicationProtocol.HTTP_1_0
    assert routed(route("r"), protocol=old).status == 426
    assert routed(route("r"), host="").status == 400


def test_tcp() -> None:
    """VS-47: shares of connections."""
    weighted = {
        "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t",
        "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]},
    }
    chain = tcp_chain("t")
    chain["filters"][0]["typed_config"] = weighted
    served = config(listener("l", "0.0.0.0", 80, chain), clusters=(cluster("a"), cluster("b")))
    outcome = ask(served, protocol=ApplicationProtocol.TCP, random_value=1)
    assert isinstance(outcome.action, TcpForward)
    assert [each.share for each in outcome.action.shares] == [0.25, 0.75]
    assert outcome.action.chosen.cluster == "b"
    missing = ask(config(listener("l", "0.0.0.0", 80)))
    assert isinstance(missing.action, Closed)
    assert missing.action.reason is CloseReason.CLUSTER_NOT_FOUND


def test_endpoints_in_reach() -> None:
    """CL-01: by priority, with health, weight and locality."""

    def endpoint(ip: str, **more: object) -> dict[str, object]:
        place = {"socket_address": {"address": ip, "port_value": 8080}}
        return {"endpoint": {"address": place}, **more}

    assignment = {
        "cluster_name": "eds-name",
        "endpoints": [
            {"priority": 1, "lb_endpoints": [endpoint("10.1.0.3")]},
            {
                "locality": {"region": "r", "zone": "z"},
                "lb_endpoints": [
                    endpoint("10.1.0.1", load_balancing_weight=5),
                    endpoint("10.1.0.2", health_status="UNHEALTHY"),
                ],
            },
        ],
    }
    eds = {"name": "c", "type": "EDS", "eds_cluster_config": {"service_name": "eds-name"}}
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("c")))),
        clusters=(eds,),
        endpoints=(assignment,),
    )
    action = ask(served).action
    assert isinstance(action, HttpForward)
    reach = action.chosen.reach
    assert [(each.address, each.priority, each.health) for each in reach.endpoints] == [
        ("10.1.0.1:8080", 0, Health.HEALTHY),
        ("10.1.0.2:8080", 0, Health.UNHEALTHY),
        ("10.1.0.3:8080", 1, Health.HEALTHY),
    ]
    assert [each.address for each in reach.preferred] == ["10.1.0.1:8080"]
    assert (reach.endpoints[0].weight, reach.endpoints[0].locality) == (5, "r/z")
    assert reach.is_reachable


def test_an_empty_cluster_is_503() -> None:
    eds = {"name": "c", "type": "EDS"}
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("c")))), clusters=(eds,)
    )
    outcome = ask(served)
    assert outcome.status == 503
    assert outcome.clusters == ("c",)


def test_passthrough_goes_where_the_client_wanted() -> None:
    original = {"name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    served = config(listener("c", "0.0.0.0", 80), clusters=(original,))
    action = ask(served, address="10.0.0.3").action
    assert isinstance(action, TcpForward)
    assert [each.address for each in action.chosen.reach.endpoints] == ["10.0.0.3:80"]


def test_the_objects_behind_are_named() -> None:
    source = {"kind": "VirtualService", "object": "ns/vs", "field": "spec.http[0]"}
    ours = {"filter_metadata": {"pilothouse": {"sources": [source]}}}
    path = "/apis/networking.istio.io/v1/namespaces/ns/virtual-service/vs"
    istio = {"filter_metadata": {"istio": {"config": path}}}
    outcome = routed(route("r", {"path": "/x"}, metadata=istio), route("s", metadata=ours))
    assert outcome.route is not None
    assert outcome.route.made_by == (ConfigRef("VirtualService", "ns", "vs", "spec.http[0]"),)
    assert outcome.losses[-1].made_by == (ConfigRef("VirtualService", "ns", "vs"),)


def test_what_cannot_be_told_is_said() -> None:
    other = {
        "name": "lua",
        "typed_config": {"@type": f"{TYPE}.filters.http.lua.v3.Lua"},
    }
    outcome = routed(route("r"), filters=(other,))
    assert outcome.notes == ("The HTTP filter lua is not simulated.",)
    assert taken(outcome) == "r"
    assert isinstance(routed(route("r", filter_action={})).action, NotSimulated)
    rds = {"route_config_name": "none", "config_source": {"ads": {}}}
    waiting = ask(config(listener("l", "0.0.0.0", 80, http_chain("h", rds=rds))))
    assert isinstance(waiting.action, NotSimulated)
