"""How the real Envoy refuses resources: each refusal is attributed, and the rest arrives."""

import asyncio
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from xds_catalog import Running, eventually

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.graph.core import Graph, query
from pilothouse.graph.findings import ConfigRef
from pilothouse.graph.tables import Table
from pilothouse.model.resource import CDS, EDS, LDS, RDS, Resource, ResourceLayer, ResourceSet
from pilothouse.translators.envoy.bootstrap import (
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
)
from pilothouse.xds.publisher import Publisher, Root
from pilothouse.xds.server import DiscoveryServer
from pilothouse.xds.streams import Streams

pytestmark = [pytest.mark.envoy]

WORKLOAD = Workload(name="w", namespace="default", addresses=("127.0.0.1",), labels={})
MESSAGES = Table("messages", {"type": lambda key, _row: [key[0]]})
"""(type URL, name) -> (encoded message, name of its load assignment or None)."""


@query
def everything(ctx, type_url):
    rows = ctx.where(MESSAGES, "type", type_url)
    return ResourceSet((ResourceLayer(_resource(type_url, *row) for row in rows),))


@query
def one(ctx, key):
    row = ctx.row(MESSAGES, key)
    return None if row is None else _resource(key[0], *row)


@query
def class_of(_ctx, _proxy):
    return "any"


def _resource(type_url, name, data, eds):
    return Resource(type_url, name, data, (ConfigRef("Test", "default", name),), eds)


class Raw:
    """Roots of whatever messages a test puts in."""

    proxy_class = class_of

    def __init__(self):
        self.graph = Graph()

    @staticmethod
    def wildcard(type_url, _proxy_class):
        return Root(everything, type_url)

    @staticmethod
    def named(type_url, _proxy_class, name):
        return Root(one, (type_url, name))

    def commit(self, *messages):
        self.graph.commit((MESSAGES, *_row(message)) for message in messages)


def _row(message):
    data = message.SerializeToString(deterministic=True)
    match message:
        case Cluster():
            return (CDS, message.name), (message.name, data, message.name)
        case ClusterLoadAssignment():
            return (EDS, message.cluster_name), (message.cluster_name, data, None)
        case Listener():
            return (LDS, message.name), (message.name, data, None)
        case _:
            return (RDS, message.name), (message.name, data, None)


def cluster(name, timeout_seconds=1, *, has_config=True):
    made = Cluster(name=name, type=Cluster.EDS)
    made.connect_timeout.seconds = timeout_seconds
    if has_config:
        config = made.eds_cluster_config.eds_config
        config.ads.SetInParent()
        config.resource_api_version = 2
    return made


def endpoints(name, port=80):
    made = ClusterLoadAssignment(cluster_name=name)
    socket = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    socket.address, socket.port_value = "127.0.0.1", port
    return made


def listener(name, *, stat_prefix="some"):
    made = Listener(name=f"listener-{name}")
    made.address.socket_address.address = "127.0.0.1"
    made.address.socket_address.port_value = 1000 + sum(map(ord, name))
    made.bind_to_port.value = False
    manager = hcm_pb2.HttpConnectionManager(stat_prefix=stat_prefix)
    manager.rds.route_config_name = name
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = 2
    router = manager.http_filters.add(name="envoy.filters.http.router").typed_config
    router.type_url = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    added = made.filter_chains.add().filters.add(name="hcm")
    added.typed_config.type_url = "type.googleapis.com/" + manager.DESCRIPTOR.full_name
    added.typed_config.value = manager.SerializeToString()
    return made


def routes(name, domains=("*",)):
    made = RouteConfiguration(name=name)
    for number, domain in enumerate(domains):
        made.virtual_hosts.add(name=f"host-{number}", domains=[domain])
    return made


def mesh(*names):
    return [make(name) for name in names for make in (cluster, endpoints, listener, routes)]


@asynccontextmanager
async def envoy_of(*messages, delta):
    """A real Envoy served by a server in this process."""
    catalog = Raw()
    catalog.commit(*messages)
    publisher = Publisher(catalog.graph, Raw, time.monotonic)
    streams = Streams(publisher)
    server = DiscoveryServer(streams)
    port = await server.start("127.0.0.1:0")
    streams.set_ready()
    here = Running(catalog, publisher, streams, server, f"127.0.0.1:{port}")
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as folder:
        admin = PipeAddress(path=f"{folder}/admin")
        address = SocketAddress(address="127.0.0.1", port=port)
        made = bootstrap(WORKLOAD, control_plane=address, admin=admin, delta=delta)
        try:
            async with EnvoyProcess(made, Path(folder)) as envoy:
                await envoy.wait_ready()
                yield here, envoy
        finally:
            await server.stop(0.2)


def rejected(here):
    return {r.name: r for s in here.streams.status() for t in s.types for r in t.rejected}


def is_quiet(here):
    types = [t for status in here.streams.status() for t in status.types]
    return bool(types) and all(t.sent_nonce == t.acked_nonce or t.error for t in types)


both = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


async def runs_with(envoy, *texts):
    """Wait until every text is in the config the Envoy runs with."""
    async with asyncio.timeout(10):
        while True:
            dump = str(await envoy.config_dump())
            if all(text in dump for text in texts):
                return
            await asyncio.sleep(0.02)


@both
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (cluster("outbound|80||bad", -1), "Expected positive duration"),
        (cluster("outbound|80||bad", has_config=False), "EDS"),
        (listener("outbound|80||bad", stat_prefix=""), "StatPrefix"),
        (routes("b", ("x.example", "x.example")), "x.example"),
    ],
    ids=["constraint", "cluster", "listener", "routes"],
)
async def test_a_refusal_names_its_culprit_and_stops_nothing_else(delta, bad, words):
    """Issue 2, How it is checked: a deliberately invalid resource among good ones."""
    async with envoy_of(*mesh("a", "b"), delta=delta) as (here, envoy):
        await here.put(bad, *mesh("new"), cluster("a", 7), routes("a", ("a.example",)))
        await eventually(lambda: rejected(here), 10)
        name = bad.name
        (found,) = rejected(here).values()
        assert found.name == name
        assert found.sources == (ConfigRef("Test", "default", name),)
        assert words in found.error
        await runs_with(envoy, *(f"'name': '{kind}new'" for kind in ("", "listener-")))
        await runs_with(envoy, "'connect_timeout': '7s'", "a.example")
        await eventually(lambda: is_quiet(here), 10)
        assert set(rejected(here)) == {name}


@both
async def test_a_changed_cluster_does_not_hang(delta):
    """performance.md B.5: Envoy withholds the ACK of CDS until it gets EDS again."""
    async with envoy_of(*mesh("a", "b"), delta=delta) as (here, envoy):
        await runs_with(envoy, "host-0")
        await here.put(cluster("a", 7))
        await runs_with(envoy, "'connect_timeout': '7s'")
        await eventually(lambda: is_quiet(here), 5)
        assert not rejected(here)
