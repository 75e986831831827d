"""
The input tables: one per kind, with the indexes that queries read them by.

The only list of what can enter the graph. Keys are `ObjectKey`s. Indexes work on rows as written:
a short host is indexed as (name, namespace), because the mesh domain is itself an input. Rows of
remote clusters (ADR 27) stand in the same tables; `placed` keeps them apart where it matters.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final

import msgspec

from pilothouse.api.destination_rule import DestinationRule
from pilothouse.api.kubernetes_core import (
    ConfigMap,
    Endpoints,
    EndpointSlice,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    ServiceAccount,
)
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.peer_authentication import PeerAuthentication
from pilothouse.api.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.sidecar import Sidecar
from pilothouse.api.virtual_service import VirtualService
from pilothouse.api.workload import WorkloadEntry
from pilothouse.graph.tables import Table
from pilothouse.model import client_reads
from pilothouse.model.address_pools import block_index
from pilothouse.model.clusters import KnownClusters, placed
from pilothouse.model.issued_certificates import Clock, WorkloadCertificate
from pilothouse.model.mode_change import FormerPolicy, ModeChange
from pilothouse.model.resolved_names import ResolvedName
from pilothouse.model.tls_policy import TlsPolicy
from pilothouse.model.topology_labels import NETWORK_LABEL
from pilothouse.model.trust import FetchedBundle, TrustBundle

SERVICE_LABEL: Final = "kubernetes.io/service-name"
IMPORTED_LABEL: Final = "multicluster.kubernetes.io/service-name"
THE_MESH: Final = ObjectKey("", "mesh")


class MeshDomain(msgspec.Struct, frozen=True):
    """The DNS domain of Kubernetes services, such as ``cluster.local``."""

    domain: str = "cluster.local"


def host_index(host: str, namespace: str) -> Hashable:
    """Return what a host as written in `namespace` is indexed under."""
    host = host.lower()
    if "." in host or host.startswith("*"):
        return host
    return (host, namespace)


def label_index(meta: ObjectMeta) -> Iterator[Hashable]:
    """Yield (namespace, label, value) for each label."""
    for name, value in meta.labels.items():
        yield (meta.namespace, name, value)


def _namespace(key: ObjectKey, _row: object) -> tuple[Hashable]:
    return (placed(key.namespace, key.cluster),)


def _elsewhere(key: ObjectKey, _row: Service) -> Iterator[Hashable]:
    if key.cluster:
        yield ObjectKey(key.namespace, key.name)


def _virtual_service_hosts(_key: ObjectKey, row: VirtualService) -> Iterator[Hashable]:
    for host in row.spec.hosts:
        yield host_index(host, row.meta.namespace)


def _wildcard_virtual_service(_key: ObjectKey, row: VirtualService) -> Iterator[Hashable]:
    if any(host.startswith("*") for host in row.spec.hosts):
        yield True


def _rule_host(_key: ObjectKey, row: DestinationRule) -> tuple[Hashable]:
    return (host_index(row.spec.host, row.meta.namespace),)


def _wildcard_rule(_key: ObjectKey, row: DestinationRule) -> Iterator[Hashable]:
    # By pattern: a changed rule concerns the hosts it covers, a new pattern all of them.
    if row.spec.host.startswith("*"):
        yield row.spec.host.lower()


def _entry_hosts(_key: ObjectKey, row: ServiceEntry) -> Iterator[Hashable]:
    yield from (host.lower() for host in row.spec.hosts)


def _kubernetes_hosts(_key: ObjectKey, row: ServiceEntry) -> Iterator[Hashable]:
    # Few entries name a Kubernetes service; which hosts they name is one cell for all to read.
    yield from (host.lower() for host in row.spec.hosts if ".svc." in host)


def _entry_addresses(_key: ObjectKey, row: ServiceEntry) -> Iterator[Hashable]:
    yield from (endpoint.address for endpoint in row.spec.endpoints if endpoint.address)


def _lists_names(_key: ObjectKey, row: ServiceEntry) -> Iterator[Hashable]:
    if row.spec.resolution == "DNS" and (row.spec.endpoints or row.spec.workload_selector):
        yield True


def service_of_slice(row: EndpointSlice) -> str:
    """Return the name of the service whose endpoints a slice lists, if it is one's (K8-12)."""
    # One that was copied from another cluster for a ServiceImport is nobody's here.
    return "" if IMPORTED_LABEL in row.meta.labels else row.meta.labels.get(SERVICE_LABEL, "")


def _slice_service(key: ObjectKey, row: EndpointSlice) -> Iterator[Hashable]:
    service = service_of_slice(row)
    if service:
        yield ObjectKey(key.namespace, service, key.cluster)


def _slice_addresses(key: ObjectKey, row: EndpointSlice) -> Iterator[Hashable]:
    for endpoint in row.endpoints or ():
        yield from (placed(each, key.cluster) for each in endpoint.addresses)


def _endpoints_addresses(key: ObjectKey, row: Endpoints) -> Iterator[Hashable]:
    for subset in row.subsets or ():
        for address in (*subset.addresses, *subset.not_ready_addresses):
            yield placed(address.ip, key.cluster)


def _pod_addresses(key: ObjectKey, row: Pod) -> Iterator[Hashable]:
    if row.spec.host_network:
        return  # a host's address belongs to many (traffic.md K8-16)
    own = {row.status.pod_ip, *(ip.ip for ip in row.status.pod_ips)} - {""}
    yield from (placed(each, key.cluster) for each in own)


def _labels(_key: ObjectKey, row: Any) -> Iterator[Hashable]:
    return label_index(row.meta)


def _workload_address(_key: ObjectKey, row: WorkloadEntry) -> Iterator[Hashable]:
    if row.spec.address:
        yield row.spec.address


def _workload_labels(_key: ObjectKey, row: WorkloadEntry) -> Iterator[Hashable]:
    for name, value in row.all_labels.items():
        yield (row.meta.namespace, name, value)


def _network_gateway(_key: ObjectKey, row: Service) -> Iterator[Hashable]:
    if row.meta.labels.get(NETWORK_LABEL):
        yield True


DOMAIN: Final = Table[ObjectKey, MeshDomain]("Domain")
CLUSTERS: Final = Table[ObjectKey, KnownClusters]("Clusters")
"""One row, under THE_MESH, if there is more to say than that the mesh is one cluster."""
TLS_POLICY: Final = Table[ObjectKey, TlsPolicy]("TlsPolicy")
"""One row, under THE_MESH, if the operator demands something of all TLS."""
MESH_CONFIG: Final = Table[ObjectKey, MeshConfig]("MeshConfig")
MESH_NETWORKS: Final = Table[ObjectKey, MeshNetworks]("MeshNetworks")
TRUST_BUNDLE: Final = Table[ObjectKey, TrustBundle]("TrustBundle")
"""One row, under THE_MESH, if this control plane has a certificate authority."""
FETCHED_BUNDLES: Final = Table[str, FetchedBundle]("FetchedBundle")
"""By the URL that the mesh config gives; for URLs that have been asked."""
WORKLOAD_CERTIFICATES: Final = Table[str, WorkloadCertificate]("WorkloadCertificate")
"""By the text of the identity; for proxies that have their certificates from this server."""
CLOCK: Final = Table[ObjectKey, Clock]("Clock")
"""One row, under THE_MESH; without it nothing is known to have ended."""
RESOLVED_NAMES: Final = Table[str, ResolvedName]("ResolvedName")
"""By the name in lower case, without a dot at its end; no row: nobody has looked yet."""
NAMESPACES: Final = Table[ObjectKey, Namespace](
    "Namespace", {"client_reads": client_reads.of_annotated}
)
SERVICES: Final = Table[ObjectKey, Service](
    "Service",
    {
        "namespace": _namespace,
        "elsewhere": _elsewhere,
        "client_reads": client_reads.of_service,
        "is_network_gateway": _network_gateway,
    },
)
ENDPOINT_SLICES: Final = Table[ObjectKey, EndpointSlice](
    "EndpointSlice", {"service": _slice_service, "address": _slice_addresses}
)
ENDPOINTS: Final = Table[ObjectKey, Endpoints]("Endpoints", {"address": _endpoints_addresses})
PODS: Final = Table[ObjectKey, Pod](
    "Pod",
    {
        "address": _pod_addresses,
        "label": _labels,
        "namespace": _namespace,
        "client_reads": client_reads.of_labels,
    },
)
NODES: Final = Table[ObjectKey, Node]("Node")
SERVICE_ACCOUNTS: Final = Table[ObjectKey, ServiceAccount]("ServiceAccount")
SECRETS: Final = Table[ObjectKey, Secret]("Secret")
CONFIG_MAPS: Final = Table[ObjectKey, ConfigMap]("ConfigMap")
ROLES: Final = Table[ObjectKey, Role]("Role")
ROLE_BINDINGS: Final = Table[ObjectKey, RoleBinding]("RoleBinding", {"namespace": _namespace})
CLUSTER_ROLES: Final = Table[ObjectKey, ClusterRole]("ClusterRole")
CLUSTER_ROLE_BINDINGS: Final = Table[ObjectKey, ClusterRoleBinding]("ClusterRoleBinding")
SERVICE_ENTRIES: Final = Table[ObjectKey, ServiceEntry](
    "ServiceEntry",
    {
        "host": _entry_hosts,
        "address": _entry_addresses,
        "address_block": block_index,
        "kubernetes_host": _kubernetes_hosts,
        "namespace": _namespace,
        "client_reads": client_reads.of_annotated,
        "lists_names": _lists_names,
    },
)
WORKLOAD_ENTRIES: Final = Table[ObjectKey, WorkloadEntry](
    "WorkloadEntry",
    {
        "label": _workload_labels,
        "address": _workload_address,
        "client_reads": client_reads.of_labels,
    },
)
VIRTUAL_SERVICES: Final = Table[ObjectKey, VirtualService](
    "VirtualService",
    {
        "host": _virtual_service_hosts,
        "wildcard": _wildcard_virtual_service,
        "selects": client_reads.selected_by_routes,
    },
)
DESTINATION_RULES: Final = Table[ObjectKey, DestinationRule](
    "DestinationRule",
    {
        "host": _rule_host,
        "wildcard": _wildcard_rule,
        "namespace": _namespace,
        "client_reads": client_reads.of_rule,
        "selects": client_reads.selected_by_rule,
    },
)
SIDECARS: Final = Table[ObjectKey, Sidecar]("Sidecar", {"namespace": _namespace})
PEER_AUTHENTICATIONS: Final = Table[ObjectKey, PeerAuthentication](
    "PeerAuthentication", {"namespace": _namespace}
)
FORMER_PEER_AUTHENTICATIONS: Final = Table[ObjectKey, FormerPolicy]("FormerPeerAuthentication")
MODE_CHANGE: Final = Table[ObjectKey, ModeChange]("ModeChange")

TABLES: Final[Mapping[str, Table[Any, Any]]] = {
    table.name: table
    for table in (
        DOMAIN, CLUSTERS, MESH_CONFIG, MESH_NETWORKS,
        NAMESPACES, SERVICES, ENDPOINT_SLICES, ENDPOINTS, PODS, NODES,
        SERVICE_ACCOUNTS, SECRETS, CONFIG_MAPS, SERVICE_ENTRIES, WORKLOAD_ENTRIES,
        VIRTUAL_SERVICES, DESTINATION_RULES, SIDECARS, PEER_AUTHENTICATIONS,
        FORMER_PEER_AUTHENTICATIONS, MODE_CHANGE, TRUST_BUNDLE, FETCHED_BUNDLES,
        WORKLOAD_CERTIFICATES, CLOCK, ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS,
        RESOLVED_NAMES, TLS_POLICY,
    )
}  # fmt: skip
"""Kind name -> table. Kinds that are held but not translated have none."""
