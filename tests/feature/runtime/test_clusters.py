"""A server of two clusters: directories in, a simulated proxy in each cluster out (K8-20)."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_proxy import FakeProxy, node
from serving import ANY, MESH, ROUTE, Serving, replace_file, serving

from pilothouse.runtime.settings import RemoteCluster, Settings

CLUSTER = "outbound|80||web.default.svc.cluster.local"
THERE = MESH.replace("10.1.0.1", "10.2.0.1").replace("10.0.0.1", "10.9.0.1")
HERE_ID = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local"
THERE_ID = "sidecar~10.9.0.9~client-1.default~default.svc.cluster.local"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The directories of our own cluster and of ``west``, with one service in both."""
    own, west = tmp_path / "own", tmp_path / "west"
    for folder, text in ((own, MESH), (west, THERE)):
        folder.mkdir()
        (folder / "web.yaml").write_text(text)
    return own, west


@asynccontextmanager
async def server_of(own: Path, *remote: tuple[str, Path]) -> AsyncIterator[Serving]:
    """A server whose own cluster is called ``home``."""
    settings = Settings(
        config_dir=own,
        cluster_id="home",
        remote_clusters=tuple(RemoteCluster(*each) for each in remote),
        grpc_addr=ANY,
        secure_grpc_addr=None,
        monitoring_addr=ANY,
    )
    async with serving(settings) as server:
        yield server


def proxy_of(server: Serving, cluster: str, *, delta: bool = True) -> FakeProxy:
    """A proxy that says it is in a cluster."""
    made = node(THERE_ID if cluster == "west" else HERE_ID, {"CLUSTER_ID": cluster})
    return FakeProxy(str(server.ports.grpc), node=made, delta=delta)


def addresses(proxy: FakeProxy) -> set[str]:
    """The endpoints of web."""
    assignment = proxy.endpoints.get(CLUSTER)
    return {
        endpoint.endpoint.address.socket_address.address
        for locality in (assignment.endpoints if assignment is not None else ())
        for endpoint in locality.lb_endpoints
    }


def vips(proxy: FakeProxy) -> set[str]:
    """By which addresses web is called."""
    hosts = proxy.routes["80"].virtual_hosts if "80" in proxy.routes else ()
    domains = {each for host in hosts for each in host.domains if host.name.startswith("web.")}
    return {each for each in domains if each[0].isdigit()}


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_one_service_in_two_clusters(folders: tuple[Path, Path], *, delta: bool) -> None:
    """Both see the endpoints of both, each by its own address; edits there are live here."""
    own, west = folders
    async with server_of(own, ("west", west)) as server:
        here, there = (proxy_of(server, each, delta=delta) for each in ("home", "west"))
        async with here, there:
            for proxy, vip in ((here, "10.1.0.1"), (there, "10.2.0.1")):
                await proxy.until(lambda p: addresses(p) == {"10.0.0.1", "10.9.0.1"})
                await proxy.until(lambda p, vip=vip: vips(p) == {vip})
            replace_file(west / "web.yaml", THERE.replace("[10.9.0.1]", "[10.9.0.7]"))
            await here.until(lambda p: addresses(p) == {"10.0.0.1", "10.9.0.7"})
            (west / "route.yaml").write_text(ROUTE)
            (found,) = await server.until("/debug/findings", bool)
            assert (found["code"], found["cluster"], found["file"]) == (
                "NotReadOfCluster", "west", "route.yaml",
            )  # fmt: skip
        status, text = await server.post("/debug/selfcheck")
        assert (status, json.loads(text)) == (200, {"ok": True, "differing": []})


async def test_an_endpoint_of_another_cluster_costs_what_one_of_ours_does(
    folders: tuple[Path, Path],
) -> None:
    """EDS only, and as few nodes (issue 2, item 3)."""
    own, west = folders
    async with server_of(own, ("west", west)) as server, proxy_of(server, "home") as proxy:
        await proxy.until(lambda p: p.is_complete and addresses(p) == {"10.0.0.1", "10.9.0.1"})
        before = proxy.messages.copy()
        replace_file(west / "web.yaml", THERE.replace("[10.9.0.1]", "[10.9.0.7]"))
        await proxy.until(lambda p: addresses(p) == {"10.0.0.1", "10.9.0.7"})
        sent = {url.rpartition(".")[2] for url in proxy.messages - before}
        assert sent == {"ClusterLoadAssignment"}
        graph = await server.json("/debug/graph")
        assert sum(graph["recomputed_since_last_commit"].values()) <= 6


async def test_a_cluster_that_is_gone_and_one_that_is_removed(folders: tuple[Path, Path]) -> None:
    """Gone keeps the last good, with a finding; removed from the options takes its endpoints."""
    own, west = folders
    async with server_of(own, ("west", west)) as server, proxy_of(server, "home") as proxy:
        await proxy.until(lambda p: addresses(p) == {"10.0.0.1", "10.9.0.1"})
        shutil.move(west, west.with_name("away"))
        (found,) = await server.until("/debug/findings", bool)
        assert (found["code"], found["cluster"]) == ("DirectoryGone", "west")
        assert addresses(proxy) == {"10.0.0.1", "10.9.0.1"}
    async with server_of(own, ("west", west)) as server, proxy_of(server, "home") as proxy:
        await proxy.until(lambda p: addresses(p) == {"10.0.0.1"})
        shutil.move(west.with_name("away"), west)
        await proxy.until(lambda p: addresses(p) == {"10.0.0.1", "10.9.0.1"})
    async with server_of(own) as server, proxy_of(server, "home") as proxy:
        await proxy.until(lambda p: p.is_complete and addresses(p) == {"10.0.0.1"})
        assert await server.json("/debug/findings") == []
