"""
What a DestinationRule says of opaque connections (traffic.md DR-13, DR-33, DR-34, DR-60).

It belongs to the listener's tcp_proxy and not to a cluster, so of a weighted route only the first
destination's rule counts, and none of its subsets.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from pilothouse.api.destination_rule import Tunnel
from pilothouse.api.duration import Duration
from pilothouse.graph.core import Ctx
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.names import ClusterName
from pilothouse.model.policies import (
    MergedRule,
    RuleQuestion,
    governing_rule,
    merged_rule,
    policy_for,
    tunnel_for,
)
from pilothouse.model.scopes import HostQuestion, Scope, service_for_host


class TcpClient(NamedTuple):
    """Whose connections: proxies of a scope with these labels."""

    scope: Scope
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpPolicy:
    """Times, affinity and tunnel of a tcp_proxy; None means Envoy's default."""

    idle_timeout: Duration | None = None
    max_connection_duration: Duration | None = None
    hashes_source_ip: bool = False
    tunnel: Tunnel | None = None

    def with_default_idle(self, timeout: Duration | None) -> "TcpPolicy":
        """Return the policy with the client's own idle timeout where no rule says one (NM-14)."""
        if timeout is None or self.idle_timeout is not None:
            return self
        return replace(self, idle_timeout=timeout)


NO_TCP_POLICY: Final = TcpPolicy()


def tcp_policy(ctx: Ctx, client: TcpClient, cluster: ClusterName) -> TcpPolicy:
    """Return the policy of connections to a cluster as the client's rule for its host has it."""
    rule = _rule(ctx, client, cluster)
    if rule is None:
        return NO_TCP_POLICY
    policy = policy_for(rule, cluster.port, cluster.subset)
    tcp = policy.connection_pool.tcp if policy.connection_pool else None
    hashing = policy.load_balancer.consistent_hash if policy.load_balancer else None
    return TcpPolicy(
        idle_timeout=tcp.idle_timeout if tcp else None,
        max_connection_duration=tcp.max_connection_duration if tcp else None,
        hashes_source_ip=bool(hashing and hashing.use_source_ip),
        tunnel=tunnel_for(rule, cluster.subset),
    )


def _rule(ctx: Ctx, client: TcpClient, cluster: ClusterName) -> MergedRule | None:
    owner = ctx.get(service_for_host, HostQuestion(client.scope, cluster.host))
    if owner is None:
        return None
    asked = RuleQuestion(client.scope.namespace, client.labels, owner.host, owner.namespace)
    key = governing_rule(ctx, asked)
    return ctx.get(merged_rule, key) if key else None


def report_unused_tunnel(ctx: Ctx, client: TcpClient, cluster: ClusterName) -> None:
    """Say that a subset's tunnel is not used, if it has one: its route has several destinations."""
    rule = _rule(ctx, client, cluster) if cluster.subset else None
    if rule is None or tunnel_for(rule, cluster.subset) is None:
        return
    source = dict(rule.subset_sources)[cluster.subset]
    ctx.report(
        Finding(
            Severity.WARNING,
            "TunnelIgnored",
            source.at(f"{source.ref.path}.tunnel").ref,
            f"A route shares connections between subset {cluster.subset!r} of {cluster.host} and "
            "other destinations, so the tunnel of the subset is not used for them.",
            "Put the tunnel at the top of the rule, or route to the subset alone.",
        )
    )


def apply_tcp_policy(proxy: tcp_proxy_pb2.TcpProxy, policy: TcpPolicy) -> None:
    """Set what the policy says on a tcp_proxy."""
    if policy.idle_timeout is not None:
        proxy.idle_timeout.FromTimedelta(policy.idle_timeout)
    if policy.max_connection_duration is not None:
        proxy.max_downstream_connection_duration.FromTimedelta(policy.max_connection_duration)
    if policy.hashes_source_ip:
        proxy.hash_policy.add().source_ip.SetInParent()
    tunnel = policy.tunnel
    if tunnel is not None:
        host = f"[{tunnel.target_host}]" if ":" in tunnel.target_host else tunnel.target_host
        proxy.tunneling_config.hostname = f"{host}:{tunnel.target_port}"
        proxy.tunneling_config.use_post = tunnel.protocol == "POST"
