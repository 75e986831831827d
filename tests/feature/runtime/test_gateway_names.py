"""The whole server with a gateway that has a name: who is told of what it leads to (MN-03)."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from dns_server import SERVER_FAILURE, DnsServer
from fake_proxy import FakeProxy, node
from serving import ANY, Serving, replace_file, serving, until

from pilothouse.model.inputs import RESOLVED_NAMES
from pilothouse.model.resource import EDS
from pilothouse.runtime import control_plane
from pilothouse.runtime.dns_client import NameServers
from pilothouse.runtime.name_lookups import NameLookups
from pilothouse.runtime.settings import Settings

NAME = "gw.far.example"
MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.1.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: near, namespace: default}
spec: {address: 10.0.0.1, network: near, serviceAccount: web, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: far, namespace: default}
spec:
  {address: 10.0.0.1, network: far, ports: {http: 99}, serviceAccount: web, labels: {app: web}}
"""
NETWORKS = "networks: {far: {gateways: [{address: %s, port: 15443}]}}\n"
CLIENT = node(
    "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local",
    {"NETWORK": "near", "PILOTHOUSE_CERTIFICATES": "agent"},
)
CLUSTER = "outbound|80||web.default.svc.cluster.local"


def places(proxy: FakeProxy) -> set[tuple[str, int]]:
    """Return where the proxy sends requests for web."""
    assignment = proxy.endpoints.get(CLUSTER)
    sockets = (
        each.endpoint.address.socket_address
        for group in (assignment.endpoints if assignment is not None else ())
        for each in group.lb_endpoints
    )
    return {(each.address, each.port_value) for each in sockets}


NEAR = ("10.0.0.1", 8080)


def settings(tmp_path: Path) -> Settings:
    """A server over the mesh above."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "mesh.yaml").write_text(MESH)
    networks = tmp_path / "networks.yaml"
    networks.write_text(NETWORKS % NAME)
    return Settings(
        config_dir=config,
        mesh_networks=networks,
        grpc_addr=ANY,
        secure_grpc_addr=None,
        monitoring_addr=ANY,
    )


def asking(monkeypatch: pytest.MonkeyPatch, server: DnsServer, tmp_path: Path) -> None:
    """Have servers ask this name server only, and again at once."""
    server.ttl_seconds = 0
    nowhere = tmp_path / "none"
    servers = partial(NameServers, [server.address], resolv_conf=nowhere, hosts=nowhere)
    monkeypatch.setattr(control_plane, "NameServers", servers)
    monkeypatch.setattr(control_plane, "NameLookups", partial(NameLookups, shortest_seconds=0.02))


async def codes(server: Serving) -> set[str]:
    """Return the codes of present findings."""
    return {each["code"] for each in await server.json("/debug/findings")}


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_another_address_is_a_new_load_assignment_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delta: bool
) -> None:
    """MN-03: also while the name leads nowhere, which is told of and changes nothing."""
    async with DnsServer({NAME: ["203.0.113.1"]}) as names:
        asking(monkeypatch, names, tmp_path)
        async with serving(settings(tmp_path)) as server:
            address = str(server.ports.grpc)
            async with FakeProxy(address, node=CLIENT, delta=delta) as proxy:
                await proxy.until(lambda p: p.is_complete)
                assert places(proxy) == {NEAR, ("203.0.113.1", 15443)}
                before = Counter(proxy.messages)

                names.records[NAME] = ["203.0.113.9", "203.0.113.8"]
                moved = {NEAR, ("203.0.113.8", 15443), ("203.0.113.9", 15443)}
                await proxy.until(lambda p: places(p) == moved)
                assert proxy.messages - before == Counter({EDS: 1})
                assert "GatewayNameUnresolved" not in await codes(server)

                names.codes = {0: SERVER_FAILURE}
                found = await server.until(
                    "/debug/findings",
                    lambda all_: any(each["code"] == "GatewayNameUnresolved" for each in all_),
                )
                [told] = [each for each in found if each["code"] == "GatewayNameUnresolved"]
                assert "server failure; 203.0.113.8, 203.0.113.9 is still used" in told["message"]
                assert places(proxy) == moved

                names.codes = {}
                await server.until(
                    "/debug/findings",
                    lambda all_: all(each["code"] != "GatewayNameUnresolved" for each in all_),
                )
                assert proxy.messages - before == Counter({EDS: 1})


async def test_a_name_that_never_led_anywhere_closes_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the workloads' own addresses are offered: here they are somebody else's."""
    async with DnsServer() as names:
        asking(monkeypatch, names, tmp_path)
        async with serving(settings(tmp_path)) as server:
            async with FakeProxy(str(server.ports.grpc), node=CLIENT) as proxy:
                await proxy.until(lambda p: p.is_complete)
                assert places(proxy) == {NEAR}
                assert "GatewayNameUnresolved" in await codes(server)
                names.records[NAME] = ["203.0.113.1"]
                await proxy.until(lambda p: places(p) == {NEAR, ("203.0.113.1", 15443)})
                replace_file(tmp_path / "networks.yaml", NETWORKS % "203.0.113.7")
                await proxy.until(lambda p: places(p) == {NEAR, ("203.0.113.7", 15443)})
            # A name that nobody needs is not looked up any more.
            await until(lambda: not server.plane.graph.store(RESOLVED_NAMES).rows)
