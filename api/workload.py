"""
WorkloadEntry and WorkloadGroup: endpoints that are not pods.

Types of networking.istio.io; rules across fields are in `workload_check`.
"""

from typing import Final

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct

HEALTH_CHECKS_ANNOTATION: Final = "proxy.istio.io/health-checks-enabled"
_TRUE: Final = frozenset({"1", "t", "true"})


class WorkloadEntrySpec(ApiStruct, frozen=True):
    """
    One endpoint; also the shape of a ServiceEntry's inline endpoints.

    `address` is an IP, a host name, ``unix://`` and a path, or empty with a `network`. `ports`
    maps service port names to numbers here. `weight` 0 means 1.
    """

    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str = ""
    locality: str = ""
    weight: int = 0
    service_account: str = ""


class Condition(ApiStruct, frozen=True):
    """A condition of the status; `status` is True, False or Unknown."""

    type: str = ""
    status: str = ""


class WorkloadEntryStatus(ApiStruct, frozen=True):
    """The part of the status we read: conditions that health checks write."""

    conditions: tuple[Condition, ...] = ()


class WorkloadEntry(ApiStruct, frozen=True):
    """A WorkloadEntry object."""

    meta: ObjectMeta
    spec: WorkloadEntrySpec = WorkloadEntrySpec()
    status: WorkloadEntryStatus | None = None

    @property
    def all_labels(self) -> dict[str, str]:
        """The labels of the spec and of the object, whose values win (WE-03)."""
        return {**self.spec.labels, **self.meta.labels}

    @property
    def is_healthy(self) -> bool:
        """
        Whether the workload may be sent traffic (WE-07).

        With health checks enabled it counts as unhealthy until the condition Healthy is True.
        """
        if self.meta.annotations.get(HEALTH_CHECKS_ANNOTATION, "").lower() not in _TRUE:
            return True
        conditions = self.status.conditions if self.status else ()
        return any(each.type == "Healthy" and each.status == "True" for each in conditions)


class GroupMetadata(ApiStruct, frozen=True):
    """Labels and annotations given to the entries of a group."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class HttpHeader(ApiStruct, frozen=True):
    """A header of an HTTP probe."""

    name: str = ""
    value: str = ""


class HttpProbe(ApiStruct, frozen=True):
    """HTTPHealthCheckConfig."""

    port: int
    path: str = ""
    host: str = ""
    scheme: str = ""
    http_headers: tuple[HttpHeader, ...] = ()


class TcpProbe(ApiStruct, frozen=True):
    """TCPHealthCheckConfig."""

    port: int
    host: str = ""


class ExecProbe(ApiStruct, frozen=True):
    """ExecHealthCheckConfig."""

    command: tuple[str, ...]


class GrpcProbe(ApiStruct, frozen=True):
    """GrpcHealthCheckConfig."""

    port: int = 0
    service: str = ""


class ReadinessProbe(ApiStruct, frozen=True):
    """How the agent checks a workload; exactly one of the four methods."""

    initial_delay_seconds: int = 0
    timeout_seconds: int = 0
    period_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0
    http_get: HttpProbe | None = None
    tcp_socket: TcpProbe | None = None
    exec: ExecProbe | None = None
    grpc: GrpcProbe | None = None


class WorkloadGroupSpec(ApiStruct, frozen=True):
    """What the entries of a group have in common."""

    template: WorkloadEntrySpec
    metadata: GroupMetadata | None = None
    probe: ReadinessProbe | None = None


class WorkloadGroup(ApiStruct, frozen=True):
    """A WorkloadGroup object."""

    meta: ObjectMeta
    spec: WorkloadGroupSpec
