"""
A proxy and what it would ask for, without a stream.

For commands that show what a proxy would get: makes a `Proxy` from a node id and metadata as text,
and follows references from resource to resource as Envoy does (clusters to their endpoints,
listeners to their routes).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf import json_format

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import FilterChain
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import Resource
from pilothouse.xds.node import InvalidNode, read_proxy

_HCM: Final = hcm_pb2.HttpConnectionManager.DESCRIPTOR.full_name


def proxy_of(node_id: str, metadata: Mapping[str, Any]) -> Proxy:
    """
    Return the proxy of a node id and metadata, as it would be read from a stream.

    Raises: InvalidNode: They make no proxy.
    """
    node = Node(id=node_id)
    try:
        json_format.ParseDict(dict(metadata), node.metadata)
    except json_format.ParseError as error:
        raise InvalidNode(f"the metadata cannot be written in a node: {error}") from error
    return read_proxy(node)


def endpoint_names(clusters: Iterable[Resource]) -> Iterator[str]:
    """Yield the load assignments that clusters ask for, each once."""
    names = (cluster.endpoints_name for cluster in clusters)
    yield from dict.fromkeys(name for name in names if name is not None)


def route_names(listeners: Iterable[Resource]) -> Iterator[str]:
    """Yield the route configurations that listeners ask for, each once."""
    names: dict[str, None] = {}
    for resource in listeners:
        listener = Listener.FromString(resource.data)
        chains = [*listener.filter_chains, listener.default_filter_chain]
        names.update((name, None) for chain in chains for name in _rds_of(chain))
    yield from names


def _rds_of(chain: FilterChain) -> Iterator[str]:
    for network_filter in chain.filters:
        config = network_filter.typed_config
        if config.type_url.rpartition("/")[2] == _HCM:
            manager = hcm_pb2.HttpConnectionManager.FromString(config.value)
            if manager.HasField("rds"):
                yield manager.rds.route_config_name
