"""
What a cluster's clients see of its endpoints: who is left out, who comes first (traffic.md 3.12).

An `EndpointPolicy` depends on the rule and the service, not on the client; with the client's labels
that it reads, it decides a load assignment. So clients that differ elsewhere share assignments.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pilothouse.api.mesh_config import DefaultTrafficPolicy
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.tables import Table
from pilothouse.model.cluster_local import is_cluster_local
from pilothouse.model.distribution import Distribution
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.inputs import (
    DESTINATION_RULES,
    NAMESPACES,
    PODS,
    SERVICE_ENTRIES,
    SERVICES,
    WORKLOAD_ENTRIES,
)
from pilothouse.model.locality import NO_PLAN, LocalityPlan, MeshLocality, locality_plan
from pilothouse.model.mesh import known_clusters, mesh_config
from pilothouse.model.policies import MergedRule, Policy, policy_for
from pilothouse.model.services import Service
from pilothouse.model.topology_labels import CLUSTER_LABEL, NODE_LABEL

Client = tuple[tuple[str, str], ...]
"""Labels of a client that matter, sorted; where it runs is among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPolicy:
    """
    How endpoints are chosen for a cluster's clients.

    `crosses_networks` tells that connections are mutual TLS, which gateways of networks ask for.
    """

    plan: LocalityPlan = NO_PLAN
    sends_unhealthy: bool = True
    is_node_local: bool = False
    is_cluster_local: bool = False
    crosses_networks: bool = False

    @property
    def reads(self) -> frozenset[str]:
        """The labels of a client that change what it sees."""
        names = set(self.plan.reads)
        if self.is_node_local:
            names.add(NODE_LABEL)
        if self.is_cluster_local:
            names.add(CLUSTER_LABEL)
        return frozenset(names)

    def seen_by(self, client: Client) -> Client:
        """Return the part of a client that the policy reads."""
        reads = self.reads
        return tuple(pair for pair in client if pair[0] in reads) if reads else ()

    def kept(self, every: Iterable[Endpoint], client: Mapping[str, str]) -> Iterator[Endpoint]:
        """Yield the endpoints a client may know of (K8-06, K8-12, MC-16, DR-43)."""
        return (each for each in self.meant(every, client) if each.address)

    def meant(self, every: Iterable[Endpoint], client: Mapping[str, str]) -> Iterator[Endpoint]:
        """Yield those, and those that are only reached through a gateway of their network."""
        node = client.get(NODE_LABEL, "")
        cluster = client.get(CLUSTER_LABEL, "")  # not told where all is in one
        for endpoint in every:
            if self.is_node_local and endpoint.node != node:
                continue
            if self.is_cluster_local and cluster and endpoint.cluster != cluster:
                continue
            if endpoint.health is Health.UNHEALTHY and not self.sends_unhealthy:
                continue
            yield endpoint


_READERS: Final[tuple[Table[ObjectKey, Any], ...]] = (
    SERVICES, SERVICE_ENTRIES, NAMESPACES, PODS, WORKLOAD_ENTRIES, DESTINATION_RULES,
)  # fmt: skip


class MeshEndpointPolicy(NamedTuple):
    """The part of the mesh config that endpoints depend on."""

    locality: MeshLocality
    defaults: DefaultTrafficPolicy | None
    auto_mtls: bool


@query
def mesh_endpoint_policy(ctx: Ctx, _key: None) -> MeshEndpointPolicy:
    """Return what the mesh config says of endpoints, so that its other changes stop here."""
    mesh = ctx.get(mesh_config, None)
    locality = MeshLocality(mesh.locality_lb_setting, mesh.zone_aware_lb_setting)
    return MeshEndpointPolicy(locality, mesh.default_traffic_policy, mesh.enable_auto_mtls)


@query
def labels_read(ctx: Ctx, _key: None) -> frozenset[str]:
    """Return the labels of clients that some object makes endpoints depend on."""
    names: set[str] = set()
    for table in _READERS:
        names.update(str(name) for name in ctx.index_values(table, "client_reads"))
    if ctx.get(known_clusters, None).others:
        names.add(CLUSTER_LABEL)
    return frozenset(names) | _mesh_reads(ctx)


def _mesh_reads(ctx: Ctx) -> frozenset[str]:
    mesh = ctx.get(mesh_endpoint_policy, None)
    plan = locality_plan(
        Policy(outlier_detection=mesh.defaults.outlier_detection if mesh.defaults else None),
        Distribution.ANY,
        mesh.locality,
    )
    # A rule that adds ejection makes the mesh's labels count; they are few, so they always do.
    labels = mesh.locality.locality.failover_priority if mesh.locality.locality else ()
    return plan.reads | {text for text in labels if "=" not in text}


def plan_of(ctx: Ctx, owner: Service, policy: Policy) -> LocalityPlan:
    """Return the locality plan of a cluster with that effective policy."""
    return locality_plan(policy, owner.distribution, ctx.get(mesh_endpoint_policy, None).locality)


def endpoint_policy(
    ctx: Ctx, owner: Service, port: int, subset: str, rule: MergedRule | None
) -> EndpointPolicy:
    """Return the endpoint policy of a cluster."""
    mesh = ctx.get(mesh_endpoint_policy, None)
    policy = policy_for(rule, port, subset, mesh.defaults)
    ejection = policy.outlier_detection
    is_mutual = mesh.auto_mtls and not owner.is_mesh_external
    if policy.tls is not None:
        is_mutual = policy.tls.mode == "ISTIO_MUTUAL"
    # In panic Envoy would send to unready endpoints it knows of, so it is not told of them, unless
    # a distribution needs to know what is ready nearby.
    may_panic = ejection is not None and ejection.min_health_percent > 0
    return EndpointPolicy(
        plan=locality_plan(policy, owner.distribution, mesh.locality),
        sends_unhealthy=not may_panic or owner.distribution is not Distribution.ANY,
        is_node_local=owner.is_node_local,
        is_cluster_local=is_cluster_local(ctx, owner.host),
        crosses_networks=is_mutual,
    )
