"""PROXY protocol towards a destination: a header in front of what is sent (traffic.md DR-61)."""

from typing import Final

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import base_pb2, proxy_protocol_pb2
from pilothouse._pb.envoy.extensions.transport_sockets.proxy_protocol.v3 import (
    upstream_proxy_protocol_pb2,
)
from pilothouse._pb.envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from pilothouse.api.destination_rule import ProxyProtocol
from pilothouse.translators.envoy.encoding import pack

PROXY_PROTOCOL_SOCKET: Final = "envoy.transport_sockets.upstream_proxy_protocol"


def apply_proxy_protocol(cluster: cluster_pb2.Cluster, wanted: ProxyProtocol | None) -> None:
    """Wrap the cluster's transport sockets (plain text if it has none) in the PROXY protocol."""
    if wanted is None:
        return
    for each in cluster.transport_socket_matches:
        each.transport_socket.CopyFrom(_wrapped(each.transport_socket, wanted))
    if not cluster.transport_socket_matches:
        has_socket = cluster.HasField("transport_socket")
        inner = cluster.transport_socket if has_socket else _PLAIN
        cluster.transport_socket.CopyFrom(_wrapped(inner, wanted))


def _wrapped(inner: base_pb2.TransportSocket, wanted: ProxyProtocol) -> base_pb2.TransportSocket:
    wrapper = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport()
    wrapper.config.version = _VERSIONS[wanted.version]
    wrapper.transport_socket.CopyFrom(inner)
    return base_pb2.TransportSocket(name=PROXY_PROTOCOL_SOCKET, typed_config=pack(wrapper))


_VERSIONS: Final = {
    "V1": proxy_protocol_pb2.ProxyProtocolConfig.V1,
    "V2": proxy_protocol_pb2.ProxyProtocolConfig.V2,
}
_PLAIN: Final = base_pb2.TransportSocket(
    name="envoy.transport_sockets.raw_buffer", typed_config=pack(raw_buffer_pb2.RawBuffer())
)
