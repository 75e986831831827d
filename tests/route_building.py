"""Builds routes from VirtualService rules as people write them, and reads the bytes back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.destination_rule import ConsistentHash
from pilothouse.api.duration import Duration
from pilothouse.api.meta import ObjectMeta
from pilothouse.api.virtual_service import Destination, VirtualService, VirtualServiceSpec
from pilothouse.graph.findings import ConfigRef, Finding
from pilothouse.model.delegation import Rule
from pilothouse.model.names import ClusterName
from pilothouse.translators.envoy.routes import RouteContext, RouteTarget, virtual_service_routes

T = TypeVar("T")
TO_A = {"route": [{"destination": {"host": "a"}}]}
"""The simplest thing to do with a request."""


def from_data(data: object, kind: type[T]) -> T:
    """Read plain data as an API type."""

    def hook(wanted: type, value: object) -> object:
        assert wanted is Duration
        return Duration.parse(str(value))

    return msgspec.convert(data, kind, dec_hook=hook)


def virtual_service(*rules: Mapping[str, Any], name: str = "reviews") -> VirtualService:
    """Return a VirtualService of namespace default with these HTTP rules."""
    spec = from_data({"hosts": ["reviews"], "http": list(rules)}, VirtualServiceSpec)
    return VirtualService(ObjectMeta(kind="VirtualService", name=name, namespace="default"), spec)


def context(hashes: Mapping[str, ConsistentHash] | None = None, **changes: Any) -> RouteContext:
    """Return a context that resolves each host to itself, on port 80 or the one asked for."""

    def target(destination: Destination, _ref: ConfigRef) -> RouteTarget:
        port = destination.port.number if destination.port else 80
        name = ClusterName(port, destination.subset, destination.host)
        return RouteTarget(cluster=str(name), hash_policy=(hashes or {}).get(destination.host))

    def metadata(rule: Rule) -> base_pb2.Metadata:
        result = base_pb2.Metadata()
        result.filter_metadata["pilothouse"].fields["field"].string_value = rule.path
        return result

    plain = RouteContext(
        listener_port=80,
        target=target,
        source_namespace="default",
        source_labels={"app": "web"},
        metadata=metadata,
    )
    return replace(plain, **changes)


def build(
    *rules: Mapping[str, Any], within: RouteContext | None = None
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Build rules, encode them, and return what the bytes say beside the findings."""
    findings: list[Finding] = []
    routes = virtual_service_routes(virtual_service(*rules), within or context(), findings.append)
    return [content(route) for route in routes], findings


def build_one(rule: Mapping[str, Any], within: RouteContext | None = None) -> dict[str, Any]:
    """Build the only route of a rule that there is nothing to say about."""
    (route,), findings = build(rule, within=within)
    assert findings == []
    return route


def content(message: Message) -> dict[str, Any]:
    """Return what a message's bytes say, in protobuf's JSON with the proto's field names."""
    read_back = type(message).FromString(message.SerializeToString(deterministic=True))
    return json_format.MessageToDict(
        read_back, preserving_proto_field_name=True, descriptor_pool=POOL
    )


Route = route_components_pb2.Route
