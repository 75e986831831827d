"""
`filter_metadata` that says which objects made a route, cluster, listener or filter chain.

Two keys: ``istio``, which existing tools read (traffic.md N-68, N-69), and ``pilothouse`` with one
entry per source object: kind, namespace/name, field path and generation.
"""

from collections.abc import Iterable
from typing import Final

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.provenance import ServiceName, Source

ISTIO: Final = "istio"
PILOTHOUSE: Final = "pilothouse"


def metadata(
    sources: Iterable[Source],
    *,
    config: Source | None = None,
    services: Iterable[ServiceName] = (),
    subset: str = "",
    is_external: bool = False,
    with_generation: bool = True,
) -> base_pb2.Metadata:
    """
    Build the metadata of a generated thing.

    `config` is the Istio object that configured it (VirtualService, DestinationRule, Sidecar),
    `services` whom it is for. Leave `with_generation` out of what Envoy rebuilds whenever its bytes
    change (clusters, listeners): an edit that shapes nothing must not drain connections.
    """
    result = base_pb2.Metadata()
    for source in dict.fromkeys(sources):
        listed = result.filter_metadata[PILOTHOUSE].fields["sources"].list_value
        fields = listed.values.add().struct_value.fields
        ref = source.ref
        fields["kind"].string_value = ref.kind
        fields["object"].string_value = ref.object_name
        if ref.path:
            fields["field"].string_value = ref.path
        if with_generation and source.generation:
            fields["generation"].string_value = source.generation
    services = tuple(services)
    if not (config or services or subset or is_external):
        return result
    istio = result.filter_metadata[ISTIO].fields
    if config is not None:
        istio["config"].string_value = config.path
    if subset:
        istio["subset"].string_value = subset
    if is_external:
        istio["external"].bool_value = True
    if services:
        entries = istio["services"].list_value
        for service in services:
            fields = entries.values.add().struct_value.fields
            fields["host"].string_value = service.host
            fields["name"].string_value = service.name
            fields["namespace"].string_value = service.namespace
    return result


def described_sources(described: base_pb2.Metadata | None) -> tuple[ConfigRef, ...]:
    """Return the objects that metadata made here names, in order; none of None."""
    if described is None or PILOTHOUSE not in described.filter_metadata:
        return ()
    listed = described.filter_metadata[PILOTHOUSE].fields["sources"].list_value
    refs = []
    for value in listed.values:
        fields = value.struct_value.fields
        namespace, _, name = fields["object"].string_value.rpartition("/")
        path = fields["field"].string_value if "field" in fields else ""
        refs.append(ConfigRef(fields["kind"].string_value, namespace, name, path))
    return tuple(refs)
