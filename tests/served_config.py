"""
Served config as Envoy's own JSON, and the simulator's answers for it.

For tests that care about one rule: what they do not say gets the simplest value that works.
"""

from typing import Any

from google.protobuf import json_format

from pilothouse._pb._pool import POOL, message_class
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.simulator.outcome import Outcome
from pilothouse.simulator.request import Request
from pilothouse.simulator.served import ServedConfig
from pilothouse.simulator.simulate import simulate

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy.extensions"
HCM = f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER: Json = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
}
TLS_INSPECTOR: Json = {
    "name": "tls",
    "typed_config": {"@type": f"{TYPE}.filters.listener.tls_inspector.v3.TlsInspector"},
}
HTTP_INSPECTOR: Json = {
    "name": "http",
    "typed_config": {"@type": f"{TYPE}.filters.listener.http_inspector.v3.HttpInspector"},
}
ORIGINAL_DST: Json = {
    "name": "original_dst",
    "typed_config": {"@type": f"{TYPE}.filters.listener.original_dst.v3.OriginalDst"},
}


def encoded(type_url: str, data: Json) -> tuple[str, bytes]:
    """Return a resource as type URL and bytes."""
    message = message_class(type_url.rpartition("/")[2])()
    json_format.ParseDict(data, message, descriptor_pool=POOL)
    return type_url, message.SerializeToString()


def config(
    *listeners: Json,
    routes: tuple[Json, ...] = (),
    clusters: tuple[Json, ...] = (),
    endpoints: tuple[Json, ...] = (),
) -> ServedConfig:
    """Return what a proxy would know."""
    kinds = ((LDS, listeners), (RDS, routes), (CDS, clusters), (EDS, endpoints))
    return ServedConfig.decode(encoded(url, each) for url, items in kinds for each in items)


def address(ip: str, port: int, **more: Any) -> Json:
    return {"socket_address": {"address": ip, "port_value": port, **more}}


def listener(name: str, ip: str, port: int, *chains: Json, **more: Any) -> Json:
    """Return a listener; without chains it has a TCP one that names it."""
    return {
        "name": name,
        "address": address(ip, port),
        "filter_chains": list(chains) or [tcp_chain(name)],
        **more,
    }


def chain(name: str, network_filter: Json, **match: Any) -> Json:
    return {"name": name, "filters": [network_filter], "filter_chain_match": match}


def tcp_chain(name: str, **match: Any) -> Json:
    """Return a chain to the cluster of the same name."""
    proxy = {
        "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
    }
    return chain(name, {"name": "tcp", "typed_config": proxy}, **match)


def http_chain(name: str, *hosts: Json, filters: tuple[Json, ...] = (), **manager: Any) -> Json:
    """Return a chain with inline routes."""
    whole = {
        "@type": HCM,
        "stat_prefix": name,
        "http_filters": [*filters, ROUTER],
        **manager,
    }
    if "rds" not in manager and "route_config" not in manager:
        whole["route_config"] = {"name": "inline", "virtual_hosts": list(hosts)}
    return chain(name, {"name": "http", "typed_config": whole})


def host(name: str, *routes: Json, domains: tuple[str, ...] = ("*",), **more: Any) -> Json:
    return {"name": name, "domains": list(domains), "routes": list(routes), **more}


def route(name: str, match: Json | None = None, **more: Any) -> Json:
    """Return a route to the cluster of the same name, unless `more` says what else it does."""
    whole: Json = {"name": name, "match": {"prefix": "/", **(match or {})}, **more}
    if match and {"path", "safe_regex", "path_separated_prefix", "connect_matcher"} & set(match):
        del whole["match"]["prefix"]
    if not {"route", "redirect", "direct_response", "filter_action"} & set(more):
        whole["route"] = {"cluster": name}
    return whole


def cluster(name: str, **more: Any) -> Json:
    """Return a static cluster of one endpoint."""
    endpoint = {"endpoint": {"address": address("10.9.9.9", 80)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }


def ask(served: ServedConfig, **request: Any) -> Outcome:
    """Simulate a request to 10.0.0.1:80."""
    return simulate(served, Request(**{"address": "10.0.0.1", "port": 80, "host": "a", **request}))


def routed(*routes: Json, filters: tuple[Json, ...] = (), **request: Any) -> Outcome:
    """Simulate an HTTP request through these routes, whose clusters all exist."""
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", *routes), filters=filters)),
        clusters=tuple(cluster(name) for name in {each["name"] for each in routes}),
    )
    return ask(served, **request)


def taken(outcome: Outcome) -> str:
    """Return the name of the route taken; empty without one."""
    return outcome.route.name if outcome.route else ""
