"""
What every object has: its name, labels and age.

Values only; nothing here resolves one object from another.
"""

from typing import Final, NamedTuple

import msgspec

from pilothouse.graph.findings import ConfigRef


class ObjectKey(NamedTuple):
    """
    Key of an object within its kind; `namespace` is empty for cluster-scoped kinds.

    `cluster` names a remote cluster; it is empty for objects of the cluster the config is from.
    """

    namespace: str
    name: str
    cluster: str = ""


UNKNOWN_AGE: Final = "9999"
"""Sorts after every RFC 3339 creation time: without a time, order is by name, then namespace."""


class ObjectMeta(msgspec.Struct, frozen=True, gc=False):
    """
    Metadata we read. Written by the decoder, not straight from the wire.

    `created` is the RFC 3339 text of creationTimestamp ("" if absent). `generation` is
    metadata.generation as text, else eight hex digits of the spec's hash, so that a resource can
    say which state of an object made it. `version` is the API version the object was written in.
    `cluster` is as in `ObjectKey`. `controller` is ``KIND/NAME`` of what made a Pod whose name was
    generated.
    """

    kind: str
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    created: str = ""
    generation: str = ""
    api_version: str = ""
    cluster: str = ""
    controller: str = ""

    @property
    def key(self) -> ObjectKey:
        """The object's key within its kind."""
        return ObjectKey(self.namespace, self.name, self.cluster)

    @property
    def age_order(self) -> tuple[str, str, str]:
        """Sort key: creation time, then name, then namespace (traffic.md 3.1)."""
        return (self.created or UNKNOWN_AGE, self.name, self.namespace)

    def ref(self, path: str = "") -> ConfigRef:
        """Return a reference to a field of this object."""
        return ConfigRef(self.kind, self.namespace, self.name, path, cluster=self.cluster)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Tell whether every pair of the selector is among the labels."""
    return all(labels.get(name) == value for name, value in selector.items())
