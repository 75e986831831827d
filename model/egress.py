"""Where requests go that no registry knows the host of: outboundTrafficPolicy (MC-05, SC-11)."""

from pilothouse.api.sidecar import Sidecar
from pilothouse.api.virtual_service import Destination
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.hosts import resolve_short_name
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.names import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, ClusterName
from pilothouse.model.scopes import HostQuestion, Scope, service_for_host


@query
def looks_up_unknown(ctx: Ctx, scope: Scope) -> bool:
    """Tell whether the proxy looks up the hosts of HTTP requests to unknown destinations."""
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is not None and row.spec.outbound_traffic_policy is not None:
        return False  # only the mesh may say so
    return ctx.get(mesh_config, None).outbound_traffic_policy.mode == "ALLOW_ANY_DYNAMIC_DNS"


@query
def unknown_destination(ctx: Ctx, scope: Scope) -> str:
    """
    Return the cluster for unknown destinations, of requests unless `looks_up_unknown`.

    PassthroughCluster for ALLOW_ANY, BlackHoleCluster for REGISTRY_ONLY, or the cluster of the
    Sidecar's egress proxy (SC-12).
    """
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is not None and row.spec.outbound_traffic_policy is not None:
        policy = row.spec.outbound_traffic_policy
        if policy.egress_proxy is not None and policy.mode == "ALLOW_ANY":
            return _egress_proxy(ctx, scope, row, policy.egress_proxy)
        allows_any = policy.mode == "ALLOW_ANY"
    else:
        allows_any = ctx.get(mesh_config, None).outbound_traffic_policy.mode != "REGISTRY_ONLY"
    return PASSTHROUGH_CLUSTER if allows_any else BLACK_HOLE_CLUSTER


def _egress_proxy(ctx: Ctx, scope: Scope, row: Sidecar, to: Destination) -> str:
    host = resolve_short_name(to.host, row.meta.namespace, ctx.get(domain, None))
    service = ctx.get(service_for_host, HostQuestion(scope, host))
    number = to.port.number if to.port else 0
    if service is not None and not number and len(service.ports) == 1:
        number = service.ports[0].number
    if service is None or service.port(number) is None:
        ctx.report(
            Finding(
                Severity.ERROR,
                "UnknownEgressProxy",
                row.meta.ref("spec.outboundTrafficPolicy.egressProxy"),
                f"The proxies of {scope.namespace} see no service {host} with this port; requests "
                "to unknown destinations fail.",
                "Name a service that an egress listener imports, and its port.",
            )
        )
        return BLACK_HOLE_CLUSTER
    return str(ClusterName(number, to.subset, service.host))
