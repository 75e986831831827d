"""
A real Envoy refuses one resource: the blame lands on the object behind it, and the rest arrives.

The bad resource is slipped in between translation and publication, since no config is known that
makes a bad one (a translator that made one would be fixed).
"""

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from serving import ANY, MESH, Serving, serving
from structlog.testing import capture_logs

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.graph.core import Ctx, Query
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.layers import ResourceLayer, ResourceSet
from pilothouse.model.proxies import InterceptionMode
from pilothouse.model.resource import CDS, LDS, RDS, Resource
from pilothouse.runtime import control_plane
from pilothouse.runtime.settings import Settings
from pilothouse.translators.envoy import roots
from pilothouse.translators.envoy.bootstrap import (
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
)

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

CULPRIT = ConfigRef("EnvoyFilter", "default", "culprit")
CLIENT = Workload(
    name="client",
    namespace="default",
    addresses=("127.0.0.1",),
    labels={"app": "client"},
    interception_mode=InterceptionMode.NONE,
)
# The listener of the service is on a loopback port; nobody needs to reach it here.
FREE_MESH = MESH.replace("port: 80, targetPort", "port: 28731, targetPort")
MORE = FREE_MESH.replace("web", "more").replace("28731", "28732")


def bad_cluster() -> Resource:
    """Return a cluster whose endpoint is no address."""
    cluster = Cluster(name="bad", type=Cluster.STATIC, connect_timeout=timedelta(seconds=1))
    cluster.load_assignment.cluster_name = "bad"
    place = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    place.address.socket_address.address = "not.an.ip"
    place.address.socket_address.port_value = 1
    return Resource(CDS, "bad", cluster.SerializeToString(), (CULPRIT,))


def bad_listener() -> Resource:
    """Return a listener with a filter that no Envoy has."""
    listener = Listener(name="bad")
    listener.address.socket_address.address = "127.0.0.1"
    listener.address.socket_address.port_value = 28733
    network_filter = listener.filter_chains.add().filters.add(name="nobody.has.this")
    network_filter.typed_config.type_url = "type.googleapis.com/google.protobuf.Struct"
    return Resource(LDS, "bad", listener.SerializeToString(), (CULPRIT,))


def bad_route(good: Resource) -> Resource:
    """Return a route configuration with a regular expression that is none."""
    routes = RouteConfiguration.FromString(good.data)
    match = routes.virtual_hosts[0].routes[0].match
    match.safe_regex.regex = "(*)"
    return Resource(RDS, good.name, routes.SerializeToString(), (CULPRIT, *good.sources))


class Slipping:
    """Answers as `roots` does, with a bad resource in one type while `is_on`."""

    def __init__(self, kind: str) -> None:
        self.proxy_class = roots.proxy_class
        self._kind = kind

        def with_bad_one(ctx: Ctx, key: tuple[Query[Any, Any], Any]) -> Any:
            found = ctx.get(*key)
            if isinstance(found, ResourceSet):
                bad = bad_cluster() if kind == CDS else bad_listener()
                return ResourceSet((ResourceLayer([*found.values(), bad]),))
            return bad_route(found) if found is not None and found.name == "28732" else found

        self._query = Query(with_bad_one)

    def wildcard(self, type_url: str, proxies: Any) -> Any:
        root = roots.wildcard(type_url, proxies)
        return roots.Root(self._query, root) if type_url == self._kind else root

    def named(self, type_url: str, proxies: Any, name: str) -> Any:
        root = roots.named(type_url, proxies, name)
        return roots.Root(self._query, root) if type_url == self._kind else root

    def shared_by(self, type_url: str, proxies: Any) -> Any:
        return roots.shared_by(type_url, proxies)


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("n", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
@pytest.mark.parametrize(
    ("kind", "short", "name"),
    [(CDS, "cds", "bad"), (LDS, "lds", "bad"), (RDS, "rds", "28732")],
    ids=["cluster", "listener", "route"],
)
async def test_a_refused_resource_is_named_and_the_rest_arrives(
    kind: str, short: str, name: str, delta: bool, short_path: Path, monkeypatch: Any
) -> None:
    """XD-05: in syncz, findings, metrics and log, with Envoy's words and the object's name."""
    monkeypatch.setattr(control_plane, "roots", Slipping(kind))
    folder = short_path / "mesh"
    folder.mkdir()
    (folder / "web.yaml").write_text(FREE_MESH)
    (folder / "more.yaml").write_text(MORE)
    settings = Settings(
        config_dir=folder, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY
    )
    with capture_logs() as lines:
        async with serving(settings) as server:
            where = server.ports.grpc
            made = bootstrap(
                CLIENT,
                control_plane=SocketAddress(address=where.host, port=where.port),
                admin=PipeAddress(path=f"{short_path}/admin"),
                delta=delta,
            )
            async with EnvoyProcess(made, short_path / "envoy") as envoy:
                await check(server, envoy, short, name, folder)
    refusals = [line for line in lines if line["event"] == "xds.rejected"]
    # Where Envoy's words name no resource, the server first has to find out which one it was.
    assert refusals[-1]["resources"] == [name]
    assert any(str(CULPRIT) in text for text in refusals[-1]["objects"])


async def check(server: Serving, envoy: EnvoyProcess, short: str, name: str, folder: Path) -> None:
    """Look at what operators see, then at what Envoy has, then at whether changes arrive."""
    (shown,) = await server.until(
        "/debug/syncz", lambda found: bool(found) and bool(found[0].get("rejected"))
    )
    (rejected,) = shown["rejected"]
    assert rejected["name"] == name
    assert rejected["error"]
    assert any(str(CULPRIT) in text for text in rejected["sources"])
    (finding,) = [
        each for each in await server.json("/debug/findings") if each["code"] == "RejectedByProxy"
    ]
    assert (finding["kind"], finding["name"]) == (CULPRIT.kind, CULPRIT.name)
    _, text = await server.get("/metrics")
    assert re.search(rf'^pilot_total_xds_rejects.*"{short}".* [1-9]', text, re.MULTILINE)

    async def clusters() -> str:
        return await envoy.admin("/clusters")

    await eventually(clusters, "outbound|28731||web.default.svc.cluster.local::10.0.0.1:8080")
    (folder / "web.yaml").write_text(FREE_MESH.replace("[10.0.0.1]", "[10.0.0.7]"))
    await eventually(clusters, "outbound|28731||web.default.svc.cluster.local::10.0.0.7:8080")

    async def listeners() -> str:
        return await envoy.admin("/listeners")

    await eventually(listeners, "127.0.0.1_28731")


async def eventually(ask: Callable[[], Awaitable[str]], wanted: str) -> None:
    """Ask until the answer has the wanted text."""
    answer = ""
    try:
        async with asyncio.timeout(10):
            while wanted not in answer:
                answer = await ask()
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{wanted} is not in:\n{answer}")
