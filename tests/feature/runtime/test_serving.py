"""The whole server, in this process: files in, a simulated proxy out."""

import json
import os
from pathlib import Path

import pytest
from fake_proxy import FakeProxy, node
from google.protobuf import json_format
from prometheus_client.parser import text_string_to_metric_families
from serving import ANY, MESH, ROUTE, Serving, replace_file, serving, until
from structlog.testing import capture_logs

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.admin.v3.config_dump_pb2 import ConfigDump
from pilothouse.errors import SourceError
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.ports import CannotListen
from pilothouse.runtime.settings import Settings

ELSEWHERE = node("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local")
"""A proxy that is not an endpoint itself."""

CLUSTER = "outbound|80||web.default.svc.cluster.local"


def web_timeout(proxy: FakeProxy) -> int | None:
    """Return the timeout in seconds of the route to web, None while there is none."""
    table = proxy.routes.get("80")
    for host in table.virtual_hosts if table is not None else ():
        if host.name == "web.default.svc.cluster.local:80":
            return host.routes[0].route.timeout.ToTimedelta().seconds
    return None


def addresses(proxy: FakeProxy) -> set[str]:
    """Return the endpoints of web."""
    assignment = proxy.endpoints.get(CLUSTER)
    return {
        endpoint.endpoint.address.socket_address.address
        for locality in (assignment.endpoints if assignment is not None else ())
        for endpoint in locality.lb_endpoints
    }


def metric(text: str, name: str, **labels: str) -> float:
    """Return a sample of the metrics text."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name in {name, f"{name}_total"} and found.labels == labels:
                return float(found.value)
    raise AssertionError(f"{name} {labels} is not there")


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_live_edits_reach_a_proxy(server: Serving, mesh: Path, *, delta: bool) -> None:
    """A new file, an edit, a rename-over and a removal are live (issue 2, item 2)."""
    async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE, delta=delta) as proxy:
        await proxy.until(lambda p: p.is_complete and web_timeout(p) == 0)
        (mesh / "route.yaml").write_text(ROUTE)
        await proxy.until(lambda p: web_timeout(p) == 3)
        replace_file(mesh / "route.yaml", ROUTE.replace("3s", "7s"))
        await proxy.until(lambda p: web_timeout(p) == 7)
        replace_file(mesh / "web.yaml", MESH.replace("10.0.0.1]", "10.0.0.1, 10.0.0.2]"))
        (mesh / "route.yaml").unlink()
        await proxy.until(lambda p: web_timeout(p) == 0)
    status, text = await server.post("/debug/selfcheck")
    assert (status, json.loads(text)) == (200, {"ok": True, "differing": []})


async def test_endpoint_change_recomputes_little(server: Serving, mesh: Path) -> None:
    """One EndpointSlice event sends EDS only (issue 2, item 3)."""
    async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE) as proxy:
        await proxy.until(lambda p: p.is_complete and addresses(p) == {"10.0.0.1"})
        before = proxy.messages.copy()
        replace_file(mesh / "web.yaml", MESH.replace("[10.0.0.1]", "[10.0.0.7]"))
        await proxy.until(lambda p: addresses(p) == {"10.0.0.7"})
        sent = {url.rpartition(".")[2] for url in proxy.messages - before}
        assert sent == {"ClusterLoadAssignment"}
        graph = await server.json("/debug/graph")
        assert sum(graph["recomputed_since_last_commit"].values()) <= 6


async def test_broken_file_keeps_the_last_good_version(server: Serving, mesh: Path) -> None:
    """Half-written YAML changes nothing but yields a finding, which goes with the fault."""
    (mesh / "route.yaml").write_text(ROUTE)
    async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE) as proxy:
        await proxy.until(lambda p: web_timeout(p) == 3)
        replace_file(mesh / "route.yaml", ROUTE.replace("timeout: 3s", "timeout: soon"))
        (found,) = await server.until("/debug/findings", bool)
        assert found["severity"] == "error"
        assert found["file"] == "route.yaml"
        assert found["line"] == ROUTE[: ROUTE.index("timeout")].count("\n") + 1
        assert found["path"] == "spec.http[0].timeout"
        assert web_timeout(proxy) == 3
        replace_file(mesh / "route.yaml", ROUTE.replace("3s", "4s"))
        await proxy.until(lambda p: web_timeout(p) == 4)
        assert await server.json("/debug/findings") == []


async def test_directory_may_vanish_and_return(server: Serving, mesh: Path) -> None:
    """A folder that is away keeps its mesh and says so; one that comes back is read anew."""
    async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE) as proxy:
        await proxy.until(lambda p: CLUSTER in p.clusters)
        away = mesh.with_name("away")
        os.rename(mesh, away)  # noqa: PTH104 (as pathlib's, which the linter takes for slow)
        await server.until("/debug/findings", bool)
        assert CLUSTER in proxy.clusters
        replace_file(away / "route.yaml", ROUTE)
        os.rename(away, mesh)  # noqa: PTH104
        await proxy.until(lambda p: web_timeout(p) == 3)
        assert await server.json("/debug/findings") == []


async def test_findings_are_logged_once(mesh: Path) -> None:
    """A fault is said when it comes, not at every commit."""
    (mesh / "bad.yaml").write_text("kind: [")
    settings = Settings(config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY)
    with capture_logs() as lines:
        async with serving(settings) as server:
            (mesh / "route.yaml").write_text(ROUTE)
            await server.until("/debug/graph", lambda graph: graph["revision"] >= 2)
            (mesh / "bad.yaml").unlink()
            await server.until("/debug/findings", lambda found: found == [])
            await until(lambda: any(line["event"] == "config.finding_gone" for line in lines))
    said = [line for line in lines if line["event"] == "config.finding"]
    assert len(said) == 1
    assert said[0]["ref"].startswith("(bad.yaml:")


async def test_operators_see_the_proxy(server: Serving) -> None:
    """syncz, config dump and metrics tell of a connected proxy (issue 2, item 8)."""
    async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE) as proxy:
        await proxy.until(lambda p: p.is_complete)
        (shown,) = await server.until(
            "/debug/syncz",
            lambda found: all(kind["state"] == "SYNCED" for kind in found[0]["resources"].values()),
        )
        assert shown["proxy"] == "client-1.default"
        for kind in ("cluster", "listener", "route", "endpoint"):
            assert shown[f"{kind}_sent"] == shown[f"{kind}_acked"] != ""
        status, text = await server.get("/debug/config_dump?proxyID=client-1.default")
        assert status == 200
        dump = json_format.Parse(text, ConfigDump(), descriptor_pool=POOL)
        assert len(dump.configs) == 4
        assert CLUSTER in text
        _, text = await server.get("/metrics")
        assert metric(text, "pilot_xds", version="unknown") == 1
        assert metric(text, "pilot_services") == 1
        assert metric(text, "pilot_xds_pushes", type="cds") >= 1
        assert metric(text, "pilothouse_proxy_classes") == 1
        assert metric(text, "pilothouse_graph_nodes") > 10
    await server.until("/debug/syncz", lambda found: found == [])
    _, text = await server.get("/metrics")
    assert "pilot_xds{" not in text


async def test_refused_resource_is_traced_to_its_object(server: Serving, mesh: Path) -> None:
    """A NACK names the object at fault in syncz, findings, metrics and log; the rest arrives."""

    def reject(type_url: str, name: str, message: object) -> str | None:
        return f"{name}: no such timeout" if "seconds: 13\n" in str(message) else None

    (mesh / "route.yaml").write_text(ROUTE)
    with capture_logs() as lines:
        async with FakeProxy(str(server.ports.grpc), node=ELSEWHERE, reject=reject) as proxy:
            await proxy.until(lambda p: web_timeout(p) == 3)
            replace_file(mesh / "route.yaml", ROUTE.replace("3s", "13s"))
            (shown,) = await server.until("/debug/syncz", lambda found: "rejected" in found[0])
            (rejected,) = shown["rejected"]
            assert rejected["name"] == "80"
            assert "no such timeout" in rejected["error"]
            assert any(
                text.startswith("VirtualService default/web") for text in rejected["sources"]
            )
            (found,) = await server.json("/debug/findings")
            assert found["code"] == "RejectedByProxy"
            assert (found["kind"], found["name"]) == ("VirtualService", "web")
            assert found["file"] == "route.yaml"
            _, text = await server.get("/metrics")
            assert metric(text, "pilot_total_xds_rejects", type="rds") >= 1
            assert web_timeout(proxy) == 3
            replace_file(mesh / "web.yaml", MESH.replace("[10.0.0.1]", "[10.0.0.7]"))
            await proxy.until(lambda p: addresses(p) == {"10.0.0.7"})
            replace_file(mesh / "route.yaml", ROUTE.replace("3s", "14s"))
            await proxy.until(lambda p: web_timeout(p) == 14)
            await server.until("/debug/findings", lambda found: found == [])
    (line,) = [line for line in lines if line["event"] == "xds.rejected"]
    assert line["resources"] == ["80"]
    assert any("VirtualService default/web" in text for text in line["objects"])


async def test_shutdown_ends_streams(mesh: Path) -> None:
    """A proxy is told to go elsewhere, and readiness is off first (O-2, O-4)."""
    settings = Settings(config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY)
    async with serving(settings) as server:
        proxy = FakeProxy(str(server.ports.grpc))
        await proxy.connect()
        await proxy.until(lambda p: p.is_complete)
    await until(lambda: proxy.ended is not None)
    assert proxy.ended is not None
    assert proxy.ended.code().name == "UNAVAILABLE"
    await proxy.close()


async def test_busy_port_is_one_sentence(server: Serving, mesh: Path) -> None:
    """The address, the option and the way out (issue 2, item 9)."""
    taken = server.ports
    for option, settings in (
        ("--grpc-addr", {"grpc_addr": taken.grpc}),
        ("--secure-grpc-addr", {"grpc_addr": ANY, "secure_grpc_addr": taken.grpc}),
        ("--monitoring-addr", {"grpc_addr": ANY, "monitoring_addr": taken.monitoring}),
    ):
        chosen: dict[str, Address | None] = {
            "secure_grpc_addr": None,
            "monitoring_addr": ANY,
            **settings,
        }
        with pytest.raises(CannotListen, match="already in use") as caught:
            async with serving(Settings(config_dir=mesh, **chosen)):  # type: ignore[arg-type]
                pass
        assert caught.value.option == option


async def test_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    """A config directory that is not there is said so."""
    settings = Settings(
        config_dir=tmp_path / "none", grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY
    )
    with pytest.raises(SourceError, match="none does not exist"):
        async with serving(settings):
            pass


async def test_mesh_config_and_domain_count(mesh: Path, tmp_path: Path) -> None:
    """The domain is in every name; the mesh config file decides about unknown destinations."""
    file = tmp_path / "mesh.yaml"
    file.write_text("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n")
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY,
        mesh_config=file, domain="example.local",
    )  # fmt: skip
    async with (
        serving(settings) as server,
        FakeProxy(str(server.ports.grpc), node=ELSEWHERE) as proxy,
    ):
        await proxy.until(lambda p: p.is_complete)
        assert "outbound|80||web.default.svc.example.local" in proxy.clusters
        assert "block_all" in {host.name for host in proxy.routes["80"].virtual_hosts}
