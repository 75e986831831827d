"""
Traffic distribution: which endpoints clients of a service prefer (K8-07, SE-14).

The field of a Service is Kubernetes' own; the annotation is for older clusters, ServiceEntries and,
as a default, whole namespaces. Plain values: precedence is decided in `pilothouse.model.topology`.
"""

from enum import Enum
from typing import Final

from pilothouse.api.meta import ObjectMeta
from pilothouse.model.topology_labels import (
    NETWORK_LABEL,
    NODE_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

DISTRIBUTION_ANNOTATION: Final = "networking.istio.io/traffic-distribution"


class Distribution(Enum):
    """Which endpoints a service's clients prefer."""

    ANY = "any"
    SAME_ZONE = "same zone"
    SAME_NODE = "same node"

    @property
    def labels(self) -> tuple[str, ...]:
        """What client and endpoint should have in common, the weightiest first."""
        zone = (NETWORK_LABEL, REGION_LABEL, ZONE_LABEL)
        match self:
            case Distribution.ANY:
                return ()
            case Distribution.SAME_ZONE:
                return zone
            case Distribution.SAME_NODE:
                return (*zone, SUBZONE_LABEL, NODE_LABEL)


_FIELD: Final = {
    "PreferClose": Distribution.SAME_ZONE,
    "PreferSameZone": Distribution.SAME_ZONE,
    "PreferSameNode": Distribution.SAME_NODE,
}
_ANNOTATION: Final = {
    "": Distribution.ANY,
    **{name.lower(): value for name, value in _FIELD.items()},
}


def of_field(text: str) -> Distribution | None:
    """Return what a Service's field says, None if it says nothing that is known."""
    return _FIELD.get(text)


def annotated(meta: ObjectMeta) -> Distribution:
    """Return what the annotation of an object says, in any letter case."""
    text = meta.annotations.get(DISTRIBUTION_ANNOTATION, "").lower()
    return _ANNOTATION.get(text, Distribution.ANY)


def is_known(meta: ObjectMeta) -> bool:
    """Tell whether the annotation is absent or says something known."""
    return meta.annotations.get(DISTRIBUTION_ANNOTATION, "").lower() in _ANNOTATION
