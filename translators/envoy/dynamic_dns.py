"""
Wildcard hosts that the proxy looks up when they are called: resolution DYNAMIC_DNS (SE-17, N-15).

Envoy's dynamic forward proxy has two halves that share a cache by name: a filter that looks the
host of a request (or the SNI of a connection) up, and a cluster that connects to what was found.
Which hosts match is decided before, by virtual host domains and SNI.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from pilothouse._pb.envoy.extensions.clusters.dynamic_forward_proxy.v3 import (
    cluster_pb2 as forward_cluster_pb2,
)
from pilothouse._pb.envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from pilothouse._pb.envoy.extensions.filters.http.dynamic_forward_proxy.v3 import (
    dynamic_forward_proxy_pb2 as http_forward_pb2,
)
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import (
    sni_dynamic_forward_proxy_pb2 as sni_forward_pb2,
)
from pilothouse.translators.envoy.clusters_dns import lookup_families, resolver_at
from pilothouse.translators.envoy.encoding import pack

CLUSTER_TYPE: Final = "envoy.clusters.dynamic_forward_proxy"
HTTP_FILTER: Final = "envoy.filters.http.dynamic_forward_proxy"
SNI_FILTER: Final = "envoy.filters.network.sni_dynamic_forward_proxy"


class DynamicHost(NamedTuple):
    """
    A wildcard host, and the address families its names are looked up in.

    `most_hosts` is how many are remembered, 0 for Envoy's default; `resolver` is who is asked
    (``IP:PORT``), empty for the system's.
    """

    host: str
    ipv4: bool
    ipv6: bool
    most_hosts: int = 0
    resolver: str = ""

    @property
    def cache(self) -> dns_cache_pb2.DnsCacheConfig:
        """The cache that filters and the cluster share; all must say the same of it."""
        config = dns_cache_pb2.DnsCacheConfig(
            name=f"{self.host}_dfp_dns_cache",
            dns_lookup_family=lookup_families(ipv4=self.ipv4, ipv6=self.ipv6),
        )
        if self.most_hosts:
            config.max_hosts.value = self.most_hosts
        if self.resolver:
            config.typed_dns_resolver_config.CopyFrom(resolver_at(self.resolver))
        return config


def apply_dynamic_discovery(
    cluster: cluster_pb2.Cluster, host: DynamicHost, *, checks_names: bool
) -> None:
    """
    Make a cluster connect to the hosts its requests name.

    Without `checks_names` (SNI and certificate names taken from each request) Envoy wants to be
    told that this is meant.
    """
    config = forward_cluster_pb2.ClusterConfig(allow_insecure_cluster_options=not checks_names)
    config.dns_cache_config.CopyFrom(host.cache)
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    cluster.cluster_type.name = CLUSTER_TYPE
    cluster.cluster_type.typed_config.CopyFrom(pack(config))


@lru_cache(maxsize=256)
def dynamic_http_filter(host: DynamicHost) -> hcm_pb2.HttpFilter:
    """Build the filter that looks up the hosts of requests; others pass it untouched."""
    config = http_forward_pb2.FilterConfig()
    config.dns_cache_config.CopyFrom(host.cache)
    return hcm_pb2.HttpFilter(name=HTTP_FILTER, typed_config=pack(config))


def dynamic_sni_filter(host: DynamicHost, port: int) -> components_pb2.Filter:
    """Build the filter that looks up the SNI of connections and goes to that port there."""
    config = sni_forward_pb2.FilterConfig(port_value=port)
    config.dns_cache_config.CopyFrom(host.cache)
    return components_pb2.Filter(name=SNI_FILTER, typed_config=pack(config))
