"""The settings of the mesh as a whole."""

from typing import NamedTuple

from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.graph.core import Ctx, query
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import (
    CLUSTERS,
    DOMAIN,
    MESH_CONFIG,
    MESH_NETWORKS,
    THE_MESH,
    MeshDomain,
)


@query
def mesh_config(ctx: Ctx, _key: None) -> MeshConfig:
    """Return the mesh config, Istio's defaults where nothing is said (traffic.md 2.10)."""
    return ctx.row(MESH_CONFIG, THE_MESH) or MeshConfig()


@query
def domain(ctx: Ctx, _key: None) -> str:
    """Return the DNS domain of Kubernetes services, such as ``cluster.local``."""
    return (ctx.row(DOMAIN, THE_MESH) or MeshDomain()).domain


@query
def known_clusters(ctx: Ctx, _key: None) -> KnownClusters:
    """Return the clusters that the mesh spans."""
    return ctx.row(CLUSTERS, THE_MESH) or KnownClusters()


class Registries(NamedTuple):
    """What every Kubernetes service depends on: the domain they share, and where there are any."""

    domain: str
    clusters: KnownClusters


@query
def registries(ctx: Ctx, _key: None) -> Registries:
    """Return both as one, since thousands read them."""
    return Registries(ctx.get(domain, None), ctx.get(known_clusters, None))


@query
def mesh_networks(ctx: Ctx, _key: None) -> MeshNetworks:
    """Return the networks the mesh was told of; none in a mesh of one network (2.11)."""
    return ctx.row(MESH_NETWORKS, THE_MESH) or MeshNetworks()
