"""
Proxy classes: all that may change what a proxy is served, and nothing else.

Proxies of one class share every byte. A class has parts, so that what depends on one part is
shared across classes that differ elsewhere: the outbound view, the inbound ports, and the view of
endpoints. Keep these small: a part that is unique per proxy undoes the sharing.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.graph.tables import Table
from pilothouse.model.authentication import (
    Authentication,
    MtlsMode,
    PortMode,
    authentication_of,
)
from pilothouse.model.endpoint_policy import Client, labels_read
from pilothouse.model.endpoints import EndpointsKey
from pilothouse.model.inbound_ports import InboundPort, inbound_ports
from pilothouse.model.inputs import DESTINATION_RULES, SERVICE_ENTRIES, VIRTUAL_SERVICES
from pilothouse.model.mesh import known_clusters
from pilothouse.model.networks import Reach, has_gateways
from pilothouse.model.proxies import (
    CertificateSource,
    InterceptionMode,
    NodeType,
    Profile,
    Proxy,
)
from pilothouse.model.proxy_settings import (
    NO_SETTINGS,
    ProxySettings,
    secret_source,
    settings_of,
)
from pilothouse.model.scopes import Scope, SidecarQuestion, sidecar_for
from pilothouse.model.secret_access import NOBODY, SecretReader, reader_of
from pilothouse.model.topology_labels import NETWORK_LABEL
from pilothouse.model.workloads import cluster_of_proxy, targets, where_it_runs, workload_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    What outbound config depends on.

    `labels` are only those that some rule selects clients by. `domain_suffix` is the DNS suffix of
    the proxy's own services, such as ``svc.cluster.local``. `own_ips` is empty unless the proxy is
    an endpoint of a headless service, whose listeners leave it out (LS-08). With `dns_capture` the
    proxy's agent answers DNS, so hosts have the addresses found for them (traffic.md 3.13).
    `cluster` decides which addresses services have; it is empty for our own.
    """

    scope: Scope
    domain_suffix: str
    labels: tuple[tuple[str, str], ...]
    mode: InterceptionMode
    profile: Profile
    ipv4: bool
    ipv6: bool
    own_ips: tuple[str, ...] = ()
    is_unprivileged: bool = False
    settings: ProxySettings = NO_SETTINGS
    dns_capture: bool = False
    certificates: CertificateSource = CertificateSource.NONE
    cluster: str = ""
    dns_resolver: str = ""

    @property
    def wildcard(self) -> str:
        """The address that stands for all, of the first family."""
        return "0.0.0.0" if self.ipv4 else "::"  # noqa: S104 (Envoy's listener, not ours)

    @property
    def localhost(self) -> str:
        """The loopback address of the first family."""
        return "127.0.0.1" if self.ipv4 else "::1"

    @property
    def more_wildcards(self) -> tuple[str, ...]:
        """The address that stands for all of the second family, if there are two (3.15)."""
        return ("::",) if self.ipv4 and self.ipv6 else ()

    @property
    def more_localhosts(self) -> tuple[str, ...]:
        """The loopback address of the second family, if there are two."""
        return ("::1",) if self.ipv4 and self.ipv6 else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """
    What inbound config depends on.

    `mtls` holds for ports that no service has, unless `other_ports` says otherwise of one;
    `policies` are the PeerAuthentications that say so. Without certificates PERMISSIVE is DISABLE,
    since nobody can use mutual TLS, and STRICT is closed.
    """

    ports: tuple[InboundPort, ...]
    mode: InterceptionMode
    profile: Profile
    ipv4: bool
    ipv6: bool
    settings: ProxySettings = NO_SETTINGS
    certificates: CertificateSource = CertificateSource.NONE
    mtls: MtlsMode = MtlsMode.DISABLE
    other_ports: tuple[PortMode, ...] = ()
    policies: tuple[ConfigRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """
    What load assignments depend on besides the cluster.

    `labels` are those of the client that some object makes endpoints depend on; where it runs is
    among them. Sorted. `reach` is None in a mesh of one network. `own` is the service port whose
    workloads the client is one of, if it asks for them (NM-17).
    """

    labels: Client = ()
    reach: Reach | None = None
    own: EndpointsKey | None = None


NOWHERE: Final = EndpointView()
"""The view of clients that see what all see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyClass:
    """
    All that may change what a proxy is served.

    `listed` is what clusters that list their endpoints themselves (DNS) depend on; unless there are
    such clusters it is `NOWHERE`, so that clusters are not built for each place. `reader` is what
    secrets depend on, and they alone.
    """

    type: NodeType
    view: View
    inbound: Inbound
    endpoints: EndpointView
    listed: EndpointView = NOWHERE
    reader: SecretReader = NOBODY

    @property
    def profile(self) -> Profile:
        """Which build of Envoy the proxies are."""
        return self.view.profile


@query
def selected_label_names(ctx: Ctx, _key: None) -> frozenset[str]:
    """Return the label names by which some rule picks the clients it is for."""
    tables: tuple[Table[ObjectKey, Any], ...] = (VIRTUAL_SERVICES, DESTINATION_RULES)
    return frozenset(str(name) for table in tables for name in ctx.index_values(table, "selects"))


@query
def proxy_class(ctx: Ctx, proxy: Proxy) -> ProxyClass:
    """Return the class of a proxy."""
    labels = ctx.get(workload_labels, proxy)
    sidecar = ctx.get(sidecar_for, SidecarQuestion(proxy.namespace, labels))
    selected = ctx.get(selected_label_names, None)
    served = ctx.get(targets, proxy)
    ipv4 = any(":" not in ip for ip in proxy.ips)
    ipv6 = any(":" in ip for ip in proxy.ips)
    settings = settings_of(ctx, proxy)
    source = secret_source(proxy.certificates, settings.client_files)
    endpoints = _endpoint_view(ctx, proxy, crosses=source is not CertificateSource.NONE)
    _tell_unknown_cluster(ctx, proxy)
    return ProxyClass(
        type=proxy.type,
        view=View(
            scope=Scope(proxy.namespace, sidecar),
            domain_suffix=proxy.domain.removeprefix(f"{proxy.namespace}."),
            labels=tuple(pair for pair in labels if pair[0] in selected),
            mode=proxy.interception_mode,
            profile=proxy.profile,
            ipv4=ipv4,
            ipv6=ipv6,
            own_ips=proxy.ips if any(t.service.is_headless for t in served) else (),
            is_unprivileged=proxy.unprivileged,
            settings=settings,
            dns_capture=proxy.dns_capture,
            dns_resolver=proxy.dns_resolver,
            certificates=source,
            cluster=cluster_of_proxy(ctx, proxy),
        ),
        inbound=_authenticated(
            Inbound(
                ports=inbound_ports(ctx, proxy, sidecar, served),
                mode=proxy.interception_mode,
                profile=proxy.profile,
                ipv4=ipv4,
                ipv6=ipv6,
                settings=settings,
                certificates=secret_source(proxy.certificates, settings.server_files),
            ),
            authentication_of(ctx, proxy.namespace, labels),
        ),
        endpoints=endpoints,
        listed=endpoints if ctx.index_values(SERVICE_ENTRIES, "lists_names") else NOWHERE,
        reader=reader_of(proxy),
    )


def _tell_unknown_cluster(ctx: Ctx, proxy: Proxy) -> None:
    clusters = ctx.get(known_clusters, None)
    said = proxy.cluster_id
    if clusters.others and said and not clusters.knows(said):
        ctx.report(
            Finding(
                Severity.WARNING,
                "UnknownCluster",
                ConfigRef("Cluster", "", said),
                "Proxies say that they are in this cluster, of which nothing is known; they are"
                f" served as those of cluster {clusters.own}.",
                "Add it by --remote-cluster, or correct CLUSTER_ID in the proxies' metadata.",
            )
        )


def _endpoint_view(ctx: Ctx, proxy: Proxy, *, crosses: bool) -> EndpointView:
    reads = ctx.get(labels_read, None)
    has_networks = ctx.get(has_gateways, None) or bool(proxy.networks)
    own = _own_service(ctx, proxy)
    if not reads and not has_networks:
        return EndpointView(own=own) if own else NOWHERE
    labels = where_it_runs(ctx, proxy)
    reach = None
    if has_networks:
        reach = Reach(
            network=labels.get(NETWORK_LABEL, ""),
            ipv4=any(":" not in ip for ip in proxy.ips),
            ipv6=any(":" in ip for ip in proxy.ips),
            crosses=crosses,
            networks=proxy.networks,
        )
    chosen = tuple(sorted((n, v) for n, v in labels.items() if n in reads))
    return EndpointView(labels=chosen, reach=reach, own=own)


def _own_service(ctx: Ctx, proxy: Proxy) -> EndpointsKey | None:
    """Return the oldest service that a proxy serves, for zone-aware routing to count (DR-19)."""
    served = ctx.get(targets, proxy) if proxy.discovers_itself else ()
    return EndpointsKey(served[0].service.key, served[0].port.number) if served else None


def _authenticated(inbound: Inbound, wanted: Authentication) -> Inbound:
    """
    Return inbound config with the modes of its ports (S-PA-2).

    A port with TLS of its own is never opened to plain text: where callers may use mutual TLS of
    the mesh, they must (SC-09).
    """
    has_none = inbound.certificates is CertificateSource.NONE

    def usable(mode: MtlsMode) -> MtlsMode:
        return MtlsMode.DISABLE if has_none and mode is MtlsMode.PERMISSIVE else mode

    def mode_of(port: InboundPort) -> MtlsMode:
        mode = usable(wanted.at(port.port))
        return MtlsMode.STRICT if port.tls and mode is not MtlsMode.DISABLE else mode

    served = {port.port for port in inbound.ports}
    others = (PortMode(port, usable(mode)) for port, mode in wanted.ports if port not in served)
    return replace(
        inbound,
        ports=tuple(replace(port, mtls=mode_of(port)) for port in inbound.ports),
        mtls=usable(wanted.mode),
        other_ports=tuple(others),
        policies=wanted.sources,
    )
