"""
The two bases of all API types, and the shapes that several kinds share.

`ApiStruct` is strict: a field the API does not have is never passed over in silence.
`KubernetesStruct` declares only what we may read of objects that are not our API; the rest of such
an object is skipped, so that writes to it compare equal. Types only; no rules live here.
"""

import msgspec


class ApiStruct(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """A message of the Istio API; attributes are the API's names in snake case."""


class KubernetesStruct(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A part of a Kubernetes object; fields we never read are left out."""


class WorkloadLabels(ApiStruct, frozen=True):
    """WorkloadSelector of networking.istio.io: all labels must match; none matches everything."""

    labels: dict[str, str] = {}


class MatchLabels(ApiStruct, frozen=True):
    """WorkloadSelector of type.istio.io, which spells its field `matchLabels`."""

    match_labels: dict[str, str] = {}


class LabelRequirement(ApiStruct, frozen=True):
    """One expression of a label selector: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(ApiStruct, frozen=True):
    """A Kubernetes label selector: labels and expressions, all of which must hold."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether the labels satisfy every part; an unknown operator never does."""
        if any(labels.get(name) != value for name, value in self.match_labels.items()):
            return False
        return all(_holds(each, labels) for each in self.match_expressions)


def _holds(requirement: LabelRequirement, labels: dict[str, str]) -> bool:
    present = requirement.key in labels
    match requirement.operator:
        case "In":
            return present and labels[requirement.key] in requirement.values
        case "NotIn":
            return not present or labels[requirement.key] not in requirement.values
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case _:
            return False
