"""
Requests made for a config: aimed at its listeners, hosts and routes, and often a little beside.

Seeded, so that a failure can be repeated. What a request is aimed at is no expectation: what it
meets is for the simulator and for Envoy to say.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import re2

from pilothouse._pb.envoy.config.core.v3.base_pb2 import INBOUND
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.http.cors.v3.cors_pb2 import CorsPolicy
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from pilothouse.simulator.request import ApplicationProtocol, Direction, Request, TlsHello
from pilothouse.simulator.served import ServedConfig, unpacked

TEXTS = (
    "v1", "v12", "123", "abc", "1", "on", "true", "curl/8", "a", "", "x",
    "https://shop.example", "https://a.example.com", "jason", "http://localhost",
)  # fmt: skip
PATHS = (
    "/", "/v1/books/2", "/items/abc", "/api/v2/x", "/status/200", "/a/../b", "/%61pi/./x",
    "/productpage", "/v1", "/new", "/x.html", "/A", "//double",
)  # fmt: skip
ALPNS = ((), ("h2", "http/1.1"), ("http/1.1",), ("istio", "h2"))
MESH_ALPNS = (
    ("istio-http/1.1", "istio", "http/1.1"), ("istio-h2", "istio", "h2"), ("istio",),
    ("istio-peer-exchange", "istio"), ("istio-http/1.0",), ("http/1.1", "istio-h2"),
)  # fmt: skip
FIRST_SOURCE_PORT = 20000


@dataclass(frozen=True)
class Ground:
    """Where requests start: the address outbound ones come from, and inbound ones go to."""

    own_address: str
    peer_address: str


@dataclass(frozen=True)
class _Place:
    address: str
    port: int
    direction: Direction
    is_captured: bool


def probes(served: ServedConfig, ground: Ground, count: int, seed: int = 1) -> Iterator[Request]:
    """Yield `count` requests; each has a source port of its own."""
    chance = Random(seed)
    places = list(_places(served, ground))
    routes = [*served.route_configurations.values(), *_inline_routes(served)]
    names = _server_names(served)
    ends_tls = any(
        chain.HasField("transport_socket")
        for listener in served.listeners
        for chain in listener.filter_chains
    )
    tls_share, alpns = (0.6, (*ALPNS, *MESH_ALPNS)) if ends_tls else (0.12, ALPNS)
    for number in range(count):
        place = chance.choice(places)
        kind = chance.choices([*ApplicationProtocol], weights=[2, 70, 15, 13])[0]
        parts = _http_parts(routes, place, chance) if kind.is_http else {}
        tls = None
        if chance.random() < tls_share:
            alpn = chance.choice(alpns)
            tls = TlsHello(server_name=_varied(chance.choice(names), chance), alpn=alpn)
        is_inbound = place.direction is Direction.INBOUND
        source = ground.peer_address if is_inbound else ground.own_address
        yield Request(
            address=place.address,
            port=place.port,
            direction=place.direction,
            is_captured=place.is_captured,
            protocol=kind,
            tls=tls,
            source_address=source if place.is_captured else "127.0.0.1",
            source_port=FIRST_SOURCE_PORT + number,
            random_value=chance.randrange(1_000_000),
            **parts,
        )


def _places(served: ServedConfig, ground: Ground) -> Iterator[_Place]:
    captures = [each for each in served.listeners if each.use_original_dst.value]
    for listener in served.listeners:
        address = listener.address.socket_address
        is_bound = not listener.HasField("bind_to_port") or listener.bind_to_port.value
        is_inbound = listener.traffic_direction == INBOUND
        if ":" in address.address or not address.address or listener in captures:
            continue
        if not captures:
            if is_bound:
                direction = Direction.INBOUND if is_inbound else Direction.OUTBOUND
                yield _Place(address.address, address.port_value, direction, False)
            continue
        if is_inbound:
            for port in {*_chain_ports(listener), 9999} - {address.port_value}:
                yield _Place(ground.own_address, port, Direction.INBOUND, True)
            continue
        is_wildcard = address.address == "0.0.0.0"
        targets = ("10.96.0.77", *_ranges(listener)) if is_wildcard else (address.address,)
        for target in targets:
            yield _Place(target, address.port_value, Direction.OUTBOUND, True)
        yield _Place("10.96.0.78", address.port_value, Direction.OUTBOUND, True)
    if captures:
        yield _Place("10.96.0.79", 9999, Direction.OUTBOUND, True)


def _chain_ports(listener: Listener) -> set[int]:
    matches = (chain.filter_chain_match for chain in listener.filter_chains)
    return {each.destination_port.value for each in matches if each.HasField("destination_port")}


def _ranges(listener: Listener) -> list[str]:
    return [
        f"{each.address_prefix.rpartition('.')[0]}.3"
        for chain in listener.filter_chains
        for each in chain.filter_chain_match.prefix_ranges
        if ":" not in each.address_prefix
    ]


def _server_names(served: ServedConfig) -> list[str]:
    found = ["", "unknown.example", "x.b.example"]
    for listener in served.listeners:
        for chain in listener.filter_chains:
            found += [name.replace("*", "any") for name in chain.filter_chain_match.server_names]
    return found


def _inline_routes(served: ServedConfig) -> Iterator[RouteConfiguration]:
    for listener in served.listeners:
        for chain in listener.filter_chains:
            for each in chain.filters:
                manager = unpacked(each.typed_config, hcm_pb2.HttpConnectionManager)
                if manager is not None and manager.HasField("route_config"):
                    yield manager.route_config


def _http_parts(
    configurations: list[RouteConfiguration], place: _Place, chance: Random
) -> dict[str, object]:
    near = [each for each in configurations if each.name.rpartition(":")[2] == str(place.port)]
    pool = near if near and chance.random() < 0.9 else configurations
    hosts = [host for each in pool for host in each.virtual_hosts]
    if not hosts:
        return {"host": "plain.example"}
    # Hosts with many routes deserve more requests.
    host = chance.choices(hosts, weights=[len(each.routes) for each in hosts])[0]
    route = chance.choice(host.routes)
    name = _varied(_host_of(host, chance), chance)
    if chance.random() < 0.2:
        name = f"{name}:{chance.choice((place.port, 80, 1234))}"
    headers: dict[str, str] = {}
    method = chance.choice(("GET", "GET", "POST", "OPTIONS"))
    for matcher in route.match.headers:
        kind = matcher.WhichOneof("header_match_specifier")
        value = _text(matcher.string_match, chance) if kind == "string_match" else _any(chance)
        wants = not matcher.invert_match and chance.random() < 0.93
        if matcher.name == ":method":
            method = value if wants and value.isalpha() else method
        elif matcher.name in {":authority", "host"}:
            name = value or name if wants and kind == "string_match" and value != ":" else name
        elif not matcher.name.startswith(":") and (wants or chance.random() < 0.2):
            headers[matcher.name] = value
    _preflight(route, headers, chance)
    path = _varied_path(_path_of(route, chance), chance)
    pairs = [
        f"{each.name}={_text(each.string_match, chance)}"
        for each in route.match.query_parameters
        if chance.random() < 0.9
    ]
    if chance.random() < 0.15:
        pairs.append("more=1")
    return {
        "host": name or "unknown.example",
        "method": method,
        "path": path + ("?" + "&".join(pairs) if pairs else ""),
        "headers": tuple(headers.items()),
    }


def _preflight(route: Route, headers: dict[str, str], chance: Random) -> None:
    for packed in route.typed_per_filter_config.values():
        policy = unpacked(packed, CorsPolicy)
        if policy is not None and policy.allow_origin_string_match and chance.random() < 0.8:
            origin = _text(chance.choice(policy.allow_origin_string_match), chance)
            headers["origin"] = origin or "https://other.example"
            if chance.random() < 0.8:
                headers["access-control-request-method"] = "PUT"


def _host_of(host: VirtualHost, chance: Random) -> str:
    return chance.choice(host.domains).replace("*", chance.choice(("any", "a.b", "")))


def _path_of(route: Route, chance: Random) -> str:
    match = route.match
    kind = match.WhichOneof("path_specifier")
    if kind == "safe_regex":
        fitting = [each for each in PATHS if re2.fullmatch(match.safe_regex.regex, each)]
        return chance.choice(fitting or PATHS)
    if kind == "path":
        return match.path if match.path.startswith("/") else "/"
    if kind == "prefix" and match.prefix != "/":
        return match.prefix + chance.choice(("", "", "/x", "x", "/a/b"))
    return chance.choice(PATHS)


def _text(wanted: StringMatcher, chance: Random) -> str:
    kind = wanted.WhichOneof("match_pattern")
    if kind == "safe_regex":
        fitting = [each for each in TEXTS if re2.fullmatch(wanted.safe_regex.regex, each)]
        return chance.choice(fitting or TEXTS)
    if kind in {None, "custom"}:
        return chance.choice(TEXTS)
    value = str(getattr(wanted, kind))
    return {"prefix": f"{value}x", "suffix": f"x{value}"}.get(kind, value)


def _any(chance: Random) -> str:
    return chance.choice(TEXTS)


def _varied(name: str, chance: Random) -> str:
    point = chance.random()
    if point < 0.1:
        return name.upper()
    if point < 0.15:
        return f"other-{name}" if name else "other"
    if point < 0.18:
        return "nobody.example"
    return name


def _varied_path(path: str, chance: Random) -> str:
    point = chance.random()
    if point < 0.08:
        return path + "/"
    if point < 0.14:
        return path.upper()
    if point < 0.2:
        return chance.choice(PATHS)
    return path
