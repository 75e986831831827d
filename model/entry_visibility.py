"""
The ceiling that the mesh config sets on how far ServiceEntries are exported (traffic.md MC-23).

It narrows what exportTo says and never widens it; without `applyToSidecars` it is for proxies of
another kind. The first policy all of whose rules match the labels of an entry's namespace counts.
"""

from typing import Final

from pilothouse.api.mesh_config import ServiceEntryVisibility, Visibility, VisibilityPolicy
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.inputs import NAMESPACES
from pilothouse.model.mesh import mesh_config
from pilothouse.model.provenance import Source
from pilothouse.model.visibility import NAME_LABEL, NOWHERE, OWN_NAMESPACE, is_exported

_SAID: Final = {"NAMESPACE": "its own namespace", "NONE": "nobody"}


def capped(ctx: Ctx, source: Source, export_to: tuple[str, ...]) -> tuple[str, ...]:
    """Return what the ceiling leaves of a ServiceEntry's exportTo, and say so if that is less."""
    wanted = ctx.get(mesh_config, None).service_entry_visibility
    if wanted is None or not wanted.apply_to_sidecars:
        return export_to
    namespace = source.ref.namespace
    ceiling = ctx.get(entry_ceiling, namespace)
    if ceiling not in _SAID:
        return export_to
    at_home = is_exported(export_to, namespace, namespace)
    abroad = set(export_to) - {OWN_NAMESPACE, namespace, NOWHERE}
    if abroad or (at_home and ceiling == "NONE"):
        ctx.report(_narrowed(source, _SAID[ceiling]))
    return (OWN_NAMESPACE,) if at_home and ceiling == "NAMESPACE" else (NOWHERE,)


@query
def entry_ceiling(ctx: Ctx, namespace: str) -> Visibility:
    """Return how far ServiceEntries of a namespace are seen at most."""
    wanted = ctx.get(mesh_config, None).service_entry_visibility or ServiceEntryVisibility()
    row = ctx.row(NAMESPACES, ObjectKey("", namespace))
    labels = {NAME_LABEL: namespace, **(row.meta.labels if row else {})}
    matching = (each for each in wanted.policies if _matches(each, labels))
    first = next(matching, None)
    return first.visibility if first else wanted.default_visibility


def _matches(policy: VisibilityPolicy, labels: dict[str, str]) -> bool:
    # A rule of a kind that is not known matches nothing; a policy without rules everything.
    return all(
        rule.namespace_selector is not None and rule.namespace_selector.matches(labels)
        for rule in policy.matching_rules
    )


def _narrowed(source: Source, left: str) -> Finding:
    return Finding(
        Severity.INFO,
        "VisibilityCapped",
        source.at("spec.exportTo").ref,
        f"The mesh config's serviceEntryVisibility leaves the entry to {left}, less than exportTo.",
        "Label the namespace as its policies ask, or narrow exportTo.",
    )
