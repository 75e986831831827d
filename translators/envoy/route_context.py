"""What the translation of HTTP routes is told from outside, so that it looks nothing up itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse.api.destination_rule import ConsistentHash
from pilothouse.api.virtual_service import Destination, HttpRetry
from pilothouse.graph.findings import ConfigRef, Finding
from pilothouse.model.delegation import Rule

Report = Callable[[Finding], None]
"""Where findings go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTarget:
    """
    What a destination resolved to.

    `cluster` is a cluster name (N-01) even if the service is unknown; `hash_policy` is what the
    destination's DestinationRule says about affinity. `offer` is what a stock Envoy offers there in
    TLS for each request, empty for what the cluster always offers.
    """

    cluster: str
    hash_policy: ConsistentHash | None = None
    offer: str = ""


Resolve = Callable[[Destination, ConfigRef], RouteTarget]
"""Turns a destination and where it is written into what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """
    For whom and where routes are built.

    `listener_port` is the port requests arrive on; `gateway` is "mesh" for a sidecar, else the
    ``namespace/name`` of a Gateway. `forwards_host` keeps a rewritten host in a header (PC-06).
    `metadata` gives the metadata of routes made from a rule.
    """

    listener_port: int
    target: Resolve
    source_namespace: str
    source_labels: Mapping[str, str]
    gateway: str = "mesh"
    default_retry: HttpRetry | None = None
    forwards_host: bool = False
    metadata: Callable[[Rule], base_pb2.Metadata]
