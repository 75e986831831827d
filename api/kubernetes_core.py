"""
Kubernetes core objects, as far as a control plane reads them.

Only fields that may change what a proxy is served are declared; everything else of such an object
is skipped, so that a write to it compares equal and stops there.
"""

from typing import Final

import msgspec

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import KubernetesStruct


class Namespace(KubernetesStruct, frozen=True):
    """A Namespace: its labels matter (discovery selectors, topology)."""

    meta: ObjectMeta


class ServicePort(KubernetesStruct, frozen=True):
    """A port of a Service; `target_port` is a number, a port name of the pod, or the same port."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    app_protocol: str = ""
    node_port: int = 0


class ServiceSpec(KubernetesStruct, frozen=True):
    """What a Service says of its addresses, ports and traffic."""

    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    type: str = "ClusterIP"
    external_name: str = ""
    external_ips: tuple[str, ...] = msgspec.field(name="externalIPs", default=())
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    publish_not_ready_addresses: bool = False
    internal_traffic_policy: str = ""
    external_traffic_policy: str = ""
    traffic_distribution: str = ""
    session_affinity: str = ""


class LoadBalancerIngress(KubernetesStruct, frozen=True):
    """An address a load balancer gave the Service."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(KubernetesStruct, frozen=True):
    """Addresses of the load balancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(KubernetesStruct, frozen=True):
    """The part of a Service's status we read."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(KubernetesStruct, frozen=True):
    """A Service."""

    meta: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ObjectReference(KubernetesStruct, frozen=True):
    """Which object an address belongs to."""

    kind: str = ""
    name: str = ""
    namespace: str = ""


class EndpointConditions(KubernetesStruct, frozen=True):
    """State of an endpoint; None is unknown (ready counts as true then)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ZoneHint(KubernetesStruct, frozen=True):
    """A zone that should use the endpoint."""

    name: str


class EndpointHints(KubernetesStruct, frozen=True):
    """Who should use the endpoint."""

    for_zones: tuple[ZoneHint, ...] = ()


class Endpoint(KubernetesStruct, frozen=True):
    """An endpoint of a slice; all addresses are the same endpoint."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    target_ref: ObjectReference | None = None
    hints: EndpointHints | None = None


class EndpointPort(KubernetesStruct, frozen=True):
    """A port of a slice, named as the service port is; `port` None means all ports."""

    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSlice(KubernetesStruct, frozen=True):
    """An EndpointSlice; its service is in the label kubernetes.io/service-name."""

    meta: ObjectMeta
    address_type: str = "IPv4"
    ports: tuple[EndpointPort, ...] | None = ()
    endpoints: tuple[Endpoint, ...] | None = ()


class EndpointAddress(KubernetesStruct, frozen=True):
    """An address of the older Endpoints kind."""

    ip: str
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None


class EndpointSubset(KubernetesStruct, frozen=True):
    """Addresses that share ports."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(KubernetesStruct, frozen=True):
    """Endpoints of the service of the same name, the kind before EndpointSlice."""

    meta: ObjectMeta
    subsets: tuple[EndpointSubset, ...] | None = ()


class ContainerPort(KubernetesStruct, frozen=True):
    """A port a container declares; service target ports may use its name."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(KubernetesStruct, frozen=True):
    """A container, as far as ports go."""

    name: str = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(KubernetesStruct, frozen=True):
    """Where a pod runs, as whom, and its ports."""

    node_name: str = ""
    service_account_name: str = "default"
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    containers: tuple[Container, ...] = ()


class PodIp(KubernetesStruct, frozen=True):
    """One of a pod's addresses."""

    ip: str = ""


class PodCondition(KubernetesStruct, frozen=True):
    """A condition of a pod, such as Ready."""

    type: str
    status: str


class PodStatus(KubernetesStruct, frozen=True):
    """Phase, addresses and conditions."""

    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIp, ...] = msgspec.field(name="podIPs", default=())
    conditions: tuple[PodCondition, ...] = ()


class Pod(KubernetesStruct, frozen=True):
    """A Pod."""

    meta: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeAddress(KubernetesStruct, frozen=True):
    """An address of a node; `type` is ExternalIP where it is reached from elsewhere."""

    type: str = ""
    address: str = ""


class NodeStatus(KubernetesStruct, frozen=True):
    """The part of a Node's status we read: the rest is written every few seconds."""

    addresses: tuple[NodeAddress, ...] = ()


class Node(KubernetesStruct, frozen=True):
    """A Node: its labels carry the locality, its addresses lead to node ports."""

    meta: ObjectMeta
    status: NodeStatus = NodeStatus()


class ServiceAccount(KubernetesStruct, frozen=True):
    """A ServiceAccount."""

    meta: ObjectMeta


NEVER_READ: Final = frozenset({"helm.sh/release.v1", "kubernetes.io/service-account-token"})
"""Types of Secret that are large or dangerous and never hold what a proxy needs (D-Z-6)."""


class Secret(KubernetesStruct, frozen=True):
    """A Secret; values (base64 in `data`, text in `string_data`) never appear in its repr."""

    meta: ObjectMeta
    type: str = "Opaque"
    data: dict[str, bytes] = {}
    string_data: dict[str, str] = {}

    def value(self, key: str) -> bytes | None:
        """Return a value; `string_data` wins, as it does in Kubernetes."""
        text = self.string_data.get(key)
        return text.encode() if text is not None else self.data.get(key)

    def __repr__(self) -> str:
        """Show the name and the keys only."""
        keys = ", ".join(sorted({*self.data, *self.string_data}))
        return f"Secret({self.meta.namespace}/{self.meta.name}: {keys})"


class ConfigMap(KubernetesStruct, frozen=True):
    """A ConfigMap."""

    meta: ObjectMeta
    data: dict[str, str] = {}
    binary_data: dict[str, bytes] = {}
