"""Where a generated thing came from: the object, the field, and the state of the object."""

from dataclasses import dataclass
from typing import NamedTuple

from pilothouse.api.meta import ObjectMeta
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.names import config_path


class ServiceName(NamedTuple):
    """What statistics call a service (traffic.md N-68)."""

    host: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One object (and field) that shaped a resource; `generation` says in which state."""

    ref: ConfigRef
    api_version: str
    generation: str

    @staticmethod
    def of(meta: ObjectMeta, path: str = "") -> "Source":
        """Return the source an object's metadata names."""
        return Source(meta.ref(path), meta.api_version, meta.generation)

    def at(self, path: str) -> "Source":
        """Return the same object with a field path."""
        return Source(self.ref.at(path), self.api_version, self.generation)

    @property
    def path(self) -> str:
        """Istio's metadata path of the object (N-68)."""
        return config_path(self.api_version, self.ref.namespace, self.ref.kind, self.ref.name)
