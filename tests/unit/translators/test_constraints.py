"""What Envoy would refuse is found in the message, at the right place, and not encoded."""

import pytest

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.core.v3.address_pb2 import CidrRange
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import (
    RetryPolicy,
    Route,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsParameters
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from pilothouse._pb.envoy.type.matcher.v3.regex_pb2 import RegexMatchAndSubstitute, RegexMatcher
from pilothouse._pb.google.protobuf.duration_pb2 import Duration
from pilothouse.graph.findings import ConfigRef, Severity, Withheld
from pilothouse.model.provenance import Source
from pilothouse.translators.envoy.constraints import violation
from pilothouse.translators.envoy.encoding import CODE, encode, pack
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.refusals import MAX_BODY_BYTES


def cluster(**fields):
    made = Cluster(name="a", type=Cluster.STATIC, **fields)
    made.connect_timeout.seconds = 1
    return made


def host(*routes, domains=("a",)):
    return VirtualHost(name="h", domains=domains, routes=routes)


def route(prefix="/", **fields):
    made = Route(match=RouteMatch(prefix=prefix), **fields)
    if made.WhichOneof("action") is None:
        made.route.cluster = "a"
    return made


def listener(*chains):
    made = Listener(name="l")
    made.address.socket_address.address = "10.0.0.1"
    made.address.socket_address.port_value = 80
    for chain in chains:
        chain(made.filter_chains.add())
    return made


def sni(*names):
    def fill(chain):
        chain.filter_chain_match.server_names.extend(names)
        chain.filters.add(name="x")

    return fill


def to_port(number):
    def fill(chain):
        chain.filter_chain_match.destination_port.value = number
        chain.filters.add(name="x")

    return fill


def weights(*numbers):
    made = WeightedCluster()
    for number in numbers:
        made.clusters.add(name="a").weight.value = number
    return made


def redirect_with_header(name):
    made = route()
    made.request_headers_to_add.add().header.key = name
    return made


def tls(*, trusts):
    made = UpstreamTlsContext(auto_sni_san_validation=True)
    made.common_tls_context.validation_context.SetInParent()
    if trusts:
        made.common_tls_context.validation_context.trusted_ca.inline_string = "x"
    return made


def over_tls(*, trusts):
    made = cluster()
    made.transport_socket.name = "tls"
    made.transport_socket.typed_config.CopyFrom(pack(tls(trusts=trusts)))
    return made


def at(address):
    made = cluster()
    endpoint = made.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    made.load_assignment.cluster_name = "a"
    endpoint.address.socket_address.address = address
    endpoint.address.socket_address.port_value = 80
    return made


FINE = [
    cluster(),
    at("10.0.0.1"),
    at("2001:db8::1"),
    host(route()),
    route(direct_response={"status": 200}),
    weights(0, 1),
    listener(sni("a"), sni("b", "*.b")),
    listener(to_port(1), to_port(2)),
    RegexMatcher(regex="a{1,3}(b|c)"),
    RegexMatchAndSubstitute(pattern={"regex": "(a)"}, substitution=r"\1\0\\"),
    Duration(seconds=5),
    over_tls(trusts=True),
]


@pytest.mark.parametrize("message", FINE, ids=lambda each: each.DESCRIPTOR.name)
def test_what_envoy_takes_is_encoded(message) -> None:
    assert violation(message) is None
    assert encode(message) == message.SerializeToString(deterministic=True)


REFUSED = [
    (Cluster(), "name", "empty"),
    (Cluster(name="a", connect_timeout={"seconds": 0}), "connect_timeout", "more than 0s"),
    (Cluster(name="a", connect_timeout={"seconds": -1}), "connect_timeout", "more than 0s"),
    (Cluster(name="a", lb_policy=77), "lb_policy", "may not be 77"),
    (Cluster(name="a", type=Cluster.EDS), "eds_cluster_config", "required"),
    (Cluster(name="a", type=Cluster.ORIGINAL_DST), "lb_policy", "type"),
    (Cluster(name="a", type=Cluster.LOGICAL_DNS), "load_assignment", "one endpoint"),
    (at("nowhere.example"), "load_assignment", "no IP address"),
    (at(""), "load_assignment", "no IP address"),
    (cluster(maglev_lb_config={"table_size": {"value": 10}}), "maglev_lb_config", "not prime"),
    (cluster(maglev_lb_config={"table_size": {"value": 6000011}}), "maglev_lb_config", "at most"),
    (host(route(), domains=()), "domains", "at least 1"),
    (host(route(), domains=("a", "A")), "domains", "twice"),
    (host(route(), domains=("a\nb",)), "domains[0]", "header"),
    (host(route(), Route(route={"cluster": "a"})), "routes[1].match", "required"),
    (
        host(Route(match=RouteMatch(), route={"cluster": "a"})),
        "routes[0].match.path_specifier",
        "required",
    ),
    (host(Route(match=RouteMatch(prefix="/"))), "routes[0].action", "required"),
    (
        Route(match=RouteMatch(path_separated_prefix="/a/"), route={"cluster": "a"}),
        "match.path_separated_prefix",
        "must match",
    ),
    (host(redirect_with_header("")), "routes[0].request_headers_to_add[0].header.key", "empty"),
    (host(redirect_with_header("a b\n")), "routes[0].request_headers_to_add[0]", "header name"),
    (host(redirect_with_header(":path")), "routes[0].request_headers_to_add[0]", "may not be"),
    (route(request_headers_to_remove=["Host"]), "request_headers_to_remove", "Host"),
    (route(direct_response={"status": 700}), "direct_response.status", "less than 600"),
    (
        route(direct_response={"status": 200, "body": {"inline_string": "x" * MAX_BODY_BYTES}}),
        None,
        "",
    ),
    (
        route(direct_response={"status": 200, "body": {"inline_string": "é" * MAX_BODY_BYTES}}),
        "direct_response.body",
        "allowed",
    ),
    (
        route(route={"cluster": "a", "prefix_rewrite": "/", "regex_rewrite": {"substitution": ""}}),
        "route",
        "",
    ),
    (weights(0, 0), "clusters", "no weight"),
    (weights(2**32 - 1, 2**32 - 1), "clusters", "more weight"),
    (WeightedCluster(), "clusters", "at least 1"),
    (TcpProxy(stat_prefix="a"), "cluster_specifier", "required"),
    (TcpProxy(cluster="a"), "stat_prefix", "empty"),
    (listener(), "filter_chains", "none"),
    (listener(sni("a"), sni("b", "A")), "filter_chains[1]", "[0]"),
    (listener(to_port(1), to_port(1)), "filter_chains[1]", "[0]"),
    (listener(sni("a*")), "filter_chains[0].filter_chain_match", "wildcard"),
    (CidrRange(address_prefix="10.0.0"), "address_prefix", "no IP address"),
    (CidrRange(address_prefix="10.0.0.0", prefix_len={"value": 129}), "prefix_len", "at most"),
    (RegexMatcher(regex="(?=a)"), "regex", "RE2"),
    (RegexMatcher(regex="((a{100}){100}){10}"), "regex", ""),
    (RegexMatcher(regex="([a-z]{1,900}[0-9]{1,90}){1,1}"), None, ""),
    (
        RegexMatchAndSubstitute(pattern={"regex": "(a)"}, substitution=r"\2"),
        "substitution",
        "group 2",
    ),
    (Duration(seconds=-1), "", "negative"),
    (Duration(seconds=10**10), "", "longer"),
    (
        RetryPolicy(
            retry_back_off={"base_interval": {"seconds": 2}, "max_interval": {"seconds": 1}}
        ),
        "retry_back_off.max_interval",
        "shorter",
    ),
    (
        TlsParameters(
            tls_minimum_protocol_version=TlsParameters.TLSv1_3,
            tls_maximum_protocol_version=TlsParameters.TLSv1_2,
        ),
        "tls_minimum_protocol_version",
        "later",
    ),
    (over_tls(trusts=False), "transport_socket.typed_config", "trust"),
    (ClusterLoadAssignment(), "cluster_name", "empty"),
    (
        ClusterLoadAssignment(
            cluster_name="a",
            endpoints=[{"lb_endpoints": [{"load_balancing_weight": {"value": 0}}]}],
        ),
        "endpoints[0].lb_endpoints[0].load_balancing_weight",
        "at least 1",
    ),
    (
        RouteConfiguration(name="r", virtual_hosts=[host(route()), host(route())]),
        "virtual_hosts",
        "domain a twice",
    ),
]


@pytest.mark.parametrize(("message", "path", "text"), REFUSED)
def test_what_envoy_refuses_is_found_where_it_is(message, path, text) -> None:
    found = violation(message)
    if path is None:
        assert found is None
        return
    assert found is not None
    assert found.path.startswith(path)
    assert text in found.text
    with pytest.raises(Withheld):
        encode(message)


def test_the_innermost_object_is_named() -> None:
    """A route's VirtualService and field, rather than what the whole virtual host is for."""
    source = Source(
        ConfigRef("VirtualService", "shop", "cart"), "networking.istio.io/v1", generation=""
    )
    bad = route(metadata=metadata((source.at("spec.http[1]"),)))
    bad.match.headers.add()

    with pytest.raises(Withheld) as raised:
        encode(host(route(), bad))

    finding = raised.value.finding
    assert finding.ref == ConfigRef("VirtualService", "shop", "cart", "spec.http[1]")
    assert (finding.severity, finding.code) == (Severity.ERROR, CODE)
    assert "VirtualHost h: routes[1].match.headers[0].name may not be empty" in finding.message
    assert finding.remedy


def test_without_an_object_the_resource_is_named() -> None:
    with pytest.raises(Withheld) as raised:
        encode(Cluster(name="c", lb_policy=77))
    assert raised.value.finding.ref == ConfigRef("Cluster", "", "c")
