"""
Cluster-local services: their clients are kept to endpoints of their own cluster (MC-16).

The mesh config names hosts; those that belong to a cluster itself are local unless it says not.
"""

from collections.abc import Mapping
from typing import Final

from pilothouse.graph.core import Ctx, query
from pilothouse.model.hosts import matches, most_specific
from pilothouse.model.mesh import domain, mesh_config

DEFAULT_HOSTS: Final = ("*.kube-system.svc", "kubernetes.default.svc")
CONTROL_PLANE: Final = "istiod"


def is_cluster_local(ctx: Ctx, host: str) -> bool:
    """Tell whether clients of a host stay within their cluster; the most specific name decides."""
    hosts = ctx.get(cluster_local_hosts, None)
    best = most_specific(hosts, host)
    return best is not None and hosts[best]


@query
def cluster_local_hosts(ctx: Ctx, _key: None) -> Mapping[str, bool]:
    """Return hosts and wildcards, with whether each is local to its cluster."""
    mesh = ctx.get(mesh_config, None)
    suffix = ctx.get(domain, None)
    own = f"{CONTROL_PLANE}.{mesh.root_namespace}.svc.{suffix}"
    written = {
        host.lower(): each.settings.cluster_local
        for each in mesh.service_settings
        for host in each.hosts
    }
    kept = {
        default: True
        for default in (*(f"{host}.{suffix}" for host in DEFAULT_HOSTS), own)
        # One host that is not local undoes the default that covers it, as upstream.
        if not any(matches(default, host) for host, is_local in written.items() if not is_local)
    }
    return {**kept, **written}
