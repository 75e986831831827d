"""
Clusters: which ones the mesh spans, and how rows of the others are told apart (K8-20).

Objects of the cluster that the config is from have no cluster in their keys, so a mesh of one
cluster pays nothing. What the same name in several clusters makes together is the business of
`pilothouse.model.merged_clusters`.
"""

from collections.abc import Hashable
from typing import Any

import msgspec

from pilothouse.model.topology_labels import LOCAL_CLUSTER


class KnownClusters(msgspec.Struct, frozen=True):
    """
    The clusters whose objects are known: `own` is the name of the one the config is from.

    `others` are remote ones, sorted. Rows of a cluster that is not among them count for nothing.
    """

    own: str = LOCAL_CLUSTER
    others: tuple[str, ...] = ()

    def knows(self, name: str) -> bool:
        """Tell whether a cluster of that name is known."""
        return name == self.own or name in self.others

    def name_of(self, cluster: str) -> str:
        """Return the name of a cluster as keys have it: empty there is our own."""
        return cluster or self.own

    def key_of(self, name: str) -> str:
        """Return what keys have for a cluster's name; one that is not known is taken for ours."""
        return name if name in self.others else ""


def placed(value: Hashable, cluster: str) -> Hashable:
    """Return what `value` is indexed under in a cluster: addresses and names repeat elsewhere."""
    return (cluster, value) if cluster else value


def unplaced(place: Hashable) -> tuple[str, Any]:
    """Return the cluster and the value that `placed` made a key of; the value is no tuple."""
    return place if isinstance(place, tuple) else ("", place)
