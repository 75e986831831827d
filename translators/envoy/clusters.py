"""
Outbound clusters (CDS): one per service port and subset a client can see (traffic.md N-01, 2.3).

`outbound_clusters` gathers what a scope sees; `outbound_cluster` builds one cluster and is shared
by every scope that obeys the same rule for it.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import config_source_pb2, extension_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_pb2
from pilothouse._pb.envoy.extensions.network.dns_resolver.cares.v3 import (
    cares_dns_resolver_pb2,
)
from pilothouse._pb.google.protobuf import duration_pb2
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.classes import View
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.entry_traits import entry_traits
from pilothouse.model.mesh import mesh_config
from pilothouse.model.names import ClusterName
from pilothouse.model.policies import (
    MergedRule,
    Policy,
    RuleKey,
    RuleQuestion,
    governing_rule,
    merged_rule,
    policy_for,
)
from pilothouse.model.policy_sources import tls_source
from pilothouse.model.protocols import Protocol
from pilothouse.model.resource import CDS, Resource, ResourceLayer
from pilothouse.model.scopes import Scope, scope_services
from pilothouse.model.services import Port, Resolution, Service, ServiceKey, service
from pilothouse.translators.envoy.cluster_policy import (
    apply_connection_pool,
    apply_load_balancer,
    apply_outlier_detection,
    is_passthrough,
)
from pilothouse.translators.envoy.encoding import encode, pack
from pilothouse.translators.envoy.endpoints import encode_assignment
from pilothouse.translators.envoy.http_options import HttpUpstream, apply_http_options
from pilothouse.translators.envoy.provenance import ISTIO, metadata
from pilothouse.translators.envoy.proxy_protocol import apply_proxy_protocol
from pilothouse.translators.envoy.stat_names import StatSubject, stat_name
from pilothouse.translators.envoy.upstream_tls import (
    AutomaticNames,
    TlsTarget,
    TlsUnavailable,
    apply_tls,
    automatic_names,
    brings_certificates,
)

DNS_JITTER_NANOS: Final = 100_000_000
DNS_QUERIES_PER_SOCKET: Final = 100
_DNS: Final = (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)


class ClusterView(NamedTuple):
    """What a scope's clusters depend on."""

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    ipv4: bool
    ipv6: bool

    @staticmethod
    def of(view: View) -> "ClusterView":
        """Return the part of a view that clusters depend on."""
        return ClusterView(view.scope, view.labels, view.ipv4, view.ipv6)


class ClusterKey(NamedTuple):
    """One cluster: the service port, the subset, and the rule its clients obey."""

    service: ServiceKey
    port: int
    subset: str
    rule: RuleKey | None
    ipv4: bool
    ipv6: bool


@query
def outbound_clusters(ctx: Ctx, view: ClusterView) -> ResourceLayer:
    """Return the outbound clusters of a scope, in service order (CL-01)."""
    return ResourceLayer(
        cluster
        for owner in ctx.get(scope_services, view.scope)
        for key in _cluster_keys(ctx, view, owner)
        if (cluster := ctx.get_or_none(outbound_cluster, key)) is not None
    )


def _cluster_keys(ctx: Ctx, view: ClusterView, owner: Service) -> Iterator[ClusterKey]:
    if owner.resolution is Resolution.ALIAS:
        return
    asked = RuleQuestion(view.scope.namespace, view.labels, owner.host, owner.namespace)
    key = governing_rule(ctx, asked)
    subsets = ctx.get(subset_names, key) if key else ()
    for port in owner.ports:
        if port.protocol is Protocol.UDP:
            continue
        for subset in ("", *subsets):
            yield ClusterKey(owner.key, port.number, subset, key, view.ipv4, view.ipv6)


@query
def subset_names(ctx: Ctx, key: RuleKey) -> tuple[str, ...]:
    """Return the subsets a rule declares, in order."""
    rule = ctx.get(merged_rule, key)
    return tuple(subset.name for subset in rule.subsets) if rule else ()


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
    name = ClusterName(key.port, key.subset, owner.host)
    subject = StatSubject(owner, port, key.subset)
    stats = stat_name(mesh.outbound_cluster_stat_name, subject, str(name))
    cluster = cluster_pb2.Cluster(name=str(name), alt_stat_name=f"{stats};")
    if not _apply_discovery(ctx, cluster, owner, port, key, policy):
        return None
    apply_connection_pool(cluster, policy, mesh)
    apply_outlier_detection(cluster, policy)
    names = _certificate_names(ctx, owner, policy)
    automatic = automatic_names(policy.tls, port.protocol, names)
    upstream = _http_upstream(policy, port.protocol, mesh, automatic)
    apply_http_options(cluster, upstream)
    apply_load_balancer(cluster, policy)
    try:
        apply_tls(
            cluster,
            policy.tls,
            TlsTarget(
                host=owner.host,
                protocol=port.protocol,
                is_http2=upstream.is_http2,
                names=names,
                defaults=mesh.tls_defaults,
            ),
        )
    except TlsUnavailable as problem:
        _report_tls(ctx, key, rule, str(problem))
        _close(cluster, name)
    apply_proxy_protocol(cluster, policy.proxy_protocol)
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
    is_strict = owner.resolution is Resolution.DNS and not races
    cluster.type = cluster_pb2.Cluster.STRICT_DNS if is_strict else cluster_pb2.Cluster.LOGICAL_DNS
    cluster.dns_lookup_family = cluster_pb2.Cluster.ALL if races else _lookup_family(key)
    cluster.dns_refresh_rate.FromTimedelta(ctx.get(mesh_config, None).dns_refresh_rate)
    cluster.respect_dns_ttl = True
    cluster.dns_jitter.CopyFrom(duration_pb2.Duration(nanos=DNS_JITTER_NANOS))
    cluster.typed_dns_resolver_config.CopyFrom(_RESOLVER)
    rule = ctx.get(merged_rule, key.rule) if key.rule else None
    labels: tuple[tuple[str, str], ...] = ()
    for subset in rule.subsets if rule else ():
        if subset.name == key.subset:
            labels = tuple(sorted(subset.labels.items()))
    places = [
        endpoint
        for endpoint in ctx.get(endpoints, EndpointsKey(owner.key, key.port))
        if endpoint.has_labels(labels)
    ]
    if not is_strict:
        places = places[:1]  # Envoy takes exactly one
    if not places:
        ctx.report(_without_endpoints(owner, name))
        return False
    cluster.load_assignment.CopyFrom(
        endpoint_pb2.ClusterLoadAssignment.FromString(encode_assignment(str(name), places))
    )
    return True


def _lookup_family(key: ClusterKey) -> cluster_pb2.Cluster.DnsLookupFamily:
    if key.ipv4 and key.ipv6:
        return cluster_pb2.Cluster.ALL
    return cluster_pb2.Cluster.V4_ONLY if key.ipv4 else cluster_pb2.Cluster.V6_ONLY


def _without_endpoints(owner: Service, name: ClusterName) -> Finding:
    subset = f" in subset {name.subset!r}" if name.subset else ""
    return Finding(
        Severity.WARNING,
        "DnsServiceWithoutEndpoints",
        owner.source.at("spec.endpoints").ref,
        f"Port {name.port} of {owner.host} has no endpoint{subset}; requests to it get 503.",
        "Add an endpoint, or correct the labels.",
    )


def _report_tls(ctx: Ctx, key: ClusterKey, rule: MergedRule | None, problem: str) -> None:
    source = tls_source(rule, key.port, key.subset) if rule else None
    if source is None:
        return
    ctx.report(
        Finding(
            Severity.ERROR,
            "TlsUnavailable",
            source.ref,
            f"{problem} Traffic to port {key.port} of {key.service.host} is stopped rather than "
            "sent in plain text.",
            "Use tls mode DISABLE or SIMPLE until this version can issue certificates.",
        )
    )


def _close(cluster: cluster_pb2.Cluster, name: ClusterName) -> None:
    # Fail closed: a cluster without endpoints answers 503 and sends nothing anywhere.
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    for part in ("eds_cluster_config", "least_request_lb_config", "dns_lookup_family"):
        cluster.ClearField(part)
    cluster.load_assignment.CopyFrom(endpoint_pb2.ClusterLoadAssignment(cluster_name=str(name)))


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
            services=(owner,),
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


def _resolver() -> extension_pb2.TypedExtensionConfig:
    # A fresh socket now and then, so that a resolver that went away is left (CL-03).
    config = cares_dns_resolver_pb2.CaresDnsResolverConfig()
    config.udp_max_queries.value = DNS_QUERIES_PER_SOCKET
    return extension_pb2.TypedExtensionConfig(
        name="envoy.network.dns_resolver.cares", typed_config=pack(config)
    )


_RESOLVER: Final = _resolver()
_EDS: Final = cluster_pb2.Cluster.EdsClusterConfig(eds_config=_ads())
