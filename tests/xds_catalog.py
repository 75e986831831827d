"""
A small catalog of resources over the real graph, and a discovery server that serves it.

Stands in for the translators: a row is the text a resource is made of, a proxy's class is the value
of its label `class`. Used by the feature tests of the discovery protocol.
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.graph.core import Graph, query
from pilothouse.graph.findings import ConfigRef
from pilothouse.graph.tables import Table
from pilothouse.model.layers import ResourceLayer, ResourceSet
from pilothouse.model.resource import CDS, EDS, LDS, RDS, Resource
from pilothouse.xds.admission import StreamLimits
from pilothouse.xds.publisher import Publisher, Root
from pilothouse.xds.server import DiscoveryServer
from pilothouse.xds.streams import Streams

CLUSTERS = Table("clusters")
ENDPOINTS = Table("endpoints")
LISTENERS = Table("listeners")
ROUTES = Table("routes")
CLASSES = Table("classes")
TABLES = {CDS: CLUSTERS, EDS: ENDPOINTS, LDS: LISTENERS, RDS: ROUTES}


def _ref(kind, name):
    return (ConfigRef(kind, "default", name),)


@query
def cluster(ctx, name):
    text = ctx.row(CLUSTERS, name)
    made = Cluster(name=name, type=Cluster.EDS, alt_stat_name=text)
    made.eds_cluster_config.eds_config.ads.SetInParent()
    data = made.SerializeToString(deterministic=True)
    return Resource(CDS, name, data, _ref("Service", name), endpoints_name=name)


@query
def listener(ctx, name):
    text = ctx.row(LISTENERS, name)
    made = Listener(name=name, stat_prefix=text)
    manager = hcm_pb2.HttpConnectionManager()
    manager.rds.route_config_name = name
    packed = made.filter_chains.add().filters.add(name="hcm").typed_config
    packed.type_url = "type.googleapis.com/" + manager.DESCRIPTOR.full_name
    packed.value = manager.SerializeToString()
    return Resource(LDS, name, made.SerializeToString(deterministic=True), _ref("Port", name))


@query
def clusters(ctx, _proxy_class):
    names = sorted(row[0] for row in ctx.index_values(CLUSTERS, "all"))
    return ResourceSet((ResourceLayer(ctx.get(cluster, name) for name in names),))


@query
def listeners(ctx, _proxy_class):
    names = sorted(row[0] for row in ctx.index_values(LISTENERS, "all"))
    return ResourceSet((ResourceLayer(ctx.get(listener, name) for name in names),))


@query
def endpoints(ctx, name):
    text = ctx.row(ENDPOINTS, name)
    if text is None:
        return None
    made = ClusterLoadAssignment(cluster_name=name)
    socket = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    socket.address, socket.port_value = text, 80
    return Resource(EDS, name, made.SerializeToString(), _ref("EndpointSlice", name))


@query
def routes(ctx, key):
    proxy_class, name = key
    text = ctx.row(ROUTES, name)
    if text is None:
        return None
    made = RouteConfiguration(name=name)
    made.virtual_hosts.add(name=f"{text}-for-{proxy_class}", domains=["*"])
    return Resource(RDS, name, made.SerializeToString(), _ref("VirtualService", name))


@query
def class_of(ctx, proxy):
    return ctx.row(CLASSES, proxy.name) or dict(proxy.labels).get("class", "any")


for _table in (CLUSTERS, LISTENERS):
    _table.indexes["all"] = lambda key, _row: [(key,)]


class Catalog:
    """The roots of this catalog (`pilothouse.xds.publisher.Roots`), and how its rows are edited."""

    proxy_class = class_of

    def __init__(self):
        self.graph = Graph()

    @staticmethod
    def wildcard(type_url, proxy_class):
        found = {CDS: clusters, LDS: listeners}.get(type_url)
        return None if found is None else Root(found, proxy_class)

    @staticmethod
    def named(type_url, proxy_class, name):
        if type_url == EDS:
            return Root(endpoints, name)
        return Root(routes, (proxy_class, name)) if type_url == RDS else None

    @staticmethod
    def shared_by(type_url, proxy_class):
        return proxy_class if type_url == RDS else None

    def commit(self, *changes):
        """Set (type URL, name, text or None) rows, and rows of other tables by (table, ...)."""
        self.graph.commit((TABLES.get(table, table), name, row) for table, name, row in changes)


@dataclass
class Running:
    """A server in this process, and what it serves."""

    catalog: Catalog
    publisher: Publisher
    streams: Streams
    server: DiscoveryServer
    address: str

    async def put(self, *changes):
        """Commit and publish."""
        self.catalog.commit(*changes)
        return await self.publisher.publish()


@asynccontextmanager
async def running(*, observer=None, ready=True, limits=None, catalog=None, **options):
    """Run a server on a free port of loopback."""
    catalog = catalog or Catalog()
    publisher = Publisher(catalog.graph, Catalog, time.monotonic)
    streams = Streams(publisher, observer=observer, limits=limits or StreamLimits())
    server = DiscoveryServer(streams, **options)
    port = await server.start("127.0.0.1:0")
    if ready:
        streams.set_ready()
    try:
        yield Running(catalog, publisher, streams, server, f"127.0.0.1:{port}")
    finally:
        await server.stop(0.2)


def service(name, *, address="10.0.0.9", text="1"):
    """Return the rows of a service with clusters, endpoints, a listener and routes."""
    return ((CDS, name, text), (EDS, name, address), (LDS, name, text), (RDS, name, text))


async def eventually(condition, timeout_seconds=5.0):
    """Wait for what the server knows and tells nobody: it is looked at until it holds."""
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 (the state of the server has no event)
            await asyncio.sleep(0.005)
