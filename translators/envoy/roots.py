"""
The only list of what can be served: (type, proxy class, name) -> the query that answers.

`wildcard` types are served whole, `named` types one resource at a time. Equal roots are the same
node, so classes that agree on what a resource depends on share it.
"""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, NamedTuple

from pilothouse.graph.core import Ctx, Query, query
from pilothouse.model.classes import EndpointView, Inbound, ProxyClass, View, proxy_class
from pilothouse.model.egress import looks_up_unknown
from pilothouse.model.layers import Layer, ResourceSet
from pilothouse.model.proxies import NodeType
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SDS
from pilothouse.translators.envoy.clusters import ClusterView, outbound_clusters
from pilothouse.translators.envoy.clusters_inbound import (
    Families,
    StandingKey,
    inbound_clusters,
    standing_clusters,
)
from pilothouse.translators.envoy.endpoints import (
    AssignmentQuestion,
    AssignmentView,
    load_assignment_for,
)
from pilothouse.translators.envoy.file_secrets import file_secret, files_of
from pilothouse.translators.envoy.listeners_inbound import inbound_listeners
from pilothouse.translators.envoy.listeners_outbound import outbound_listeners
from pilothouse.translators.envoy.route_configurations import route_configuration
from pilothouse.translators.envoy.secrets import SecretQuestion, secret_for
from pilothouse.translators.envoy.unknown_hosts import unknown_hosts, unknown_hosts_cluster
from pilothouse.translators.envoy.virtual_host_plan import RouteQuestion, RouteView

__all__ = ["Root", "named", "proxy_class", "shared_by", "wildcard"]


class Root(NamedTuple):
    """A query and its key; two equal roots have one value."""

    query: Query[Any, Any]
    key: Any


class ClustersKey(NamedTuple):
    """What the clusters of a class depend on: not where it runs, unless clusters list endpoints."""

    type: NodeType
    view: View
    inbound: Inbound
    listed: EndpointView


class ListenersKey(NamedTuple):
    """What the listeners of a class depend on."""

    type: NodeType
    view: View
    inbound: Inbound


def wildcard(type_url: str, proxies: ProxyClass) -> Root | None:
    """Return the root of a whole type (a ResourceSet), None if the type has no wildcard."""
    kind, view, inbound = proxies.type, proxies.view, proxies.inbound
    if type_url == CDS:
        listed = replace(proxies.listed, own=None) if proxies.listed.own else proxies.listed
        return Root(clusters, ClustersKey(kind, view, inbound, listed))
    if type_url == LDS:
        return Root(listeners, ListenersKey(kind, view, inbound))
    return None


def named(type_url: str, proxies: ProxyClass, name: str) -> Root | None:
    """Return the root of one resource (a Resource or None), None if the type is not served."""
    if type_url == EDS:
        return Root(load_assignment_for, AssignmentQuestion(_assignment_view(proxies), name))
    if type_url == RDS:
        return Root(route_configuration, RouteQuestion(RouteView.of(proxies.view), name))
    if type_url == SDS:
        files = files_of(name)
        if files is not None:
            return Root(file_secret, files)
        return Root(secret_for, SecretQuestion(proxies.reader, name))
    return None


def shared_by(type_url: str, proxies: ProxyClass) -> Hashable:
    """Return the part of a class that decides the roots of `named`, None if none are served."""
    if type_url == EDS:
        return _assignment_view(proxies)
    if type_url == RDS:
        return RouteView.of(proxies.view)
    return proxies.reader if type_url == SDS else None


def _assignment_view(proxies: ProxyClass) -> AssignmentView:
    return AssignmentView(proxies.view.scope, proxies.view.labels, proxies.endpoints)


@query
def clusters(ctx: Ctx, proxies: ClustersKey) -> ResourceSet:
    """Return the clusters of a class: outbound, standing, inbound (CL-01)."""
    if proxies.type is not NodeType.SIDECAR:
        return ResourceSet(())
    view = proxies.view
    standing = StandingKey(Families(view.ipv4, view.ipv6), view.settings.preserves_case)
    layers: list[Layer] = [
        ctx.get(outbound_clusters, ClusterView.of(view, proxies.listed)),
        ctx.get(standing_clusters, standing),
        ctx.get(inbound_clusters, proxies.inbound),
    ]
    if ctx.get(looks_up_unknown, view.scope):
        layers.append(ctx.get(unknown_hosts_cluster, unknown_hosts(view)))
    return ResourceSet(tuple(layers))


@query
def listeners(ctx: Ctx, proxies: ListenersKey) -> ResourceSet:
    """Return the listeners of a class: inbound, then outbound (LS-01)."""
    if proxies.type is not NodeType.SIDECAR:
        return ResourceSet(())
    return ResourceSet(
        (
            ctx.get(inbound_listeners, proxies.inbound),
            ctx.get(outbound_listeners, proxies.view),
        )
    )
