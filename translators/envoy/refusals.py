"""
What Envoy refuses though its schema's rules allow it, by message type. Pure, no I/O.

Each function returns the first problem of one message; what is within it is looked at by
`pilothouse.translators.envoy.constraints`. Kept to what our own messages can contain.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import product
from types import MappingProxyType
from typing import Any, Final

import re2

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import address_pb2, base_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_components_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from pilothouse._pb.envoy.extensions.load_balancing_policies.maglev.v3 import maglev_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from pilothouse._pb.envoy.type.matcher.v3 import regex_pb2
from pilothouse._pb.google.protobuf import duration_pb2
from pilothouse.translators.envoy.value_rules import Problem

MAX_UINT32: Final = 2**32 - 1
MAX_PROGRAM_SIZE: Final = 32768
"""Of a regular expression; the bootstrap sets it (re2.max_program_size.error_level)."""
MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a direct response; the route configuration sets it."""
MAX_SOCKET_BYTES: Final = 107
"""Of a path to a Unix socket, by the kernel."""
_MAX_DURATION_SECONDS: Final = 9_223_372_036
_BACKSLASH_DIGIT: Final = re2.compile(r"\\(.)")


def _regex(message: regex_pb2.RegexMatcher) -> Problem | None:
    text = regex_problem(message.regex)
    return Problem("regex", text) if text else None


@lru_cache(maxsize=4096)
def regex_problem(pattern: str) -> str:
    """Return what is wrong with a regular expression for Envoy; empty if nothing."""
    options = re2.Options()
    options.log_errors = False
    try:
        size = re2.compile(pattern, options).programsize
    except re2.error:
        return f"{pattern!r} is not a regular expression in RE2 syntax"
    if size > MAX_PROGRAM_SIZE:
        return f"is a regular expression of {size} instructions; {MAX_PROGRAM_SIZE} are allowed"
    return ""


def _substitution(message: regex_pb2.RegexMatchAndSubstitute) -> Problem | None:
    pattern = message.pattern.regex
    if regex_problem(pattern):
        return None  # the pattern itself is told about
    groups = re2.compile(pattern).groups
    for found in _BACKSLASH_DIGIT.findall(message.substitution):
        if found.isdigit() and int(found) > groups:
            return Problem("substitution", f"refers to group {found} of {groups}")
        if not found.isdigit() and found != "\\":
            return Problem("substitution", f"has a backslash before {found!r}")
    return None


def _duration(message: duration_pb2.Duration) -> Problem | None:
    if message.seconds < 0 or message.nanos < 0:
        return Problem("", "may not be negative")
    if message.seconds > _MAX_DURATION_SECONDS:
        return Problem("", "is longer than Envoy can count")
    return None


def _weights(
    message: route_components_pb2.WeightedCluster | tcp_proxy_pb2.TcpProxy.WeightedCluster,
) -> Problem | None:
    total = sum(_weight_of(each) for each in message.clusters)
    if total == 0:
        return Problem("clusters", "have no weight in all")
    if total > MAX_UINT32:
        return Problem("clusters", f"have more weight in all than {MAX_UINT32}")
    return None


def _weight_of(
    cluster: route_components_pb2.WeightedCluster.ClusterWeight
    | tcp_proxy_pb2.TcpProxy.WeightedCluster.ClusterWeight,
) -> int:
    weight = cluster.weight
    return weight if isinstance(weight, int) else int(weight.value)


def _route(message: route_components_pb2.Route) -> Problem | None:
    action = message.WhichOneof("action")
    if action == "route":
        chosen = message.route
        rewrites = (
            bool(chosen.prefix_rewrite)
            + chosen.HasField("regex_rewrite")
            + chosen.HasField("path_rewrite_policy")
        )
        if rewrites > 1:
            return Problem("route", "has two path rewrites")
    if action == "direct_response":
        body = message.direct_response.body
        size = max(len(body.inline_string.encode()), len(body.inline_bytes))
        if size > MAX_BODY_BYTES:
            return Problem(
                "direct_response.body", f"has {size} bytes; {MAX_BODY_BYTES} are allowed"
            )
    for name in message.request_headers_to_remove:
        if name.startswith(":") or name.lower() == "host":
            return Problem("request_headers_to_remove", f"may not name {name}")
    return None


def _header_option(message: base_pb2.HeaderValueOption) -> Problem | None:
    name = message.header.key
    if name.startswith(":") or name.lower() == "host":
        return Problem("header.key", f"may not be {name}")
    return None


def _back_off(message: route_components_pb2.RetryPolicy.RetryBackOff) -> Problem | None:
    base = message.base_interval.ToNanoseconds()
    if message.HasField("max_interval") and message.max_interval.ToNanoseconds() < base:
        return Problem("max_interval", "is shorter than the base interval")
    return None


def _virtual_host(message: route_components_pb2.VirtualHost) -> Problem | None:
    folded = [domain.lower() for domain in message.domains]
    if len(set(folded)) < len(folded):
        return Problem("domains", "has a domain twice")
    return None


def _route_configuration(message: route_pb2.RouteConfiguration) -> Problem | None:
    domains: set[str] = set()
    for host in message.virtual_hosts:
        for domain in host.domains:
            if domain.lower() in domains:
                return Problem("virtual_hosts", f"have the domain {domain} twice")
            domains.add(domain.lower())
    return None


def _cidr(message: address_pb2.CidrRange) -> Problem | None:
    if not _is_ip(message.address_prefix):
        return Problem("address_prefix", f"{message.address_prefix!r} is no IP address")
    return None


def _listener(message: listener_pb2.Listener) -> Problem | None:
    for address in (message.address, *(each.address for each in message.additional_addresses)):
        if text := _address_problem(address):
            return Problem("address", text)
    if not message.filter_chains and not message.HasField("default_filter_chain"):
        return Problem("filter_chains", "are none")
    seen: dict[tuple[Any, ...], int] = {}
    for index, chain in enumerate(message.filter_chains):
        for criteria in _criteria(chain.filter_chain_match):
            if criteria in seen:
                text = f"matches what [{seen[criteria]}] matches"
                return Problem(f"filter_chains[{index}]", text)
            seen[criteria] = index
    return None


def _criteria(match: listener_components_pb2.FilterChainMatch) -> Iterator[tuple[Any, ...]]:
    port = match.destination_port.value if match.HasField("destination_port") else None
    yield from product(
        (port,),
        _ranges(match.prefix_ranges),
        [name.lower() for name in match.server_names] or [""],
        (match.transport_protocol,),
        tuple(match.application_protocols) or ("",),
        _ranges(match.direct_source_prefix_ranges),
        (match.source_type,),
        _ranges(match.source_prefix_ranges),
        tuple(match.source_ports) or (0,),
    )


def _ranges(ranges: Iterable[address_pb2.CidrRange]) -> list[str]:
    return [_network(each.address_prefix, each.prefix_len.value) for each in ranges] or [""]


@lru_cache(maxsize=4096)
def _network(address: str, bits: int) -> str:
    try:
        return str(ip_network((address, bits), strict=False))
    except ValueError:
        return f"{address}/{bits}"  # told about where the range is looked at


def _chain_match(message: listener_components_pb2.FilterChainMatch) -> Problem | None:
    for name in message.server_names:
        if "*" in name.removeprefix("*.") and name != "*":
            return Problem("server_names", f"may not have a wildcard like {name!r}")
    return None


_BY_ADDRESS: Final = frozenset((cluster_pb2.Cluster.STATIC, cluster_pb2.Cluster.EDS))
_NAMED_IN_DNS: Final = frozenset((cluster_pb2.Cluster.STRICT_DNS, cluster_pb2.Cluster.LOGICAL_DNS))


def _cluster(message: cluster_pb2.Cluster) -> Problem | None:
    kind = message.type
    is_own = message.lb_policy == cluster_pb2.Cluster.CLUSTER_PROVIDED
    if not message.HasField("cluster_type"):
        if kind == cluster_pb2.Cluster.EDS and not message.HasField("eds_cluster_config"):
            return Problem("eds_cluster_config", "is required of an EDS cluster")
        if is_own != (kind == cluster_pb2.Cluster.ORIGINAL_DST):
            return Problem("lb_policy", "does not go with the cluster's type")
        if kind == cluster_pb2.Cluster.ORIGINAL_DST and message.HasField("load_assignment"):
            return Problem("load_assignment", "is not for clusters of the original destination")
    places = [
        each.endpoint for group in message.load_assignment.endpoints for each in group.lb_endpoints
    ]
    if kind == cluster_pb2.Cluster.LOGICAL_DNS and len(places) != 1:
        return Problem("load_assignment", "of a LOGICAL_DNS cluster needs one endpoint")
    if kind in _BY_ADDRESS:
        for place in places:
            if text := _address_problem(place.address):
                return Problem("load_assignment", text)
    return None


def _locality(message: endpoint_components_pb2.LocalityLbEndpoints) -> Problem | None:
    total = sum(max(each.load_balancing_weight.value, 1) for each in message.lb_endpoints)
    if total > MAX_UINT32:
        return Problem("lb_endpoints", f"have more weight in all than {MAX_UINT32}")
    return None


def _maglev(message: cluster_pb2.Cluster.MaglevLbConfig | maglev_pb2.Maglev) -> Problem | None:
    size = message.table_size.value if message.HasField("table_size") else 0
    if size and not _is_prime(size):
        return Problem("table_size", f"{size} is not prime")
    return None


@lru_cache(maxsize=64)
def _is_prime(number: int) -> bool:
    if number < 2:
        return False
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _ring(message: cluster_pb2.Cluster.RingHashLbConfig) -> Problem | None:
    if message.HasField("maximum_ring_size") and (
        message.minimum_ring_size.value > message.maximum_ring_size.value
    ):
        return Problem("minimum_ring_size", "is larger than the maximum")
    return None


def _upstream_tls(message: tls_pb2.UpstreamTlsContext) -> Problem | None:
    common = message.common_tls_context
    kind = common.WhichOneof("validation_context_type")
    if message.auto_sni_san_validation and kind is None:
        return Problem("auto_sni_san_validation", "needs certificates to trust")
    if kind == "validation_context" and not _trusts(common.validation_context):
        names = common.validation_context.match_typed_subject_alt_names
        if names or message.auto_sni_san_validation:
            return Problem("common_tls_context", "compares names without certificates to trust")
    return None


def _trusts(context: common_pb2.CertificateValidationContext) -> bool:
    return any(
        context.HasField(name)
        for name in ("trusted_ca", "ca_certificate_provider_instance", "system_root_certs")
    )


def _tls_parameters(message: common_pb2.TlsParameters) -> Problem | None:
    most = message.tls_maximum_protocol_version
    if most and message.tls_minimum_protocol_version > most:
        return Problem("tls_minimum_protocol_version", "is later than the maximum")
    return None


def _address_problem(address: address_pb2.Address) -> str:
    if not address.HasField("socket_address"):
        is_long = len(address.pipe.path.encode()) > MAX_SOCKET_BYTES
        return f"has a socket path of more than {MAX_SOCKET_BYTES} bytes" if is_long else ""
    text = address.socket_address.address
    if address.socket_address.resolver_name or _is_ip(text):
        return ""
    return f"{text!r} is no IP address"


@lru_cache(maxsize=8192)
def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


REFUSALS: Final[Mapping[str, Callable[[Any], Problem | None]]] = MappingProxyType(
    {
        "envoy.config.cluster.v3.Cluster": _cluster,
        "envoy.config.cluster.v3.Cluster.MaglevLbConfig": _maglev,
        "envoy.config.cluster.v3.Cluster.RingHashLbConfig": _ring,
        "envoy.config.core.v3.CidrRange": _cidr,
        "envoy.config.core.v3.HeaderValueOption": _header_option,
        "envoy.config.endpoint.v3.LocalityLbEndpoints": _locality,
        "envoy.config.listener.v3.FilterChainMatch": _chain_match,
        "envoy.config.listener.v3.Listener": _listener,
        "envoy.config.route.v3.RetryPolicy.RetryBackOff": _back_off,
        "envoy.config.route.v3.Route": _route,
        "envoy.config.route.v3.RouteConfiguration": _route_configuration,
        "envoy.config.route.v3.VirtualHost": _virtual_host,
        "envoy.config.route.v3.WeightedCluster": _weights,
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster": _weights,
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev": _maglev,
        "envoy.extensions.transport_sockets.tls.v3.TlsParameters": _tls_parameters,
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext": _upstream_tls,
        "envoy.type.matcher.v3.RegexMatchAndSubstitute": _substitution,
        "envoy.type.matcher.v3.RegexMatcher": _regex,
        "google.protobuf.Duration": _duration,
    }
)
