"""
Which labels of its clients an object makes config depend on.

Tables are indexed by these, so that classes of proxies differ by where they run only while some
object asks for it (ADR 11). A label that is named here without need costs sharing, a missing one
is a wrong answer: what is read must be a superset of what `pilothouse.model.locality` uses.
"""

from collections.abc import Hashable, Iterator

from pilothouse.api.destination_rule import (
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
)
from pilothouse.api.kubernetes_core import Namespace, Pod, Service
from pilothouse.api.meta import ObjectKey
from pilothouse.api.service_entry import ServiceEntry
from pilothouse.api.virtual_service import VirtualService
from pilothouse.api.workload import WorkloadEntry
from pilothouse.model.distribution import Distribution, annotated, of_field
from pilothouse.model.topology_labels import CLUSTER_LABEL, NODE_LABEL, WHERE_LABELS


def of_service(_key: ObjectKey, row: Service) -> Iterator[Hashable]:
    """Yield the labels a Kubernetes Service asks of clients (K8-06, K8-07)."""
    if row.spec.internal_traffic_policy == "Local":
        yield NODE_LABEL
    yield from (of_field(row.spec.traffic_distribution) or Distribution.ANY).labels
    yield from annotated(row.meta).labels


def of_annotated(_key: ObjectKey, row: Namespace | ServiceEntry) -> Iterator[Hashable]:
    """Yield the labels that an object with nothing but the annotation asks for (SE-14)."""
    yield from annotated(row.meta).labels


def of_labels(_key: ObjectKey, row: Pod | WorkloadEntry) -> Iterator[Hashable]:
    """Yield the cluster's label if a workload says it is of another (MC-16)."""
    if CLUSTER_LABEL in row.meta.labels:
        yield CLUSTER_LABEL


def of_rule(_key: ObjectKey, row: DestinationRule) -> Iterator[Hashable]:
    """Yield the labels a DestinationRule asks of clients (DR-15 to DR-19)."""
    policies = [row.spec.traffic_policy, *(subset.traffic_policy for subset in row.spec.subsets)]
    for policy in policies:
        if policy is not None:
            yield from of_balancing(policy.load_balancer, policy.outlier_detection)
            for entry in policy.port_level_settings:
                yield from of_balancing(entry.load_balancer, entry.outlier_detection)


def of_balancing(balancer: LoadBalancer | None, outliers: OutlierDetection | None) -> Iterator[str]:
    """Yield the labels that balancing asks for; ejection makes localities fail over (DR-17)."""
    locality = balancer.locality_lb_setting if balancer else None
    zone_aware = balancer.zone_aware_lb_setting if balancer else None
    has_shares = locality is not None and bool(locality.distribute)
    if outliers is not None or zone_aware is not None or has_shares:
        yield from WHERE_LABELS
    for setting in (locality, zone_aware):
        for text in setting.failover_priority if setting else ():
            if "=" not in text:  # else the value to compare with is given
                yield text


def selected_by_routes(_key: ObjectKey, row: VirtualService) -> Iterator[Hashable]:
    """Yield the names of the labels by which a VirtualService picks the clients of its rules."""
    for http in row.spec.http:
        for match in http.match:
            yield from match.source_labels
    for tls in row.spec.tls:
        for tls_match in tls.match:
            yield from tls_match.source_labels
    for tcp in row.spec.tcp:
        for tcp_match in tcp.match:
            yield from tcp_match.source_labels


def selected_by_rule(_key: ObjectKey, row: DestinationRule) -> Iterator[Hashable]:
    """Yield the names of the labels by which a DestinationRule picks its clients (DR-06)."""
    if row.spec.workload_selector:
        yield from row.spec.workload_selector.match_labels
