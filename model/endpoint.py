"""
An endpoint: one place where a port of a service is served, and how the workload there is known.

A plain value. Where endpoints come from is the business of `pilothouse.model.endpoints`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final

from pilothouse.model.proxies import Locality
from pilothouse.model.topology_labels import (
    CLUSTER_LABEL,
    LOCAL_CLUSTER,
    NETWORK_LABEL,
    NODE_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

NAME_LABELS: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
REVISION_LABELS: Final = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)


_TOPOLOGY: Final = frozenset(
    {REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL, NODE_LABEL, NETWORK_LABEL, CLUSTER_LABEL}
)


class Health(Enum):
    """Whether an endpoint may be sent traffic; the value is Envoy's HealthStatus."""

    HEALTHY = 1
    UNHEALTHY = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    One place where a port is served.

    `address` is an IP, a host name (DNS resolutions), a Unix path (port 0), or empty if the place
    is reached only through a gateway of its network. `more_addresses` are IPs of the same workload
    in the other family. `labels` are the workload's, sorted. `workload` is the text of N-70, empty
    if unknown. `weight` is at least 1. `account` is who runs it, a SPIFFE path without its trust
    domain (``ns/NAMESPACE/sa/NAME``), empty if unknown. With `takes_mutual_tls` clients that can
    should use it here (S-PA-11). `cluster` is the name of the cluster it is in.
    """

    address: str
    port: int
    more_addresses: tuple[str, ...] = ()
    health: Health = Health.HEALTHY
    weight: int = 1
    locality: Locality = field(default_factory=Locality)
    node: str = ""
    network: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    workload: str = ""
    account: str = ""
    takes_mutual_tls: bool = False
    cluster: str = LOCAL_CLUSTER

    def label(self, name: str) -> str:
        """Return a label of the workload, or where it runs for the labels of topology."""
        own = next((value for key, value in self.labels if key == name), "")
        if name not in _TOPOLOGY:
            return own
        return {
            REGION_LABEL: self.locality.region or own,
            ZONE_LABEL: self.locality.zone or own,
            SUBZONE_LABEL: self.locality.subzone or own,
            NODE_LABEL: self.node or own,
            NETWORK_LABEL: own or self.network,
            CLUSTER_LABEL: self.cluster,
        }[name]

    def has_labels(self, wanted: tuple[tuple[str, str], ...]) -> bool:
        """Tell whether the workload carries every wanted label; topology counts (K8-14)."""
        return all(pair in self.labels or self.label(pair[0]) == pair[1] for pair in wanted)


@lru_cache(maxsize=16384)
def account_path(namespace: str, name: str) -> str:
    """Return the SPIFFE path of a service account; few strings for many endpoints."""
    return f"ns/{namespace}/sa/{name}"


def cluster_of(labels: Mapping[str, str], known: str, *, is_remote: bool) -> str:
    """Return the cluster of a workload: the one it is known in, unless ours lists a stranger."""
    return known if is_remote else labels.get(CLUSTER_LABEL) or known


def workload_text(name: str, namespace: str, labels: Mapping[str, str], cluster: str) -> str:
    """Return ``NAME;NAMESPACE;CANONICAL-NAME;CANONICAL-REVISION;CLUSTER`` (N-70)."""
    canonical = next((labels[label] for label in NAME_LABELS if labels.get(label)), name)
    revision = next((labels[label] for label in REVISION_LABELS if labels.get(label)), "latest")
    revision = "" if revision == "latest" else revision
    return f"{name};{namespace};{canonical};{revision};{cluster}"
