"""Inbound clusters, and the clusters every sidecar has (traffic.md N-02, N-05 to N-07, CL-09)."""

from typing import NamedTuple

from msgspec import structs

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from pilothouse.api.destination_rule import ConnectionPool
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.graph.core import Ctx, query
from pilothouse.model.classes import Inbound
from pilothouse.model.inbound_ports import InboundPort
from pilothouse.model.layers import ResourceLayer
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import (
    BLACK_HOLE_CLUSTER,
    INBOUND_PASSTHROUGH_CLUSTER,
    PASSTHROUGH_CLUSTER,
    InboundClusterName,
)
from pilothouse.model.policies import (
    MergedRule,
    Policy,
    RuleQuestion,
    governing_rule,
    merged_rule,
    policy_for,
)
from pilothouse.model.resource import CDS, Resource
from pilothouse.translators.envoy.cluster_policy import apply_connection_pool
from pilothouse.translators.envoy.connection_settings import preserved_case
from pilothouse.translators.envoy.encoding import encode, pack
from pilothouse.translators.envoy.filter_chains import socket_address
from pilothouse.translators.envoy.http_options import (
    HTTP_OPTIONS,
    HttpUpstream,
    apply_http_options,
)
from pilothouse.translators.envoy.provenance import metadata
from pilothouse.translators.envoy.stat_names import inbound_stat_name, is_declared

PASSTHROUGH_BIND_IPV4 = "127.0.0.6"
PASSTHROUGH_BIND_IPV6 = "::6"
"""Source addresses that tell a proxy's own inbound traffic from the application's (3.16)."""
IDLE_TIMEOUT_SECONDS = 300
NEVER_SECONDS = 3600 * 24 * 365 * 100
_NEVER_REDIRECTED = ("127.0.0.1:", "[::1]:", "unix://")
"""Endpoints that the workload's redirection leaves alone, so nothing could loop."""


class Families(NamedTuple):
    """Address families of a proxy."""

    ipv4: bool
    ipv6: bool


class StandingKey(NamedTuple):
    """What the clusters that every sidecar has depend on."""

    families: Families
    preserves_case: bool = False


class InboundClusterKey(NamedTuple):
    """One inbound cluster."""

    port: InboundPort
    families: Families
    preserves_case: bool = False


@query
def inbound_clusters(ctx: Ctx, inbound: Inbound) -> ResourceLayer:
    """Return the clusters of a workload's own ports."""
    families = Families(inbound.ipv4, inbound.ipv6)
    found = (
        ctx.get_or_none(
            inbound_cluster, InboundClusterKey(port, families, inbound.settings.preserves_case)
        )
        for port in inbound.ports
    )
    return ResourceLayer(each for each in found if each is not None)


@query
def inbound_cluster(ctx: Ctx, key: InboundClusterKey) -> Resource:
    """
    Build the cluster of one port: the original destination, or a fixed endpoint (CL-09).

    Limits are the Sidecar's, else those of the service's own DestinationRule, else the mesh's
    (DR-65, SC-10); nothing else of a policy counts on this side.
    """
    port = key.port
    name = str(InboundClusterName(port.port))
    mesh = ctx.get(mesh_config, None)
    cluster = cluster_pb2.Cluster(name=name, alt_stat_name=f"{inbound_stat_name(ctx, port)};")
    endpoint = port.endpoint or _localhost_endpoint(key, mesh)
    if endpoint:
        _apply_endpoint(cluster, name, endpoint)
    else:
        _apply_original_destination(cluster)
    if not endpoint.startswith(_NEVER_REDIRECTED):
        _bind_source(cluster, key.families)
    rule = _own_rule(ctx, port)
    policy = policy_for(rule, port.service_port, "", mesh.default_traffic_policy)
    pool = port.pool or policy.connection_pool
    apply_connection_pool(cluster, Policy(connection_pool=pool), mesh)
    upstream = HttpUpstream(
        port.protocol, _without_upgrade(pool), preserves_case=key.preserves_case
    )
    apply_http_options(cluster, upstream)
    sources = rule.sources if rule and rule.policy else ()
    cluster.metadata.CopyFrom(
        metadata(
            (port.source, *sources),
            config=sources[0] if sources else None,
            services=port.services,
            with_generation=False,
        )
    )
    refs = (port.source.ref, *(source.ref for source in sources))
    return Resource(CDS, name, encode(cluster), refs)


def _localhost_endpoint(key: InboundClusterKey, mesh: MeshConfig) -> str:
    # A Sidecar says itself where requests go.
    if mesh.inbound_traffic_policy.mode != "LOCALHOST" or is_declared(key.port):
        return ""
    return f"{'127.0.0.1' if key.families.ipv4 else '[::1]'}:{key.port.port}"


def _own_rule(ctx: Ctx, port: InboundPort) -> MergedRule | None:
    if not port.host:
        return None
    # No labels: a rule that picks its clients never applies here (DR-06).
    rule = governing_rule(ctx, RuleQuestion(port.namespace, (), port.host, port.namespace))
    return ctx.get(merged_rule, rule) if rule else None


def _without_upgrade(pool: ConnectionPool | None) -> ConnectionPool | None:
    # The application gets what the client sent, whatever clients are told to speak (DR-38).
    if pool is None or pool.http is None or pool.http.h2_upgrade_policy == "DEFAULT":
        return pool
    return structs.replace(pool, http=structs.replace(pool.http, h2_upgrade_policy="DEFAULT"))


def _apply_endpoint(cluster: cluster_pb2.Cluster, name: str, endpoint: str) -> None:
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.cluster_name = name
    address = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address
    if endpoint.startswith("unix://"):
        address.pipe.path = endpoint.removeprefix("unix://")
        return
    host, _, number = endpoint.rpartition(":")
    address.CopyFrom(socket_address(host.strip("[]"), int(number)))


def _apply_original_destination(cluster: cluster_pb2.Cluster) -> None:
    cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    cluster.cleanup_interval.seconds = NEVER_SECONDS


def _bind_source(cluster: cluster_pb2.Cluster, families: Families) -> None:
    first = PASSTHROUGH_BIND_IPV4 if families.ipv4 else PASSTHROUGH_BIND_IPV6
    bind = cluster.upstream_bind_config
    bind.source_address.CopyFrom(socket_address(first, 0).socket_address)
    if families.ipv4 and families.ipv6:
        extra = bind.extra_source_addresses.add()
        extra.address.CopyFrom(socket_address(PASSTHROUGH_BIND_IPV6, 0).socket_address)


@query
def standing_clusters(ctx: Ctx, key: StandingKey) -> ResourceLayer:
    """Return BlackHoleCluster, PassthroughCluster and InboundPassthroughCluster."""
    mesh = ctx.get(mesh_config, None)
    defaults = mesh.default_traffic_policy
    policy = Policy(connection_pool=defaults.connection_pool if defaults else None)  # DR-63
    black_hole = cluster_pb2.Cluster(name=BLACK_HOLE_CLUSTER, type=cluster_pb2.Cluster.STATIC)
    outward = cluster_pb2.Cluster(name=PASSTHROUGH_CLUSTER)
    inward = cluster_pb2.Cluster(name=INBOUND_PASSTHROUGH_CLUSTER)
    _bind_source(inward, key.families)
    options = http_protocol_options_pb2.HttpProtocolOptions()
    options.common_http_protocol_options.idle_timeout.seconds = IDLE_TIMEOUT_SECONDS
    http1 = options.use_downstream_protocol_config.http_protocol_options
    http1.SetInParent()
    if key.preserves_case:
        http1.header_key_format.CopyFrom(preserved_case())  # PC-06
    options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    for cluster in (outward, inward):
        _apply_original_destination(cluster)
        cluster.ClearField("cleanup_interval")
        apply_connection_pool(cluster, policy, mesh)
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    black_hole.connect_timeout.FromTimedelta(mesh.connect_timeout)
    for cluster in (black_hole, outward, inward):
        cluster.alt_stat_name = f"{cluster.name};"
    return ResourceLayer(
        Resource(CDS, cluster.name, encode(cluster)) for cluster in (black_hole, outward, inward)
    )
