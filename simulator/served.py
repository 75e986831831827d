"""
The config a proxy was served, decoded: the only thing the simulator knows of the mesh.

Knows nothing of how the bytes were made. Messages stay inside this room.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Self, TypeVar

from google.protobuf.message import DecodeError, Message

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.google.protobuf.any_pb2 import Any
from pilothouse.errors import MeshError
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SHORT_NAMES, Resource

Decoded = TypeVar("Decoded", bound=Message)

_PREFIX: Final = "type.googleapis.com/"


class UnreadableResource(MeshError):
    """Served bytes are no message of their type."""

    def __init__(self, type_url: str, error: DecodeError) -> None:
        """Say which type could not be read."""
        super().__init__(f"A {SHORT_NAMES.get(type_url, type_url)} resource is unreadable: {error}")
        self.type_url = type_url


class ServedConfig:
    """Listeners in order; route configurations, clusters and load assignments by name."""

    __slots__ = ("assignments", "clusters", "listeners", "route_configurations")

    def __init__(
        self,
        listeners: Iterable[Listener] = (),
        route_configurations: Iterable[RouteConfiguration] = (),
        clusters: Iterable[Cluster] = (),
        assignments: Iterable[ClusterLoadAssignment] = (),
    ) -> None:
        """Hold decoded messages, which must not be changed afterwards."""
        self.listeners = tuple(listeners)
        self.route_configurations = {each.name: each for each in route_configurations}
        self.clusters = {each.name: each for each in clusters}
        self.assignments = {each.cluster_name: each for each in assignments}

    @classmethod
    def read(cls, resources: Iterable[Resource]) -> Self:
        """
        Decode what a proxy was served; types that decide no way (secrets) are passed over.

        Raises: UnreadableResource: Bytes are no message of their type.
        """
        return cls.decode((each.type_url, each.data) for each in resources)

    @classmethod
    def decode(cls, resources: Iterable[tuple[str, bytes]]) -> Self:
        """Like `read`, from pairs of type URL and encoded message."""
        by_type: dict[str, list[bytes]] = {LDS: [], RDS: [], CDS: [], EDS: []}
        for type_url, data in resources:
            if type_url in by_type:
                by_type[type_url].append(data)
        return cls(
            _decoded(Listener, LDS, by_type[LDS]),
            _decoded(RouteConfiguration, RDS, by_type[RDS]),
            _decoded(Cluster, CDS, by_type[CDS]),
            _decoded(ClusterLoadAssignment, EDS, by_type[EDS]),
        )


def _decoded(kind: type[Decoded], type_url: str, encoded: Iterable[bytes]) -> Iterator[Decoded]:
    for data in encoded:
        try:
            yield kind.FromString(data)
        except DecodeError as error:
            raise UnreadableResource(type_url, error) from error


def unpacked(packed: Any, kind: type[Decoded]) -> Decoded | None:
    """Return what an Any holds if it is of that kind, else None."""
    if packed.type_url != _PREFIX + kind.DESCRIPTOR.full_name:
        return None
    return kind.FromString(packed.value)


def type_name(packed: Any) -> str:
    """Return the full message name of what an Any holds."""
    return packed.type_url.rpartition("/")[2]
