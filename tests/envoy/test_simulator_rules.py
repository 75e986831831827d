"""
The simulator and a real Envoy agree on rules that our own config uses rarely or never.

Every kind of matcher, rewrite and redirect in one virtual host after another, and listeners with
random sets of filter chains.
"""

from random import Random
from typing import Any

import isolation
import pytest
from comparison import disagreements
from served_config import (
    HTTP_INSPECTOR,
    TLS_INSPECTOR,
    cluster,
    config,
    host,
    http_chain,
    listener,
    route,
    tcp_chain,
)

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
]
COUNT = 800

Json = dict[str, Any]

CAPTURE = listener("out", "0.0.0.0", 15001, traffic_direction="OUTBOUND", use_original_dst=True)
UNBOUND: Json = {"bind_to_port": False, "traffic_direction": "OUTBOUND"}
DOMAINS = (
    ("*",), ("a.b.example",), ("*.example", "bare"), ("*.b.example",), ("*-b.example",),
    ("a.*",), ("ported:80",), ("UPPER.example.org",), ("pre.fix.*", "pre.*"),
)  # fmt: skip


def regex(pattern: str, substitution: str) -> Json:
    return {"pattern": {"regex": pattern}, "substitution": substitution}


HEADERS: tuple[Json, ...] = (
    {"name": "x-a", "string_match": {"exact": "v1"}},
    {"name": "x-a", "string_match": {"exact": "ABC", "ignore_case": True}},
    {"name": "x-a", "string_match": {"prefix": "v"}},
    {"name": "x-a", "string_match": {"suffix": "3"}},
    {"name": "x-a", "string_match": {"contains": "r"}},
    {"name": "x-a", "string_match": {"safe_regex": {"regex": "v[0-9]"}}},
    {"name": "x-a", "range_match": {"start": 1, "end": 124}},
    {"name": "x-a", "present_match": True},
    {"name": "x-a", "present_match": False},
    {"name": "x-a", "present_match": True, "invert_match": True},
    {"name": "x-b", "string_match": {"exact": "on"}, "invert_match": True},
    {
        "name": "x-b",
        "string_match": {"exact": "on"},
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    },
    {"name": "x-b", "string_match": {"exact": ""}, "treat_missing_header_as_empty": True},
    {"name": "x-b", "present_match": True, "treat_missing_header_as_empty": True},
    {"name": ":method", "string_match": {"exact": "POST"}},
    {"name": ":scheme", "string_match": {"exact": "http"}},
    {"name": "host", "string_match": {"contains": ":"}},
    {"name": ":path", "string_match": {"contains": "?"}},
    {"name": "x-forwarded-proto", "string_match": {"exact": "http"}},
)
PATHS: tuple[Json, ...] = (
    {"prefix": "/a"},
    {"prefix": "/A", "case_sensitive": False},
    {"path": "/new"},
    {"path": "/NEW", "case_sensitive": False},
    {"path_separated_prefix": "/v1"},
    {"path_separated_prefix": "/API", "case_sensitive": False},
    {"safe_regex": {"regex": "/(v1|items)/[a-z]+(/[0-9])?"}},
    {"safe_regex": {"regex": ".*"}},
    {"prefix": "/"},
    {"prefix": "/"},
)
QUERIES: tuple[Json, ...] = (
    {"name": "more", "string_match": {"exact": "1"}},
    {"name": "more", "present_match": True},
    {"name": "q", "string_match": {"safe_regex": {"regex": "[a-z0-9]*"}}},
)
ACTIONS: tuple[Json, ...] = (
    *({"route": {"cluster": "c"}},) * 4,
    {"route": {"cluster": "missing", "cluster_not_found_response_code": "NOT_FOUND"}},
    {"route": {"cluster_header": "x-a"}},
    {
        "route": {
            "weighted_clusters": {
                "clusters": [
                    {"name": "c", "weight": 1, "host_rewrite_literal": "weighted.example"},
                    {"name": "d", "weight": 3},
                ]
            }
        }
    },
    {"route": {"cluster": "c", "prefix_rewrite": "/p"}},
    {"route": {"cluster": "c", "regex_rewrite": regex("/([a-z0-9]+)", "/<\\1\\0>")}},
    {"route": {"cluster": "c", "regex_rewrite": regex("a*", "-")}},
    {"route": {"cluster": "c", "host_rewrite_literal": "literal.example"}},
    {"route": {"cluster": "c", "host_rewrite_header": "x-a"}},
    {"route": {"cluster": "c", "host_rewrite_path_regex": regex("^/([a-z]+).*$", "\\1")}},
    {"redirect": {"host_redirect": "h.example"}},
    {"redirect": {"path_redirect": "/p"}},
    {"redirect": {"path_redirect": "/p?x=1", "strip_query": True}},
    {"redirect": {"path_redirect": "p", "strip_query": True, "response_code": "FOUND"}},
    {"redirect": {"prefix_rewrite": "/p", "response_code": "SEE_OTHER"}},
    {"redirect": {"regex_rewrite": regex("[0-9]", "n"), "response_code": "TEMPORARY_REDIRECT"}},
    {"redirect": {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}},
    {"redirect": {"scheme_redirect": "https", "port_redirect": 444}},
    {"redirect": {"port_redirect": 81}},
    {"direct_response": {"status": 418}},
)


def random_routes(chance: Random) -> list[Json]:
    routes = []
    for number in range(chance.randint(4, 12)):
        match = dict(chance.choice(PATHS))
        if chance.random() < 0.6:
            match["headers"] = chance.sample(HEADERS, chance.choice((1, 1, 2)))
        if chance.random() < 0.25:
            match["query_parameters"] = [chance.choice(QUERIES)]
        routes.append(route(str(number), match, **chance.choice(ACTIONS)))
    return routes


@pytest.mark.parametrize("seed", range(4))
async def test_hosts_and_routes(seed: int) -> None:
    chance = Random(seed)
    hosts = [
        host(f"v{index}", *random_routes(chance), domains=domains)
        for index, domains in enumerate(DOMAINS)
    ]
    if seed % 2:
        hosts[1]["require_tls"] = "ALL"
    routes = {"name": "80", "virtual_hosts": hosts, "ignore_port_in_host_matching": seed > 1}
    rds = {"route_config_name": "80", "config_source": {"ads": {}}}
    manager: Json = {"normalize_path": True, "merge_slashes": seed % 2 == 0}
    if seed == 3:
        manager["strip_any_host_port"] = True
    chain = http_chain("h", rds=rds, **manager)
    served = config(
        CAPTURE,
        listener("web", "0.0.0.0", 80, chain, **UNBOUND),
        routes=(routes,),
        clusters=(cluster("out"), cluster("c"), cluster("d")),
    )
    different = await disagreements(served, COUNT, seed)
    assert not different, f"{len(different)} differences\n" + "\n".join(different[:5])


def random_match(chance: Random, port: int) -> Json:
    match: Json = {}
    if chance.random() < 0.2:
        match["destination_port"] = chance.choice((port, port, 1))
    if chance.random() < 0.3:
        prefix, length = chance.choice((("10.0.0.0", 8), ("10.96.0.0", 24), ("10.96.0.77", 32)))
        match["prefix_ranges"] = [{"address_prefix": prefix, "prefix_len": length}]
    if chance.random() < 0.4:
        match["server_names"] = [
            chance.choice(("a.b.example", "*.b.example", "*.example", "Mixed.example"))
        ]
    if chance.random() < 0.4:
        match["transport_protocol"] = chance.choice(("tls", "raw_buffer"))
    if chance.random() < 0.4:
        match["application_protocols"] = [chance.choice(("h2", "http/1.1", "h2c", "istio"))]
    if chance.random() < 0.15:
        match["source_type"] = chance.choice(("EXTERNAL", "SAME_IP_OR_LOOPBACK"))
    if chance.random() < 0.15:
        match["source_prefix_ranges"] = [
            {"address_prefix": "10.1.0.0", "prefix_len": chance.choice((16, 24))}
        ]
    return match


def random_listener(chance: Random, port: int) -> Json:
    matches = {repr(m): m for m in (random_match(chance, port) for _ in range(6))}
    chains = [tcp_chain(f"c{n}", **match) for n, match in enumerate(matches.values())]
    inspectors = chance.choice(
        ([TLS_INSPECTOR, HTTP_INSPECTOR], [TLS_INSPECTOR], [HTTP_INSPECTOR], [])
    )
    more: Json = {"listener_filters": inspectors}
    if chance.random() < 0.5:
        more["default_filter_chain"] = tcp_chain("rest")
    return listener(f"l{port}", "0.0.0.0", port, *chains, **UNBOUND, **more)


@pytest.mark.parametrize("seed", range(2))
async def test_filter_chains(seed: int) -> None:
    chance = Random(seed)
    listeners = [random_listener(chance, port) for port in range(7000, 7060)]
    names = ["out", "rest", *(f"c{n}" for n in range(6))]
    served = config(CAPTURE, *listeners, clusters=tuple(cluster(each) for each in names))
    different = await disagreements(served, COUNT, seed)
    assert not different, f"{len(different)} differences\n" + "\n".join(different[:5])
