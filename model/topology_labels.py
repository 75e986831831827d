"""
Labels for where things run: region, zone, subzone, node, network and cluster.

Rules compare a client with an endpoint by labels; where each runs takes part as labels too, under
the names below (traffic.md 3.10, K8-17). Plain values: reading nodes and namespaces is the business
of `pilothouse.model.topology`.
"""

from collections.abc import Mapping
from typing import Final

from pilothouse.model.proxies import Locality

REGION_LABEL: Final = "topology.kubernetes.io/region"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
SUBZONE_LABEL: Final = "topology.istio.io/subzone"
NODE_LABEL: Final = "kubernetes.io/hostname"
NETWORK_LABEL: Final = "topology.istio.io/network"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"
WHERE_LABELS: Final = (REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL)

LOCAL_CLUSTER: Final = "Kubernetes"
"""The cluster of everything that does not say another; istiod's default name for its own."""

LOCALITY_LABELS: Final = ("topology.istio.io/locality", "istio-locality")
"""Labels of a workload that say its whole locality, the first one wins."""


def labelled_locality(labels: Mapping[str, str]) -> Locality | None:
    """Return the locality a workload's labels say; dots count as slashes if there is no slash."""
    text = next((labels[name] for name in LOCALITY_LABELS if labels.get(name)), "")
    return Locality.parse(text.replace(".", "/") if "/" not in text else text) if text else None


def with_topology(
    labels: Mapping[str, str], locality: Locality, *, node: str, network: str, cluster: str
) -> dict[str, str]:
    """Return the labels with those for where the workload runs; only the network yields to them."""
    known = {
        REGION_LABEL: locality.region,
        ZONE_LABEL: locality.zone,
        SUBZONE_LABEL: locality.subzone,
        NODE_LABEL: node,
        CLUSTER_LABEL: cluster,
    }
    found = {**labels, **{name: value for name, value in known.items() if value}}
    if network and not found.get(NETWORK_LABEL):
        found[NETWORK_LABEL] = network
    return found
