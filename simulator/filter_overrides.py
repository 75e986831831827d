"""
The config of an HTTP filter for one request: the most specific level that has one.

Source: envoyproxy/envoy, docs of "HTTP filters: route specific config".
"""

from typing import TypeVar

from google.protobuf.message import Message

from pilothouse._pb.envoy.config.route.v3.route_components_pb2 import (
    FilterConfig,
    Route,
    VirtualHost,
)
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.google.protobuf.any_pb2 import Any
from pilothouse.simulator.served import unpacked

Levels = tuple[RouteConfiguration, VirtualHost, Route]

Config = TypeVar("Config", bound=Message)


def override(levels: Levels, filter_name: str, kind: type[Config]) -> Config | None:
    """Return a filter's config for a route; None where nothing overrides or it is switched off."""
    for level in reversed(levels):
        if filter_name in level.typed_per_filter_config:
            packed: Any = level.typed_per_filter_config[filter_name]
            wrapped = unpacked(packed, FilterConfig)
            return unpacked(packed if wrapped is None else wrapped.config, kind)
    return None
