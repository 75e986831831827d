"""
The kinds of object we hold: group, versions, scope and row type.

One table, which decoding, the file store and the CRD generator all read.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pilothouse.api.destination_rule import DestinationRule
from pilothouse.api.gateway import Gateway
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
from pilothouse.api.opaque import Opaque
from pilothouse.api.peer_authentication import PeerAuthentication
from pilothouse.api.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.sidecar import Sidecar
from pilothouse.api.virtual_service import VirtualService
from pilothouse.api.workload import WorkloadEntry, WorkloadGroup

ISTIO_GROUP: Final = "istio.io"

MESH_CONFIG: Final = "MeshConfig"
MESH_NETWORKS: Final = "MeshNetworks"
"""Kind name under which the mesh config is reported; it is not an object of an API server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    A kind of object and the type of its rows. `group` is empty for the core group.

    `has_free_names` tells that names need not be DNS names, as in ``system:node``.
    """

    name: str
    plural: str
    group: str
    versions: tuple[str, ...]
    row: type[msgspec.Struct]
    namespaced: bool = True
    has_free_names: bool = False

    @property
    def is_istio(self) -> bool:
        """Tell whether the kind belongs to the Istio API, where unknown fields are reported."""
        return self.group.endswith(ISTIO_GROUP)

    @property
    def api_versions(self) -> tuple[str, ...]:
        """The values of `apiVersion` it goes by, the preferred first."""
        return tuple(f"{self.group}/{each}" if self.group else each for each in self.versions)


def _networking(name: str, plural: str, row: type[msgspec.Struct]) -> Kind:
    versions = ("v1", "v1beta1", "v1alpha3")
    return Kind(name=name, plural=plural, group="networking.istio.io", versions=versions, row=row)


def _security(name: str, plural: str, row: type[msgspec.Struct]) -> Kind:
    versions = ("v1", "v1beta1")
    return Kind(name=name, plural=plural, group="security.istio.io", versions=versions, row=row)


def _opaque(name: str, plural: str, group: str, *versions: str) -> Kind:
    return Kind(name=name, plural=plural, group=group, versions=versions, row=Opaque)


def _rbac(name: str, plural: str, row: type[msgspec.Struct], *, namespaced: bool) -> Kind:
    return Kind(
        name=name,
        plural=plural,
        group="rbac.authorization.k8s.io",
        versions=("v1", "v1beta1"),
        row=row,
        namespaced=namespaced,
        has_free_names=True,
    )


def _core(name: str, plural: str, row: type[msgspec.Struct], *, namespaced: bool = True) -> Kind:
    return Kind(
        name=name, plural=plural, group="", versions=("v1",), row=row, namespaced=namespaced
    )


KINDS: Final[tuple[Kind, ...]] = (
    _networking("VirtualService", "virtualservices", VirtualService),
    _networking("DestinationRule", "destinationrules", DestinationRule),
    _networking("ServiceEntry", "serviceentries", ServiceEntry),
    _networking("WorkloadEntry", "workloadentries", WorkloadEntry),
    _networking("WorkloadGroup", "workloadgroups", WorkloadGroup),
    _networking("Sidecar", "sidecars", Sidecar),
    _networking("Gateway", "gateways", Gateway),
    _opaque("EnvoyFilter", "envoyfilters", "networking.istio.io", "v1alpha3"),
    _opaque("ProxyConfig", "proxyconfigs", "networking.istio.io", "v1beta1"),
    _security("PeerAuthentication", "peerauthentications", PeerAuthentication),
    _opaque(
        "RequestAuthentication", "requestauthentications", "security.istio.io", "v1", "v1beta1"
    ),
    _opaque("AuthorizationPolicy", "authorizationpolicies", "security.istio.io", "v1", "v1beta1"),
    _opaque("Telemetry", "telemetries", "telemetry.istio.io", "v1", "v1alpha1"),
    _opaque("WasmPlugin", "wasmplugins", "extensions.istio.io", "v1alpha1"),
    _opaque("TrafficExtension", "trafficextensions", "extensions.istio.io", "v1alpha1"),
    _core("Namespace", "namespaces", Namespace, namespaced=False),
    _core("Node", "nodes", Node, namespaced=False),
    _core("Service", "services", Service),
    _core("Endpoints", "endpoints", Endpoints),
    _core("Pod", "pods", Pod),
    _core("ServiceAccount", "serviceaccounts", ServiceAccount),
    _core("Secret", "secrets", Secret),
    _core("ConfigMap", "configmaps", ConfigMap),
    _rbac("Role", "roles", Role, namespaced=True),
    _rbac("RoleBinding", "rolebindings", RoleBinding, namespaced=True),
    _rbac("ClusterRole", "clusterroles", ClusterRole, namespaced=False),
    _rbac("ClusterRoleBinding", "clusterrolebindings", ClusterRoleBinding, namespaced=False),
    Kind(
        name="EndpointSlice",
        plural="endpointslices",
        group="discovery.k8s.io",
        versions=("v1", "v1beta1"),
        row=EndpointSlice,
    ),
)

_BY_API_VERSION: Final = {
    (api_version, kind.name): kind for kind in KINDS for api_version in kind.api_versions
}
_BY_GROUP: Final = {(kind.group, kind.name): kind for kind in KINDS}


def find(api_version: Any, name: Any) -> Kind | None:
    """Return the kind for an object's `apiVersion` and `kind`, if we hold it in that version."""
    try:
        return _BY_API_VERSION.get((api_version, name))
    except TypeError:  # not text at all
        return None


def in_group(api_version: str, name: str) -> Kind | None:
    """Return the kind of that name in the same group, whatever the version."""
    return _BY_GROUP.get((api_version.rpartition("/")[0], name))
