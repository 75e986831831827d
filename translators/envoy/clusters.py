"""
Outbound clusters (CDS): one per service port and subset a client can see (traffic.md N-01, 2.3).

`outbound_clusters` gathers what a scope sees, shard by shard, so that a changed rule gathers the
services beside it again and not all; `outbound_cluster` builds one cluster and is shared by every
scope that obeys the same rule for it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import config_source_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_pb2
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.model.classes import EndpointView, View
from pilothouse.model.distribution import Distribution
from pilothouse.model.endpoint_policy import Client, endpoint_policy, plan_of
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.entry_traits import entry_traits
from pilothouse.model.layers import ResourceLayer, ShardedLayer
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import ClusterName
from pilothouse.model.networks import Reach, network_gateways, through_gateways
from pilothouse.model.policies import (
    MergedRule,
    Policy,
    RuleKey,
    RuleQuestion,
    governing_rule,
    merged_rule,
    policy_for,
    subset_names,
)
from pilothouse.model.protocols import Protocol
from pilothouse.model.proxies import CertificateSource, TlsFiles
from pilothouse.model.resource import CDS, Resource
from pilothouse.model.scopes import Scope, service_shards
from pilothouse.model.services import Port, Resolution, Service, ServiceKey, service
from pilothouse.model.sharding import Place, Shared, shared
from pilothouse.translators.envoy.cluster_findings import (
    closed_for_tls,
    unused_tunnel,
    without_endpoints,
)
from pilothouse.translators.envoy.cluster_locality import apply_locality
from pilothouse.translators.envoy.cluster_policy import (
    apply_connection_pool,
    apply_load_balancer,
    apply_outlier_detection,
    is_passthrough,
)
from pilothouse.translators.envoy.cluster_transport import (
    Destination,
    apply_transport,
    with_own_files,
)
from pilothouse.translators.envoy.clusters_dns import DnsLookup, apply_dns, lookup_families
from pilothouse.translators.envoy.dynamic_dns import DynamicHost, apply_dynamic_discovery
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.endpoints import labels_of_subset
from pilothouse.translators.envoy.http_options import HttpUpstream, apply_http_options
from pilothouse.translators.envoy.provenance import ISTIO, metadata
from pilothouse.translators.envoy.proxy_protocol import apply_proxy_protocol
from pilothouse.translators.envoy.stat_names import StatSubject, stat_name
from pilothouse.translators.envoy.stateful_sessions import keep_draining
from pilothouse.translators.envoy.upstream_tls import (
    AutomaticNames,
    TlsUnavailable,
    automatic_names,
    brings_certificates,
)

_DNS: Final = (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)


class ClusterView(NamedTuple):
    """What a scope's clusters depend on; `listed` says nothing unless clusters list endpoints."""

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    ipv4: bool
    ipv6: bool
    listed: EndpointView
    preserves_case: bool = False
    certificates: CertificateSource = CertificateSource.NONE
    files: TlsFiles | None = None

    @staticmethod
    def of(view: View, listed: EndpointView) -> "ClusterView":
        """Return the part of a view that clusters depend on."""
        return ClusterView(
            view.scope,
            view.labels,
            view.ipv4,
            view.ipv6,
            listed,
            view.settings.preserves_case,
            view.certificates,
            view.settings.client_files,
        )


class ClusterKey(NamedTuple):
    """
    One cluster: the service port, the subset, and the rule its clients obey.

    `client` is what ranks endpoints that the cluster lists itself, `reach` what leads to them from
    the client's network; both are empty for all others.
    """

    service: ServiceKey
    port: int
    subset: str
    rule: RuleKey | None
    ipv4: bool
    ipv6: bool
    client: Client = ()
    preserves_case: bool = False
    certificates: CertificateSource = CertificateSource.NONE
    files: TlsFiles | None = None
    reach: Reach | None = None


class ClusterShardKey(NamedTuple):
    """The clusters of one shard of a scope's services."""

    view: ClusterView
    place: Place


@query
def outbound_clusters(ctx: Ctx, view: ClusterView) -> ShardedLayer:
    """Return the outbound clusters of a scope (CL-01)."""
    shards = ctx.get(service_shards, view.scope)
    layers = {
        place: ctx.get(cluster_layer, ctx.get(cluster_keys, ClusterShardKey(view, place)))
        for place in shards
    }
    return ShardedLayer(layers, shards.sharding, ClusterName.host_of)


@query
def cluster_keys(ctx: Ctx, key: ClusterShardKey) -> Shared[ClusterKey]:
    """Return which clusters a shard of services has, in service order (CL-01)."""
    services = ctx.item(service_shards, key.view.scope, key.place) or ()
    return shared(each for owner in services for each in _cluster_keys(ctx, key.view, owner))


@query
def cluster_layer(ctx: Ctx, keys: Shared[ClusterKey]) -> ResourceLayer:
    """Return the clusters of some keys, once for all scopes that have them in one shard."""
    found = (ctx.get_or_none(outbound_cluster, each) for each in keys.members)
    return ResourceLayer(each for each in found if each is not None)


def _cluster_keys(ctx: Ctx, view: ClusterView, owner: Service) -> Iterator[ClusterKey]:
    if owner.resolution is Resolution.ALIAS:
        return
    asked = RuleQuestion(view.scope.namespace, view.labels, owner.host, owner.namespace)
    key = governing_rule(ctx, asked)
    subsets = ctx.get(subset_names, key) if key else ()
    if owner.resolution is Resolution.DYNAMIC_DNS:
        subsets = ()  # Envoy's forward proxy has no endpoints to choose from (CL-08)
    for port in owner.ports:
        if port.protocol is Protocol.UDP:
            continue
        for subset in ("", *subsets):
            client = _ranking_client(ctx, view, owner, port, subset, key)
            yield ClusterKey(
                owner.key,
                port.number,
                subset,
                key,
                view.ipv4,
                view.ipv6,
                client,
                view.preserves_case,
                view.certificates,
                view.files,
                view.listed.reach if owner.resolution is Resolution.DNS else None,
            )


def _ranking_client(
    ctx: Ctx, view: ClusterView, owner: Service, port: Port, subset: str, key: RuleKey | None
) -> Client:
    if not view.listed.labels or owner.resolution is not Resolution.DNS:
        return ()
    rule = ctx.get(merged_rule, key) if key else None
    return endpoint_policy(ctx, owner, port.number, subset, rule).seen_by(view.listed.labels)


@query
def outbound_cluster(ctx: Ctx, key: ClusterKey) -> Resource | None:
    """Gather what shapes one cluster and build it; None if a DNS cluster has no endpoint."""
    owner = ctx.get(service, key.service)
    port = owner.port(key.port) if owner else None
    if owner is None or port is None:
        return None
    rule = ctx.get(merged_rule, key.rule) if key.rule else None
    mesh = ctx.get(mesh_config, None)
    policy = policy_for(rule, key.port, key.subset, mesh.default_traffic_policy)
    if key.files is not None:
        policy = replace(policy, tls=with_own_files(policy.tls, owner, key.files))
    name = ClusterName(key.port, key.subset, owner.host)
    subject = StatSubject(owner, port, key.subset)
    stats = stat_name(mesh.outbound_cluster_stat_name, subject, str(name))
    cluster = cluster_pb2.Cluster(name=str(name), alt_stat_name=f"{stats};")
    if not _apply_discovery(ctx, cluster, owner, port, key, policy):
        return None
    apply_connection_pool(cluster, policy, mesh)
    # A distribution has clients told of endpoints that are not ready, which panic would use.
    is_distributed = owner.distribution is not Distribution.ANY
    apply_outlier_detection(cluster, policy, never_panics=is_distributed)
    names = _certificate_names(ctx, owner, policy)
    automatic = automatic_names(policy.tls, port.protocol, names)
    upstream = _http_upstream(policy, port.protocol, mesh, automatic)
    upstream = upstream._replace(preserves_case=key.preserves_case)
    apply_http_options(cluster, upstream)
    apply_load_balancer(cluster, policy)
    if owner.session is not None:
        keep_draining(cluster)
    apply_locality(cluster, plan_of(ctx, owner, policy))
    has_secrets = bool(key.rule and key.rule.selector)
    to = Destination(
        owner, port, key.subset, policy.tls, key.certificates, names, has_secrets, key.files
    )
    try:
        apply_transport(ctx, cluster, to, upstream)
    except TlsUnavailable as problem:
        if rule is not None:
            ctx.report(closed_for_tls(rule, name, problem))
        _close(cluster)
    else:
        apply_proxy_protocol(cluster, policy.proxy_protocol)
    if policy.tunnel is not None and rule is not None and port.protocol.is_http:
        ctx.report(unused_tunnel(rule, name))
    return _finish(cluster, owner, key, rule, policy)


def _http_upstream(
    policy: Policy, protocol: Protocol, mesh: MeshConfig, automatic: AutomaticNames
) -> HttpUpstream:
    ejection = policy.outlier_detection
    return HttpUpstream(
        protocol=protocol,
        pool=policy.connection_pool,
        upgrades=mesh.h2_upgrade_policy == "UPGRADE",
        auto_sni=automatic.sni,
        auto_san=automatic.san,
        error_codes=ejection.outlier_detection_http_error_codes if ejection else (),
    )


def _certificate_names(ctx: Ctx, owner: Service, policy: Policy) -> tuple[str, ...]:
    if owner.is_kubernetes or not brings_certificates(policy.tls):
        return ()
    return ctx.get(entry_traits, ObjectKey(owner.namespace, owner.key.name)).names


def _apply_discovery(
    ctx: Ctx,
    cluster: cluster_pb2.Cluster,
    owner: Service,
    port: Port,
    key: ClusterKey,
    policy: Policy,
) -> bool:
    name = ClusterName(key.port, key.subset, owner.host)
    if owner.resolution is Resolution.DYNAMIC_DNS:
        names = _certificate_names(ctx, owner, policy)
        checks_names = all(automatic_names(policy.tls, port.protocol, names))
        host = DynamicHost(owner.host, key.ipv4, key.ipv6)
        apply_dynamic_discovery(cluster, host, checks_names=checks_names)
        return True
    if owner.resolution is Resolution.ORIGINAL_DESTINATION or is_passthrough(policy):
        cluster.type = cluster_pb2.Cluster.ORIGINAL_DST
        cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
        passes = owner.resolution is Resolution.ORIGINAL_DESTINATION and not owner.is_kubernetes
        target = port.target if passes else None
        if isinstance(target, int) and target != port.number:
            cluster.original_dst_lb_config.upstream_port_override.value = target  # CL-11
        return True
    if owner.resolution is Resolution.ENDPOINTS:
        cluster.type = cluster_pb2.Cluster.EDS
        cluster.eds_cluster_config.CopyFrom(_EDS)
        cluster.eds_cluster_config.service_name = str(name)
        return True
    races = ctx.get(entry_traits, ObjectKey(owner.namespace, owner.key.name)).races
    lookup = DnsLookup(
        is_strict=owner.resolution is Resolution.DNS and not races,
        families=lookup_families(ipv4=key.ipv4 or races, ipv6=key.ipv6 or races),
        refresh_rate=ctx.get(mesh_config, None).dns_refresh_rate,
    )
    rule = ctx.get(merged_rule, key.rule) if key.rule else None
    labels = labels_of_subset(rule, key.subset) or ()
    every = ctx.get(endpoints, EndpointsKey(owner.key, key.port))
    chosen = [endpoint for endpoint in every if endpoint.has_labels(labels)]
    seen = endpoint_policy(ctx, owner, key.port, key.subset, rule)
    if key.reach is not None:
        meant = seen.meant(chosen, dict(key.client))
        gateways, crosses = ctx.get(network_gateways, None), seen.crosses_networks
        chosen = list(through_gateways(meant, gateways, key.reach, crosses=crosses))
    if not apply_dns(cluster, lookup, chosen, seen, key.client):
        ctx.report(without_endpoints(owner, name))
        return False
    return True


def _close(cluster: cluster_pb2.Cluster) -> None:
    # Fail closed: a cluster without endpoints answers 503 and sends nothing anywhere.
    closed = cluster_pb2.Cluster(
        name=cluster.name,
        alt_stat_name=cluster.alt_stat_name,
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=cluster.connect_timeout,
        circuit_breakers=cluster.circuit_breakers,
        load_assignment=endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster.name),
    )
    cluster.CopyFrom(closed)


def _finish(
    cluster: cluster_pb2.Cluster,
    owner: Service,
    key: ClusterKey,
    rule: MergedRule | None,
    policy: Policy,
) -> Resource:
    sources = rule.sources if rule else ()
    if key.subset:
        sources = tuple(source.at(f"spec.subsets[name={key.subset}]") for source in sources)
    cluster.metadata.CopyFrom(
        metadata(
            (owner.source, *sources),
            config=sources[0] if sources else None,
            services=(owner.called,),
            subset=key.subset,
            is_external=owner.is_mesh_external,
            with_generation=False,
        )
    )
    if brings_certificates(policy.tls):
        # The proxy must not offer the mesh's own protocols there (N-68).
        cluster.metadata.filter_metadata[ISTIO].fields["alpn_override"].string_value = "false"
    is_eds = cluster.type == cluster_pb2.Cluster.EDS
    refs = (*(source.ref for source in sources), owner.source.ref)
    return Resource(CDS, cluster.name, encode(cluster), refs, cluster.name if is_eds else None)


def _ads() -> config_source_pb2.ConfigSource:
    source = config_source_pb2.ConfigSource(resource_api_version=config_source_pb2.V3)
    source.ads.SetInParent()
    source.initial_fetch_timeout.SetInParent()  # wait for ever (N-67)
    return source


_EDS: Final = cluster_pb2.Cluster.EdsClusterConfig(eds_config=_ads())
