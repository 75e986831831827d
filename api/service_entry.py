"""
ServiceEntry: a service the registry would not know of by itself.

Types of networking.istio.io; rules across fields are in `service_entry_check`.
"""

from typing import Final, Literal

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct, WorkloadLabels
from pilothouse.api.workload import WorkloadEntrySpec

OPT_OUT_LABEL: Final = "networking.istio.io/enable-autoallocate-ip"
"""With the value false, no address is found for the entry's hosts."""

Location = Literal["MESH_EXTERNAL", "MESH_INTERNAL"]
Resolution = Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]


class ServicePort(ApiStruct, frozen=True):
    """A port; `target_port` 0 means the same number, an empty protocol means detect it."""

    number: int
    name: str
    protocol: str = ""
    target_port: int = 0


class ServiceEntrySpec(ApiStruct, frozen=True):
    """Hosts, addresses, ports and where the endpoints come from."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    location: Location = "MESH_EXTERNAL"
    resolution: Resolution = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: WorkloadLabels | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class AssignedAddress(ApiStruct, frozen=True):
    """An address that was assigned to a host of the entry."""

    value: str = ""
    host: str = ""


class ServiceEntryStatus(ApiStruct, frozen=True):
    """The part of the status we read: addresses assigned by whoever allocates them."""

    addresses: tuple[AssignedAddress, ...] = ()


class ServiceEntry(ApiStruct, frozen=True):
    """A ServiceEntry object."""

    meta: ObjectMeta
    spec: ServiceEntrySpec
    status: ServiceEntryStatus | None = None

    @property
    def finds_addresses(self) -> bool:
        """Whether hosts of the entry are given addresses of a pool (traffic.md 3.13)."""
        is_out = self.meta.labels.get(OPT_OUT_LABEL, "").lower() == "false"
        return not is_out and not self.spec.addresses and self.spec.resolution != "NONE"
