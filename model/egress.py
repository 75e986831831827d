"""What a scope may reach that no registry knows: outboundTrafficPolicy (MC-05, SC-11)."""

from pilothouse.graph.core import Ctx, query
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.mesh import mesh_config
from pilothouse.model.scopes import Scope


@query
def allows_any(ctx: Ctx, scope: Scope) -> bool:
    """Tell whether unknown destinations are passed on (ALLOW_ANY) or refused (REGISTRY_ONLY)."""
    row = ctx.row(SIDECARS, scope.sidecar) if scope.sidecar else None
    if row is not None and row.spec.outbound_traffic_policy is not None:
        return row.spec.outbound_traffic_policy.mode == "ALLOW_ANY"
    return ctx.get(mesh_config, None).outbound_traffic_policy.mode != "REGISTRY_ONLY"
