"""
Hosts with rules that no service has, said once for the whole mesh (traffic.md VS-01, DR-01).

Nothing is worked out from this; it only reports.
"""

from collections.abc import Hashable

from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.hosts import is_wildcard, matches
from pilothouse.model.inputs import DESTINATION_RULES
from pilothouse.model.mesh import domain
from pilothouse.model.routing import Routing, routings
from pilothouse.model.services import catalog


@query
def unserved_hosts(ctx: Ctx, _key: None) -> None:
    """Report the hosts of VirtualServices that no service has, whoever may see it."""
    ctx.get(unserved_rules, None)
    served = {service.host for service in ctx.get(catalog, None)}
    for routing in ctx.get(routings, None):
        if not routing.is_for_sidecars_only:
            continue  # its hosts may be there for a gateway
        for index, host in enumerate(routing.hosts):
            if not _is_served(host, served):
                ctx.report(_unserved(routing, index, host))


@query
def unserved_rules(ctx: Ctx, _key: None) -> None:
    """Report the DestinationRules for hosts that no service has; looks at their hosts only."""
    served = {service.host for service in ctx.get(catalog, None)}
    suffix = ctx.get(domain, None)
    for index in ctx.index_values(DESTINATION_RULES, "host"):
        host = _full_name(index, suffix)
        if not _is_served(host, served):
            for row in ctx.where(DESTINATION_RULES, "host", index):
                ctx.report(_unused(row.meta.ref("spec.host"), host))


def _full_name(index: Hashable, suffix: str) -> str:
    match index:
        case (str(name), str(namespace)):  # a short name, and where it was written
            return f"{name}.{namespace}.svc.{suffix}"
    return str(index)


def _is_served(host: str, served: set[str]) -> bool:
    if is_wildcard(host):
        return any(matches(host, each) for each in served)
    return host in served


def _unused(ref: ConfigRef, host: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "HostWithoutService",
        ref,
        f"No Service or ServiceEntry has the host {host}; the rule is never used.",
        "Check the spelling and the namespace, or declare the host in a ServiceEntry.",
    )


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
