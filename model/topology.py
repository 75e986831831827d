"""
Where things run, as nodes and namespaces say: localities, networks, preferred distribution.

Queries over the few objects that say it, so that a change of such an object stops here unless the
answer changes too.
"""

from collections.abc import Hashable
from typing import Final

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.clusters import unplaced
from pilothouse.model.distribution import (
    DISTRIBUTION_ANNOTATION,
    Distribution,
    annotated,
    is_known,
    of_field,
)
from pilothouse.model.inputs import NAMESPACES, NODES, PODS
from pilothouse.model.mesh import mesh_config
from pilothouse.model.proxies import Locality
from pilothouse.model.topology_labels import (
    NETWORK_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

_OLD_REGION_LABEL: Final = "failure-domain.beta.kubernetes.io/region"
_OLD_ZONE_LABEL: Final = "failure-domain.beta.kubernetes.io/zone"


@query
def node_locality(ctx: Ctx, place: Hashable) -> Locality:
    """Return where a node is, as its labels say (K8-17); its name is `placed` in its cluster."""
    cluster, name = unplaced(place)
    node = ctx.row(NODES, ObjectKey("", name, cluster)) if name else None
    labels = node.meta.labels if node else {}
    return Locality(
        region=labels.get(REGION_LABEL) or labels.get(_OLD_REGION_LABEL, ""),
        zone=labels.get(ZONE_LABEL) or labels.get(_OLD_ZONE_LABEL, ""),
        subzone=labels.get(SUBZONE_LABEL, ""),
    )


@query
def default_network(ctx: Ctx, cluster: str) -> str:
    """Return the network of a cluster, by a label of its root namespace; often none (MN-06)."""
    root = ctx.row(NAMESPACES, ObjectKey("", ctx.get(mesh_config, None).root_namespace, cluster))
    return root.meta.labels.get(NETWORK_LABEL, "") if root else ""


@query
def has_pods(ctx: Ctx, place: Hashable) -> bool:
    """
    Tell whether pods of a namespace are known at all; where none is, none is waited for.

    The namespace is `placed` in a cluster.
    """
    return place in ctx.index_values(PODS, "namespace")


def distribution(ctx: Ctx, meta: ObjectMeta, field: str = "") -> Distribution:
    """Return a service's distribution: its field's, its annotation's, its namespace's (K8-07)."""
    found = of_field(field)
    if found is not None:
        return found
    if field:
        ctx.report(_unknown(meta, "spec.trafficDistribution", field))
    if meta.annotations.get(DISTRIBUTION_ANNOTATION):
        return _annotated(ctx, meta)
    return ctx.get(namespace_distribution, ObjectKey("", meta.namespace, meta.cluster))


@query
def namespace_distribution(ctx: Ctx, key: ObjectKey) -> Distribution:
    """Return the distribution of services of a namespace that say nothing themselves (SE-14)."""
    row = ctx.row(NAMESPACES, key)
    return _annotated(ctx, row.meta) if row else Distribution.ANY


def _annotated(ctx: Ctx, meta: ObjectMeta) -> Distribution:
    if not is_known(meta):
        path = f"metadata.annotations[{DISTRIBUTION_ANNOTATION}]"
        ctx.report(_unknown(meta, path, meta.annotations[DISTRIBUTION_ANNOTATION]))
    return annotated(meta)


def _unknown(meta: ObjectMeta, path: str, text: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "UnknownTrafficDistribution",
        meta.ref(path),
        f'The traffic distribution "{text}" is not known; endpoints everywhere are used alike.',
        "Use PreferSameZone or PreferSameNode.",
    )
