"""
Hosts that nobody declared, looked up when they are called: ALLOW_ANY_DYNAMIC_DNS (MC-05, N-08).

Only plain-text HTTP says a host that can be looked up. Everything else passes to where the client
sent it, as with ALLOW_ANY.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.classes import View
from pilothouse.model.compliance import compliance
from pilothouse.model.layers import ResourceLayer
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import (
    ALLOW_ANY_DYNAMIC_DNS,
    ALLOW_ANY_DYNAMIC_DNS_CLUSTER,
    ANY_DOMAIN,
)
from pilothouse.model.policies import Policy
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxy_settings import RouteHeaders
from pilothouse.model.resource import CDS, Resource
from pilothouse.model.tls_policy import CompliancePolicy
from pilothouse.translators.envoy.cluster_policy import apply_connection_pool
from pilothouse.translators.envoy.dynamic_dns import DynamicHost, apply_dynamic_discovery
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.http_options import HttpUpstream, apply_http_options
from pilothouse.translators.envoy.route_actions import disable_timeout
from pilothouse.translators.envoy.upstream_tls import (
    TlsTarget,
    TlsUnavailable,
    apply_tls,
    automatic_names,
)

MOST_HOSTS: Final = 1024
"""How many hosts a proxy remembers at once; Envoy's own default, written out as upstream does."""
_HOST: Final = "allow_any"
"""What stands for the host in the name of the cache (N-15)."""


class UnknownHosts(NamedTuple):
    """What the lookup depends on; `lookup` is the cache that filters and the cluster share."""

    lookup: DynamicHost
    preserves_case: bool


def unknown_hosts(view: View) -> UnknownHosts:
    """Return how proxies of a view look up hosts that nobody declared."""
    lookup = DynamicHost(_HOST, view.ipv4, view.ipv6, MOST_HOSTS, view.dns_resolver)
    return UnknownHosts(lookup, view.settings.preserves_case)


@query
def unknown_hosts_cluster(ctx: Ctx, key: UnknownHosts) -> ResourceLayer:
    """Return the cluster that connects to the hosts its requests name."""
    mesh = ctx.get(mesh_config, None)
    defaults = mesh.default_traffic_policy
    pool = defaults.connection_pool if defaults else None
    tls = mesh.outbound_traffic_policy.tls
    automatic = automatic_names(tls, Protocol.HTTP, ())
    cluster = cluster_pb2.Cluster(
        name=ALLOW_ANY_DYNAMIC_DNS_CLUSTER, alt_stat_name=f"{ALLOW_ANY_DYNAMIC_DNS_CLUSTER};"
    )
    apply_dynamic_discovery(cluster, key.lookup, checks_names=all(automatic))
    apply_connection_pool(cluster, Policy(connection_pool=pool), mesh)
    upstream = HttpUpstream(
        protocol=Protocol.AUTO,
        pool=pool,
        auto_sni=automatic.sni,
        auto_san=automatic.san,
        preserves_case=key.preserves_case,
    )
    apply_http_options(cluster, upstream)
    try:
        apply_tls(cluster, tls, _target(mesh, ctx.get(compliance, None)))
    except TlsUnavailable as problem:
        ctx.report(_closed(problem))
        cluster = cluster_pb2.Cluster(
            name=cluster.name,
            alt_stat_name=cluster.alt_stat_name,
            type=cluster_pb2.Cluster.STATIC,
            connect_timeout=cluster.connect_timeout,
            load_assignment=endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster.name),
        )
    return ResourceLayer((Resource(CDS, cluster.name, encode(cluster)),))


def _target(mesh: MeshConfig, policy: CompliancePolicy) -> TlsTarget:
    defaults = mesh.tls_defaults
    return TlsTarget("*", Protocol.HTTP, is_http2=False, defaults=defaults, compliance=policy)


def _closed(problem: TlsUnavailable) -> Finding:
    return Finding(
        Severity.ERROR,
        "TlsUnavailable",
        ConfigRef("MeshConfig", "", "mesh", "outboundTrafficPolicy.tls"),
        f"{problem} Requests to hosts that nobody declared are stopped rather than sent in plain "
        "text or unchecked.",
        problem.remedy,
    )


def unknown_hosts_route(headers: RouteHeaders) -> route_components_pb2.VirtualHost:
    """Build the virtual host of requests to any host that no other has (N-49)."""
    host = route_components_pb2.VirtualHost(
        name=ALLOW_ANY_DYNAMIC_DNS,
        domains=[ANY_DOMAIN],
        include_request_attempt_count=headers.counts_attempts,
    )
    route = host.routes.add(name=ALLOW_ANY_DYNAMIC_DNS)
    route.match.prefix = "/"
    route.route.cluster = ALLOW_ANY_DYNAMIC_DNS_CLUSTER
    route.route.append_x_forwarded_host = headers.forwards_host
    disable_timeout(route.route)
    return host


def unknown_hosts_routes(headers: RouteHeaders) -> route_pb2.RouteConfiguration:
    """Build the routes of connections to addresses that no listener has."""
    routes = route_pb2.RouteConfiguration(
        name=ALLOW_ANY_DYNAMIC_DNS,
        ignore_port_in_host_matching=True,
        virtual_hosts=[unknown_hosts_route(headers)],
    )
    routes.validate_clusters.SetInParent()
    return routes
