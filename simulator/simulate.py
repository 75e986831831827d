"""
The walk of a request through one proxy's config: listener, filter chain, then HTTP or TCP.

Pure: the same bytes and request give the same answer. Decides by Envoy's published rules only, and
says where it cannot (`NotSimulated`, notes) instead of guessing.
"""

from dataclasses import replace
from typing import Final

from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import FilterChain
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from pilothouse.simulator.actions import ClusterShare, TcpForward, at_random_value
from pilothouse.simulator.clusters import reach
from pilothouse.simulator.filter_chains import choose_filter_chain
from pilothouse.simulator.http_walk import walk_http
from pilothouse.simulator.inspection import inspect, negotiated
from pilothouse.simulator.listeners import choose_listener
from pilothouse.simulator.outcome import Action, Closed, CloseReason, NotSimulated, Outcome
from pilothouse.simulator.request import Request
from pilothouse.simulator.served import ServedConfig, type_name, unpacked

CERTIFICATE_ASSUMED: Final = (
    "The chain wants a certificate of the client; that it has one is assumed."
)
_NETWORK_FILTERS: Final = "envoy.extensions.filters.network."
_PASSIVE: Final = frozenset(
    {
        f"{_NETWORK_FILTERS}mongo_proxy.v3.MongoProxy",
        f"{_NETWORK_FILTERS}sni_dynamic_forward_proxy.v3.FilterConfig",
    }
)
"""Network filters that change neither whether nor where a connection goes."""


def simulate(served: ServedConfig, request: Request) -> Outcome:
    """Return the way of `request` through the proxy that was served `served`."""
    listening = choose_listener(served.listeners, request)
    if listening.listener is None:
        text = f"No listener is for {request.address} port {request.port}."
        closed = Closed(reason=CloseReason.NO_LISTENER, text=text)
        return Outcome(action=closed, losses=listening.losses)
    reached = Outcome(
        action=NotSimulated(text="A filter chain matcher tree is not simulated."),
        listener=listening.taken,
        losses=listening.losses,
    )
    if listening.listener.HasField("filter_chain_matcher"):
        return reached
    connection = inspect(listening.listener, request)
    chosen = choose_filter_chain(listening.listener, connection)
    reached = replace(
        reached,
        filter_chain=chosen.taken,
        losses=reached.losses + chosen.losses,
        notes=connection.notes,
    )
    if chosen.chain is None:
        text = "No filter chain takes the connection, and there is no default one."
        return replace(reached, action=Closed(reason=CloseReason.NO_FILTER_CHAIN, text=text))
    return _through(served, request, chosen.chain, reached)


def _through(
    served: ServedConfig, request: Request, chain: FilterChain, reached: Outcome
) -> Outcome:
    """Follow the network filters of a chain to the one that ends it."""
    server = unpacked(chain.transport_socket.typed_config, DownstreamTlsContext)
    ends_tls = server is not None
    notes = reached.notes
    agreed = ""
    if server is not None:
        if request.tls is None:
            text = "The chain wants TLS, and the client speaks plain text."
            return replace(reached, action=Closed(reason=CloseReason.NOT_TLS, text=text))
        agreed = negotiated(server, request.tls.alpn)
        if server.require_client_certificate.value:
            notes += (CERTIFICATE_ASSUMED,)
    for network_filter in chain.filters:
        packed = network_filter.typed_config
        manager = unpacked(packed, hcm_pb2.HttpConnectionManager)
        if manager is not None:
            if request.tls is not None and not ends_tls:
                text = "The chain wants plain HTTP, and the client speaks TLS."
                closed = Closed(reason=CloseReason.NOT_HTTP, text=text)
                return replace(reached, action=closed, notes=notes)
            found = walk_http(served, manager, request, is_tls=ends_tls, agreed=agreed)
            return replace(
                found,
                listener=reached.listener,
                filter_chain=reached.filter_chain,
                losses=reached.losses + found.losses,
                notes=notes + found.notes,
            )
        proxy = unpacked(packed, TcpProxy)
        if proxy is not None:
            return replace(reached, action=_tcp(served, request, proxy), notes=notes)
        if type_name(packed) not in _PASSIVE:
            notes += (f"The network filter {network_filter.name} is not simulated.",)
    action = NotSimulated(text="The chain ends in a filter that is not simulated.")
    return replace(reached, action=action, notes=notes)


def _tcp(served: ServedConfig, request: Request, proxy: TcpProxy) -> Action:
    if proxy.WhichOneof("cluster_specifier") == "weighted_clusters":
        weights = [(each.name, each.weight) for each in proxy.weighted_clusters.clusters]
    else:
        weights = [(proxy.cluster, 1)]
    total = sum(weight for _, weight in weights)
    shares = tuple(
        ClusterShare(
            cluster=name, weight=weight, share=weight / total, reach=reach(served, name, request)
        )
        for name, weight in weights
        if weight
    )
    chosen = at_random_value(shares, request.random_value)
    if not chosen.reach.is_known:
        text = f"The chain leads to cluster {chosen.cluster!r}, which the proxy lacks."
        return Closed(reason=CloseReason.CLUSTER_NOT_FOUND, text=text)
    return TcpForward(shares=shares, chosen=chosen)
