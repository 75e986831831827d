"""
Hosts with routing rules that no service has, said once for the whole mesh (traffic.md VS-01).

Nothing is worked out from this; it only reports.
"""

from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.hosts import is_wildcard, matches
from pilothouse.model.routing import Routing, routings
from pilothouse.model.services import catalog


@query
def unserved_hosts(ctx: Ctx, _key: None) -> None:
    """Report the hosts of VirtualServices that no service has, whoever may see it."""
    served = {service.host for service in ctx.get(catalog, None)}
    for routing in ctx.get(routings, None):
        if not routing.is_for_sidecars_only:
            continue  # its hosts may be there for a gateway
        for index, host in enumerate(routing.hosts):
            is_served = host in served or (
                is_wildcard(host) and any(matches(host, each) for each in served)
            )
            if not is_served:
                ctx.report(_unserved(routing, index, host))


def _unserved(routing: Routing, index: int, host: str) -> Finding:
    if routing.has_http:
        severity, effect = Severity.INFO, "sidecars use its HTTP rules on port 80 only"
    else:
        severity, effect = Severity.WARNING, "sidecars never use its rules"
    return Finding(
        severity,
        "HostWithoutService",
        routing.ref.at(f"spec.hosts[{index}]"),
        f"No Service or ServiceEntry has the host {host}; {effect}.",
        "Check the spelling and the namespace, or declare the host in a ServiceEntry.",
    )
