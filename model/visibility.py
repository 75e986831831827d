"""
Visibility: which namespaces take part, and who sees an object (traffic.md 3.3, MC-09, MC-25).

Says whether a client's namespace may see an object at all; what a Sidecar then leaves of it is the
business of `pilothouse.model.imports` and `pilothouse.model.scopes`.
"""

from enum import IntEnum
from typing import Final

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import NAMESPACES
from pilothouse.model.mesh import mesh_config

EVERYWHERE: Final = "*"
OWN_NAMESPACE: Final = "."
NOWHERE: Final = "~"
NAME_LABEL: Final = "kubernetes.io/metadata.name"
"""The label that every namespace of a cluster has."""


class Reach(IntEnum):
    """How far an object is exported, the narrowest first."""

    OWN_NAMESPACE = 0
    NAMED = 1
    EVERYWHERE = 2


def is_exported(export_to: tuple[str, ...], owner: str, client: str) -> bool:
    """Tell whether an object of namespace `owner` is visible to namespace `client`."""
    for entry in export_to:
        if entry in (EVERYWHERE, client) or (entry == OWN_NAMESPACE and owner == client):
            return True
    return False


def reach(export_to: tuple[str, ...], client: str) -> Reach:
    """Return how a client that sees an object comes to see it."""
    if EVERYWHERE in export_to:
        return Reach.EVERYWHERE
    return Reach.NAMED if client in export_to else Reach.OWN_NAMESPACE


def is_discovered(ctx: Ctx, namespace: str, cluster: str = "") -> bool:
    """
    Tell whether the objects of a namespace take part in the mesh (MC-25).

    Without discoverySelectors all do. A namespace need not be there as an object; each cluster's
    own decides for what is there (kube/controller: filters of a client).
    """
    if not ctx.get(mesh_config, None).discovery_selectors:
        return True
    return ctx.get(discovered, ObjectKey("", namespace, cluster))


@query
def discovered(ctx: Ctx, key: ObjectKey) -> bool:
    """Tell whether a discoverySelector matches a namespace of a cluster; say so if none does."""
    row, namespace = ctx.row(NAMESPACES, key), key.name
    labels = {NAME_LABEL: namespace, **(row.meta.labels if row else {})}
    selectors = ctx.get(mesh_config, None).discovery_selectors
    if not selectors or any(selector.matches(labels) for selector in selectors):
        return True
    ctx.report(
        Finding(
            Severity.INFO,
            "NamespaceNotDiscovered",
            ConfigRef("Namespace", "", namespace, "metadata.labels", cluster=key.cluster),
            f"No discoverySelector matches namespace {namespace}; its objects are left out.",
            "Label the namespace, or extend discoverySelectors in the mesh config.",
        )
    )
    return False
