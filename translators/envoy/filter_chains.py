"""Filter chains and listener filters: the parts that listeners of both directions are made of."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3 import address_pb2, base_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_pb2
from pilothouse._pb.envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from pilothouse._pb.envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from pilothouse._pb.envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from pilothouse._pb.envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.filters.network.mongo_proxy.v3 import mongo_proxy_pb2
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from pilothouse._pb.google.protobuf import wrappers_pb2
from pilothouse.model.names import is_pipe
from pilothouse.translators.envoy.access_logs import AccessLogging, access_log
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.tcp_policy import NO_TCP_POLICY, TcpPolicy, apply_tcp_policy

PLAINTEXT_HTTP: Final = ("http/1.1", "h2c")
"""What http_inspector calls plain HTTP (N-75)."""
HTTP_1_0: Final = "http/1.0"
RAW: Final = "raw_buffer"
CONNECT_TIMEOUT_SECONDS: Final = 15
HELLO_BYTES: Final = 512
"""How much of a client hello is read at first; Envoy would hold 64 KiB for each (LS-21)."""

TPROXY_MARK: Final = 1337
"""The mark by which a workload's routing knows the proxy's own packets."""

HTTP_FILTER: Final = "envoy.filters.network.http_connection_manager"
TCP_FILTER: Final = "envoy.filters.network.tcp_proxy"
MONGO_FILTER: Final = "envoy.filters.network.mongo_proxy"


class Match(NamedTuple):
    """What a connection must be for a chain to take it; empty parts match everything."""

    port: int = 0
    cidrs: tuple[str, ...] = ()
    sni: tuple[str, ...] = ()
    transport: str = ""
    alpn: tuple[str, ...] = ()


class WeightedCluster(NamedTuple):
    """A share of a TCP route."""

    cluster: str
    weight: int


def plaintext_http(*, accepts_http10: bool) -> Match:
    """Return the match for plain HTTP as the inspectors see it (LS-06)."""
    alpn = (*PLAINTEXT_HTTP, HTTP_1_0) if accepts_http10 else PLAINTEXT_HTTP
    return Match(transport=RAW, alpn=alpn)


def filter_chain(
    match: Match,
    network_filter: components_pb2.Filter,
    *,
    name: str = "",
    metadata: base_pb2.Metadata | None = None,
) -> components_pb2.FilterChain:
    """Build a chain of one network filter."""
    chain = components_pb2.FilterChain(name=name, filters=[network_filter])
    if match != Match():
        wanted = chain.filter_chain_match
        if match.port:
            wanted.destination_port.value = match.port
        for cidr in match.cidrs:
            network = ip_network(cidr, strict=False)
            prefix = wanted.prefix_ranges.add(address_prefix=str(network.network_address))
            prefix.prefix_len.value = network.prefixlen
        wanted.server_names.extend(name for name in match.sni if name != "*")
        wanted.transport_protocol = match.transport
        wanted.application_protocols.extend(match.alpn)
    chain.transport_socket_connect_timeout.seconds = CONNECT_TIMEOUT_SECONDS
    if metadata is not None:
        chain.metadata.CopyFrom(metadata)
    return chain


def http_filter(manager: hcm_pb2.HttpConnectionManager) -> components_pb2.Filter:
    """Wrap a connection manager as a network filter."""
    return components_pb2.Filter(name=HTTP_FILTER, typed_config=pack(manager))


def tcp_filter(
    stat_prefix: str,
    clusters: Sequence[WeightedCluster],
    policy: TcpPolicy = NO_TCP_POLICY,
    logging: AccessLogging | None = None,
) -> components_pb2.Filter:
    """Build a tcp_proxy to one cluster, or to several by weight (zero weights are left out)."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=stat_prefix)
    live = [each for each in clusters if each.weight > 0] if len(clusters) > 1 else clusters
    if len(live) == 1:
        proxy.cluster = live[0].cluster
    else:
        for each in live:
            proxy.weighted_clusters.clusters.add(name=each.cluster, weight=each.weight)
    apply_tcp_policy(proxy, policy)
    if logging is not None:
        proxy.access_log.append(access_log(logging))
    return components_pb2.Filter(name=TCP_FILTER, typed_config=pack(proxy))


def mongo_filter(stat_prefix: str) -> components_pb2.Filter:
    """Build what reads MongoDB's operations in passing, for statistics (LS-18)."""
    config = mongo_proxy_pb2.MongoProxy(stat_prefix=stat_prefix)
    return components_pb2.Filter(name=MONGO_FILTER, typed_config=pack(config))


def socket_address(address: str, port: int) -> address_pb2.Address:
    """Build an address from an IP and port, or from the path of a Unix socket."""
    if is_pipe(address):
        return address_pb2.Address(pipe=address_pb2.Pipe(path=address))
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=address, port_value=port)
    )


def bound_listener(
    name: str, address: str, port: int, more_addresses: Sequence[str] = ()
) -> listener_pb2.Listener:
    """Build an empty listener with what all of ours share (LS-02), on one address or more."""
    listener = listener_pb2.Listener(name=name, address=socket_address(address, port))
    for each in more_addresses:
        listener.additional_addresses.add(address=socket_address(each, port))
    listener.max_connections_to_accept_per_socket_event.value = 1
    listener.listener_filters_timeout.SetInParent()
    return listener


def original_destination_filter() -> components_pb2.ListenerFilter:
    """Recover the address a redirected connection was meant for."""
    return components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_dst", typed_config=_ORIGINAL_DST
    )


def original_source_filter() -> components_pb2.ListenerFilter:
    """Connect on with the client's own address, marked so that answers come back here (LS-12)."""
    return components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_src", typed_config=_ORIGINAL_SRC
    )


def tls_inspector(
    disabled_on: Sequence[int] = (), only_on: Sequence[int] = ()
) -> components_pb2.ListenerFilter:
    """Read SNI and ALPN of a TLS client hello, but not on some ports, or on a few only (LS-13)."""
    result = components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector", typed_config=_TLS_INSPECTOR
    )
    if only_on:
        result.filter_disabled.not_match.CopyFrom(_any_port(only_on))
    elif disabled_on:
        result.filter_disabled.CopyFrom(_any_port(disabled_on))
    return result


def http_inspector(disabled_on: Sequence[int] = ()) -> components_pb2.ListenerFilter:
    """Tell HTTP from other protocols by the first bytes, but not on the given ports (LS-13)."""
    result = components_pb2.ListenerFilter(
        name="envoy.filters.listener.http_inspector", typed_config=_HTTP_INSPECTOR
    )
    if disabled_on:
        result.filter_disabled.CopyFrom(_any_port(disabled_on))
    return result


def _any_port(ports: Sequence[int]) -> components_pb2.ListenerFilterChainMatchPredicate:
    rules = [_port_predicate(port) for port in sorted(ports)]
    if len(rules) == 1:
        return rules[0]
    either = components_pb2.ListenerFilterChainMatchPredicate()
    either.or_match.rules.extend(rules)
    return either


def _port_predicate(port: int) -> components_pb2.ListenerFilterChainMatchPredicate:
    predicate = components_pb2.ListenerFilterChainMatchPredicate()
    predicate.destination_port_range.start = port
    predicate.destination_port_range.end = port + 1
    return predicate


_ORIGINAL_SRC: Final = pack(original_src_pb2.OriginalSrc(mark=TPROXY_MARK))
_ORIGINAL_DST: Final = pack(original_dst_pb2.OriginalDst())
_TLS_INSPECTOR: Final = pack(
    tls_inspector_pb2.TlsInspector(
        initial_read_buffer_size=wrappers_pb2.UInt32Value(value=HELLO_BYTES)
    )
)
_HTTP_INSPECTOR: Final = pack(http_inspector_pb2.HttpInspector())
