"""Retries, faults, mirrors, cross-origin rules and affinity of a route."""

import pytest
from route_building import TO_A, build, build_one, context, from_data

from pilothouse.api.destination_rule import ConsistentHash
from pilothouse.api.virtual_service import HttpRetry

PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/"
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}
BUILT_IN = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [PREVIOUS_HOSTS],
    "host_selection_retry_max_attempts": "5",
}
BY_USER = from_data({"httpHeaderName": "x-user"}, ConsistentHash)


def retries(wanted=None, within=None):
    rule = TO_A if wanted is None else {**TO_A, "retries": wanted}
    return build_one(rule, within)["route"].get("retry_policy")


def test_built_in_retries():
    """VS-31"""
    assert retries() == BUILT_IN


def test_mesh_default_retries():
    """VS-30: MeshConfig's default stands in for a rule without retries, and only there."""
    within = context(default_retry=HttpRetry(attempts=7))
    assert retries(within=within) == {**BUILT_IN, "num_retries": 7}
    assert retries({"attempts": 1}, within) == {**BUILT_IN, "num_retries": 1}


def test_no_retries():
    """VS-30: 0 attempts remove the policy."""
    assert retries({"attempts": 0}) is None


@pytest.mark.parametrize(
    ("text", "keywords", "codes"),
    [
        ("5xx,reset", "5xx,reset", None),
        ("gateway-error, 503 ,504", "gateway-error,retriable-status-codes", [503, 504]),
        ("retriable-status-codes,429", "retriable-status-codes", [429]),
        ("503,,", "retriable-status-codes", [503]),
        ("connect-failure,42", "connect-failure,42", None),
    ],
)
def test_retry_conditions(text, keywords, codes):
    """VS-32: status codes are told apart from keywords, and looked at."""
    policy = retries({"attempts": 3, "retryOn": text})
    assert policy["retry_on"] == keywords
    assert policy.get("retriable_status_codes") == codes


def test_retry_times():
    """VS-33"""
    policy = retries({"attempts": 3, "perTryTimeout": "2s", "backoff": "25ms"})
    assert policy["per_try_timeout"] == "2s"
    assert policy["retry_back_off"] == {"base_interval": "0.025s"}


def test_retries_elsewhere():
    """VS-34, VS-35"""
    policy = retries(
        {"attempts": 3, "retryRemoteLocalities": True, "retryIgnorePreviousHosts": False}
    )
    assert "retry_host_predicate" not in policy
    assert policy["retry_priority"]["name"] == "envoy.retry_priorities.previous_priorities"
    assert policy["retry_priority"]["typed_config"]["update_frequency"] == 2


def test_retries_keep_affinity():
    """VS-31: no other host is looked for where requests are hashed to one, unless asked to."""
    within = context({"a": BY_USER})
    assert "retry_host_predicate" not in retries(within=within)
    asked = {"attempts": 2, "retryIgnorePreviousHosts": True}
    assert retries(asked, within)["retry_host_predicate"] == [PREVIOUS_HOSTS]


def fault(wanted):
    (route,), findings = build({**TO_A, "fault": wanted})
    config = route.get("typed_per_filter_config", {}).get("envoy.filters.http.fault")
    if config is not None:
        kind = config.pop("@type")
        assert kind == "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
    return config, [(each.code, each.ref.path) for each in findings]


def test_delay():
    """VS-36: to the millionth; 33.3 % is not lost in binary."""
    config, findings = fault({"delay": {"fixedDelay": "7s", "percentage": {"value": 33.3}}})
    assert config == {
        "delay": {
            "fixed_delay": "7s",
            "percentage": {"numerator": 333000, "denominator": "MILLION"},
        }
    }
    assert findings == []


def test_delay_with_whole_percent():
    """VS-36: the deprecated percent still counts."""
    config, _ = fault({"delay": {"fixedDelay": "1s", "percent": 10}})
    assert config["delay"]["percentage"] == {"numerator": 10}  # of a hundred


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"httpStatus": 503}, {"http_status": 503}),
        ({"grpcStatus": "UNAVAILABLE"}, {"grpc_status": 14}),
        ({"grpcStatus": "UNAUTHENTICATED"}, {"grpc_status": 16}),
    ],
)
def test_abort(error, expected):
    """VS-37"""
    config, findings = fault({"abort": {**error, "percentage": {"value": 100}}})
    assert config["abort"] == {
        **expected,
        "percentage": {"numerator": 1000000, "denominator": "MILLION"},
    }
    assert findings == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"delay": {"fixedDelay": "1s"}},
        {"abort": {"httpStatus": 500}},
        {"delay": {"exponentialDelay": "1s", "percentage": {"value": 1}}},
        {"abort": {"http2Error": "x", "percentage": {"value": 1}}},
    ],
)
def test_a_fault_that_never_happens(wanted):
    """VS-36, VS-37: nothing is sent; reading the object has said so."""
    assert fault(wanted) == (None, [])


def test_a_fault_turned_off():
    """VS-36, VS-37: a written 0 % needs no words."""
    off = {"percentage": {"value": 0}}
    assert fault({"delay": {"fixedDelay": "1s", **off}, "abort": {"httpStatus": 500, **off}}) == (
        None,
        [],
    )


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ({}, {"numerator": 100}),
        ({"mirrorPercentage": {"value": 0.5}}, {"numerator": 5000, "denominator": "MILLION"}),
        ({"mirrorPercent": 30}, {"numerator": 30}),
        (
            {"mirrorPercentage": {"value": 1}, "mirrorPercent": 9},
            {"numerator": 10000, "denominator": "MILLION"},
        ),
    ],
)
def test_mirror(share, expected):
    """VS-38: all requests unless told; the newer field wins."""
    (policy,) = build_one({**TO_A, "mirror": {"host": "b", "subset": "v2"}, **share})["route"][
        "request_mirror_policies"
    ]
    assert policy.pop("runtime_fraction") == {"default_value": expected}
    assert policy == {
        "cluster": "outbound|80|v2|b",
        "trace_sampled": False,
        "disable_shadow_host_suffix_append": True,
    }


@pytest.mark.parametrize("share", [{"mirrorPercentage": {"value": 0}}, {"mirrorPercent": 0}])
def test_no_mirror(share):
    """VS-38: 0 % is no mirror."""
    assert (
        "request_mirror_policies"
        not in build_one({**TO_A, "mirror": {"host": "b"}, **share})["route"]
    )


def test_several_mirrors():
    """VS-39"""
    mirrors = [
        {"destination": {"host": "b"}},
        {"destination": {"host": "c"}, "percentage": {"value": 25}},
        {"destination": {"host": "d"}, "percentage": {"value": 0}},
    ]
    policies = build_one({**TO_A, "mirrors": mirrors})["route"]["request_mirror_policies"]
    assert [
        (each["cluster"], each["runtime_fraction"]["default_value"]["numerator"])
        for each in policies
    ] == [("outbound|80||b", 100), ("outbound|80||c", 250000)]


def cors(wanted):
    config = build_one({**TO_A, "corsPolicy": wanted})["typed_per_filter_config"][
        "envoy.filters.http.cors"
    ]
    assert config.pop("@type") == (
        "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
    )
    return config


def test_cors():
    """VS-40"""
    assert cors(
        {
            "allowOrigins": [{"exact": "https://a.example"}, {"regex": "https://.*"}],
            "allowMethods": ["GET", "PUT"],
            "allowHeaders": ["x-a", "x-b"],
            "exposeHeaders": ["x-c"],
            "maxAge": "24h",
            "allowCredentials": False,
        }
    ) == {
        "allow_origin_string_match": [
            {"exact": "https://a.example"},
            {"safe_regex": {"regex": "https://.*"}},
        ],
        "allow_methods": "GET,PUT",
        "allow_headers": "x-a,x-b",
        "expose_headers": "x-c",
        "max_age": "86400",
        "allow_credentials": False,
        "filter_enabled": {"default_value": {"numerator": 100}},
        "forward_not_matching_preflights": True,
    }


def test_cors_by_the_old_field():
    """VS-40: allowOrigin counts where allowOrigins is not there."""
    assert cors({"allowOrigin": ["*"]})["allow_origin_string_match"] == [{"exact": "*"}]


@pytest.mark.parametrize(("mode", "forwards"), [("FORWARD", True), ("IGNORE", False)])
def test_cors_preflights_of_strangers(mode, forwards):
    """VS-40"""
    assert cors({"unmatchedPreflights": mode})["forward_not_matching_preflights"] is forwards


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"httpHeaderName": "x-user"}, {"header": {"header_name": "x-user"}}),
        ({"useSourceIp": True}, {"connection_properties": {"source_ip": True}}),
        ({"httpQueryParameterName": "id"}, {"query_parameter": {"name": "id"}}),
        ({"httpCookie": {"name": "u"}}, {"cookie": {"name": "u"}}),
        (
            {
                "httpCookie": {
                    "name": "u",
                    "path": "/p",
                    "ttl": "0s",
                    "attributes": [{"name": "SameSite", "value": "Lax"}],
                }
            },
            {
                "cookie": {
                    "name": "u",
                    "path": "/p",
                    "ttl": "0s",
                    "attributes": [{"name": "SameSite", "value": "Lax"}],
                }
            },
        ),
    ],
)
def test_affinity(wanted, expected):
    """DR-13, VS-41: the destination's rule decides what its routes hash."""
    within = context({"a": from_data(wanted, ConsistentHash)})
    assert build_one(TO_A, within)["route"]["hash_policy"] == [expected]


@pytest.mark.parametrize("wanted", [{}, {"useSourceIp": False}, {"maglev": {}}])
def test_no_key_no_affinity(wanted):
    """DR-13"""
    within = context({"a": from_data(wanted, ConsistentHash)})
    assert "hash_policy" not in build_one(TO_A, within)["route"]


def test_affinity_of_weighted_destinations():
    """DR-13: what several destinations hash is hashed once."""
    rule = {"route": [{"destination": {"host": host}, "weight": 1} for host in ("a", "b", "c")]}
    by_ip = from_data({"useSourceIp": True}, ConsistentHash)
    action = build_one(rule, context({"a": BY_USER, "b": BY_USER, "c": by_ip}))["route"]
    assert [next(iter(policy)) for policy in action["hash_policy"]] == [
        "header",
        "connection_properties",
    ]
