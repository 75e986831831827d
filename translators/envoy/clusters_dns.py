"""
Clusters that list host names and resolve them (traffic.md CL-03, CL-04, 3.14).

They hold their endpoints themselves, so they are ranked by where the client runs here rather than
in a load assignment of their own.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import extension_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_pb2
from pilothouse._pb.envoy.extensions.network.dns_resolver.cares.v3 import (
    cares_dns_resolver_pb2,
)
from pilothouse._pb.google.protobuf import duration_pb2
from pilothouse.api.duration import Duration
from pilothouse.model.endpoint import Endpoint
from pilothouse.model.endpoint_policy import Client, EndpointPolicy
from pilothouse.model.priorities import grouped
from pilothouse.translators.envoy.encoding import pack
from pilothouse.translators.envoy.endpoints import encode_assignment
from pilothouse.translators.envoy.filter_chains import socket_address

DNS_JITTER_NANOS: Final = 100_000_000
DNS_QUERIES_PER_SOCKET: Final = 100
RESOLVER: Final = "envoy.network.dns_resolver.cares"


class DnsLookup(NamedTuple):
    """How names are resolved: to all their addresses or one, in which families, how often."""

    is_strict: bool
    families: cluster_pb2.Cluster.DnsLookupFamily
    refresh_rate: Duration


def apply_dns(
    cluster: cluster_pb2.Cluster,
    lookup: DnsLookup,
    every: Iterable[Endpoint],
    policy: EndpointPolicy,
    client: Client,
) -> bool:
    """Make a cluster resolve its endpoints' names; False if there are none, and nothing is set."""
    where = dict(client)
    places = list(policy.kept(every, where))
    if not lookup.is_strict:
        places = places[:1]  # Envoy takes exactly one
    if not places:
        return False
    kind = cluster_pb2.Cluster
    cluster.type = kind.STRICT_DNS if lookup.is_strict else kind.LOGICAL_DNS
    cluster.dns_lookup_family = lookup.families
    cluster.dns_refresh_rate.FromTimedelta(lookup.refresh_rate)
    cluster.respect_dns_ttl = True
    cluster.dns_jitter.CopyFrom(duration_pb2.Duration(nanos=DNS_JITTER_NANOS))
    cluster.typed_dns_resolver_config.CopyFrom(_RESOLVER)
    encoded = encode_assignment(cluster.name, grouped(places, policy.plan, where))
    cluster.load_assignment.CopyFrom(endpoint_pb2.ClusterLoadAssignment.FromString(encoded))
    return True


def lookup_families(*, ipv4: bool, ipv6: bool) -> cluster_pb2.Cluster.DnsLookupFamily:
    """Return the families that clients with these addresses look names up in."""
    if ipv4 and ipv6:
        return cluster_pb2.Cluster.ALL
    return cluster_pb2.Cluster.V4_ONLY if ipv4 else cluster_pb2.Cluster.V6_ONLY


def resolver_at(place: str) -> extension_pb2.TypedExtensionConfig:
    """Return what asks one name server, at ``IP:PORT``."""
    host, _, port = place.rpartition(":")
    config = cares_dns_resolver_pb2.CaresDnsResolverConfig()
    config.resolvers.append(socket_address(host.strip("[]"), int(port)))
    return extension_pb2.TypedExtensionConfig(name=RESOLVER, typed_config=pack(config))


def _resolver() -> extension_pb2.TypedExtensionConfig:
    # A fresh socket now and then, so that a resolver that went away is left (CL-03).
    config = cares_dns_resolver_pb2.CaresDnsResolverConfig()
    config.udp_max_queries.value = DNS_QUERIES_PER_SOCKET
    return extension_pb2.TypedExtensionConfig(name=RESOLVER, typed_config=pack(config))


_RESOLVER: Final = _resolver()
