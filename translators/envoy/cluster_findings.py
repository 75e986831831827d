"""What there is to say about outbound clusters: for each an object, a field and a remedy."""

from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.names import ClusterName
from pilothouse.model.policies import MergedRule
from pilothouse.model.policy_sources import tls_source
from pilothouse.model.services import Service
from pilothouse.translators.envoy.upstream_tls import TlsUnavailable


def without_endpoints(owner: Service, name: ClusterName) -> Finding:
    """Say that a cluster that resolves names has none to resolve."""
    subset = f" in subset {name.subset!r}" if name.subset else ""
    return Finding(
        Severity.WARNING,
        "DnsServiceWithoutEndpoints",
        owner.source.at("spec.endpoints").ref,
        f"Port {name.port} of {owner.host} has no endpoint{subset}; requests to it get 503.",
        "Add an endpoint, or correct the labels.",
    )


def unused_tunnel(rule: MergedRule, name: ClusterName) -> Finding:
    """Say that HTTP does not go through a tunnel."""
    return Finding(
        Severity.INFO,
        "TunnelIgnored",
        rule.sources[0].ref,
        f"Port {name.port} of {name.host} carries HTTP; the rule's tunnel is for TCP and TLS and "
        "is not used there.",
        "Give the port a policy of its own, without the tunnel.",
    )


def closed_for_tls(rule: MergedRule, name: ClusterName, problem: TlsUnavailable) -> Finding:
    """Say why a cluster has been closed."""
    source = tls_source(rule, name.port, name.subset) or rule.sources[0]
    return Finding(
        Severity.ERROR,
        "TlsUnavailable",
        source.ref,
        f"{problem} Traffic to port {name.port} of {name.host} is stopped rather than sent in "
        "plain text or unchecked.",
        problem.remedy,
    )
