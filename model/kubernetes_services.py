"""
Services that Kubernetes declares: of each cluster by itself, and of all together (K8-01 to K8-20).

A mesh of one cluster has the second only. What several clusters make of one name is decided in
`pilothouse.model.merged_clusters`.
"""

from typing import Final

from pilothouse.api import kubernetes_core as kubernetes
from pilothouse.api.meta import ObjectKey
from pilothouse.api.sessions import session_of
from pilothouse.graph.core import Ctx, query
from pilothouse.model.inputs import SERVICES
from pilothouse.model.merged_clusters import disagreements, in_order, merged
from pilothouse.model.mesh import mesh_config, registries
from pilothouse.model.protocols import kubernetes_protocol
from pilothouse.model.provenance import Source
from pilothouse.model.service import Placement, Port, Registry, Resolution, Service, ServiceKey
from pilothouse.model.topology import distribution
from pilothouse.model.visibility import is_discovered

EXPORT_TO_ANNOTATION: Final = "networking.istio.io/exportTo"


@query
def kubernetes_service(ctx: Ctx, key: ObjectKey) -> Service | None:
    """Return what the Services of one name make together; `key` names no cluster."""
    domain, clusters = ctx.get(registries, None)
    if not clusters.others:
        row = ctx.row(SERVICES, key)
        return _service(ctx, row, domain) if row else None
    parts = (ctx.get_or_none(declared_service, row.meta.key) for row in service_rows(ctx, key))
    ordered = in_order(part for part in parts if part is not None)
    for finding in disagreements(ordered, clusters):
        ctx.report(finding)
    return merged(ordered) if ordered else None


@query
def declared_service(ctx: Ctx, key: ObjectKey) -> Service | None:
    """Return a Service of one of several clusters as that cluster has it."""
    row = ctx.row(SERVICES, key)
    return _service(ctx, row, ctx.get(registries, None).domain) if row else None


def service_rows(ctx: Ctx, key: ObjectKey) -> tuple[kubernetes.Service, ...]:
    """Return the Services of a name in all known clusters, ours first."""
    own = ctx.row(SERVICES, key)
    others = ctx.get(registries, None).clusters.others
    elsewhere = ctx.where(SERVICES, "elsewhere", key) if others else ()
    return (*((own,) if own else ()), *(row for row in elsewhere if row.meta.cluster in others))


def service_in_cluster(ctx: Ctx, key: ObjectKey) -> Service | None:
    """Return a service as its cluster has it, which is what workloads there serve (K8-18)."""
    has_others = bool(ctx.get(registries, None).clusters.others)
    return ctx.get_or_none(declared_service if has_others else kubernetes_service, key)


def _service(ctx: Ctx, row: kubernetes.Service, domain: str) -> Service | None:
    key, spec = row.meta.key, row.spec
    if not is_discovered(ctx, key.namespace, key.cluster):
        return None
    is_headless = spec.cluster_ip == "None"
    if spec.type == "ExternalName":
        resolution = Resolution.ALIAS
    elif is_headless:
        resolution = Resolution.ORIGINAL_DESTINATION
    else:
        resolution = Resolution.ENDPOINTS
    listed = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    vips = () if is_headless else tuple(ip for ip in listed if ip and ip != "None")
    exported = row.meta.annotations.get(EXPORT_TO_ANNOTATION, "")
    return Service(
        key=ServiceKey(
            Registry.KUBERNETES,
            key.namespace,
            key.name,
            f"{key.name}.{key.namespace}.svc.{domain}",
        ),
        ports=tuple(_port(port) for port in spec.ports),
        resolution=resolution,
        vips=vips,
        export_to=tuple(part.strip() for part in exported.split(",") if part.strip())
        or ctx.get(mesh_config, None).default_service_export_to,
        age_order=row.meta.age_order,
        source=Source.of(row.meta),
        selector=tuple(sorted(spec.selector.items())) or None,
        is_headless=is_headless,
        alias_of=spec.external_name.lower() if resolution is Resolution.ALIAS else "",
        publish_not_ready=bool(spec.publish_not_ready_addresses),
        is_node_local=spec.internal_traffic_policy == "Local",
        distribution=distribution(ctx, row.meta, spec.traffic_distribution),
        placements=(Placement(key.cluster, vips),) if key.cluster else (),
        session=session_of(row.meta.labels),
    )


def _port(port: kubernetes.ServicePort) -> Port:
    return Port(
        number=port.port,
        name=port.name,
        protocol=kubernetes_protocol(port.name, port.protocol, port.app_protocol, port.port),
        target=port.target_port,
    )
