"""
Which objects made a served thing, as its own metadata says.

The format is ours (`filter_metadata.pilothouse.sources`); where it is absent, the object that
Istio's metadata names is given.
"""

from typing import Final

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Metadata
from pilothouse._pb.google.protobuf.struct_pb2 import Struct
from pilothouse.graph.findings import ConfigRef

_OURS: Final = "pilothouse"
_ISTIO: Final = "istio"
_PATH_PARTS: Final = 7  # apis, group, version, namespaces, NAMESPACE, KIND, NAME


def made_by(metadata: Metadata) -> tuple[ConfigRef, ...]:
    """Return the objects named in metadata, in their order; empty where it names none."""
    if _OURS in metadata.filter_metadata:
        entries = metadata.filter_metadata[_OURS].fields["sources"].list_value.values
        return tuple(_ref(entry.struct_value) for entry in entries)
    if _ISTIO in metadata.filter_metadata:
        path = metadata.filter_metadata[_ISTIO].fields["config"].string_value
        parts = path.strip("/").split("/")
        if len(parts) == _PATH_PARTS:
            kind = "".join(word.capitalize() for word in parts[5].split("-"))
            return (ConfigRef(kind, parts[4], parts[6]),)
    return ()


def _ref(entry: Struct) -> ConfigRef:
    fields = entry.fields
    namespace, _, name = fields["object"].string_value.rpartition("/")
    return ConfigRef(fields["kind"].string_value, namespace, name, fields["field"].string_value)
