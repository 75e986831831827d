"""
Traffic from one network to another, through a gateway that only knows names (3.12, MN-01, MN-03).

The gateway is an Envoy with a config of its own, no part of the mesh: it reads the SNI of mutual
TLS that it does not end, and passes the bytes on. Nobody in the client's network can reach the
workload itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import isolation
import pytest
import pytest_asyncio
from dns_server import NO_SUCH_NAME, DnsServer
from live_mesh import LiveMesh, Reply, eventually
from sds_agent import METADATA, Agent, agent_cluster
from self_signed import self_signed

from pilothouse.certs.authority import Authority
from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.demo.interception import PROXY_UID
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.network_gateways import gateway_names
from pilothouse.providers.directory_state import Change
from pilothouse.runtime.dns_client import NameServers
from pilothouse.runtime.name_lookups import NameLookups

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("networks"),
    pytest.mark.timeout(180),
]

DOMAIN = "cluster.local"
CLIENT, STRANGER, NEAR, FAR = (f"10.244.77.{n}" for n in (61, 62, 63, 64))
GATEWAYS = {"east": "10.244.77.65", "west": "10.244.77.66"}
GATEWAY_NAME = "gw.far.example"
GATEWAY_PORT = 15443
VIP = "10.96.1.60"
HOST = "web.default.svc.cluster.local"
PORTS = {80: 8080, 81: 9000}
"""Of the service, and of the program behind it."""

NETWORKS = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  meshNetworks: |
    networks:
      near: {{endpoints: [{{fromCidr: {CLIENT}/32}}, {{fromCidr: {STRANGER}/32}}]}}
      far:
        gateways: [{{address: {GATEWAY_NAME}, port: {GATEWAY_PORT}}}]
"""
SERVICE = f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: default}}
spec: {{mtls: {{mode: STRICT}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  clusterIP: {VIP}
  selector: {{app: web}}
  ports:
    - {{name: http, port: 80, targetPort: 8080}}
    - {{name: tcp, port: 81, targetPort: 9000}}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  subsets: [{name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
    - match: [{uri: {prefix: /v2}}]
      route: [{destination: {host: web, subset: v2}}]
    - route: [{destination: {host: web}}]
"""


def entry(name: str, address: str, network: str, version: str) -> str:
    """A workload of the service that takes mutual TLS."""
    return f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: default}}
spec:
  address: {address}
  network: {network}
  serviceAccount: {name}
  labels: {{app: web, version: {version}, security.istio.io/tlsMode: istio}}
"""


def gateway(admin: str) -> dict[str, Any]:
    """
    A gateway written by hand: the SNI names the cluster, TLS passes.

    Clients speak of ``outbound_.PORT_.SUBSET_.HOST`` (N-03).
    """
    typed = "type.googleapis.com/envoy.extensions.filters"
    filters = [
        ("network.sni_cluster.v3.SniCluster", {}),
        ("network.tcp_proxy.v3.TcpProxy", {"stat_prefix": "passed", "cluster": "nowhere"}),
    ]
    inspector = f"{typed}.listener.tls_inspector.v3.TlsInspector"
    return {
        "admin": {"address": {"pipe": {"path": admin}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "crossing",
                    "address": _socket("0.0.0.0", GATEWAY_PORT),
                    "listener_filters": [
                        {"name": "tls", "typed_config": {"@type": inspector}},
                    ],
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": f"envoy.filters.{kind.partition('.v3')[0]}",
                                    "typed_config": {"@type": f"{typed}.{kind}", **config},
                                }
                                for kind, config in filters
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": name,
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": _socket(FAR, target)}}]}
                        ],
                    },
                }
                for port, target in PORTS.items()
                for name in (f"outbound_.{port}_._.{HOST}", f"outbound_.{port}_.v2_.{HOST}")
            ],
        },
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


@dataclass
class Ground:
    """The mesh, its gateways, and who knows their names."""

    mesh: LiveMesh
    names: DnsServer
    gateways: dict[str, EnvoyProcess] = field(default_factory=dict)

    async def ask(self, client: str = "client", path: str = "/") -> Reply:
        """Ask the service."""
        return await self.mesh.workloads[client].request(f"http://{VIP}{path}", host="web")

    async def passed(self, name: str, cluster: str = "outbound_") -> int:
        """Return how many connections a gateway has passed on."""
        found = await self.gateways[name].stats(f"cluster.{cluster}.*upstream_cx_total")
        return sum(found.values())

    async def becomes(self, by: str) -> None:
        """Wait until that workload, or none (""), answers."""

        async def holds() -> bool:
            return (await self.ask()).by == by

        await eventually(holds)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """A client here, a workload there, two gateways between them under one name."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    authority = Authority.create(DOMAIN, datetime.now(UTC))
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(DnsServer({GATEWAY_NAME: [GATEWAYS["east"]]}))
        names.ttl_seconds = 0
        mesh = await stack.enter_async_context(LiveMesh(delta=True))
        found = Ground(mesh, names)
        await mesh.control.apply(NETWORKS, "networks.yaml")
        await mesh.control.apply(SERVICE, "service.yaml")
        await mesh.control.apply(entry("far", FAR, "far", "v2"), "far.yaml")
        for name, address, network in (
            ("client", CLIENT, "near"),
            ("stranger", STRANGER, "near"),
            ("near", NEAR, "near"),
            ("far", FAR, "far"),
        ):
            clusters, metadata = [], {"NETWORK": network}
            if name != "stranger":
                identity = WorkloadIdentity(DOMAIN, "default", name)
                shown = authority.issue_workload(identity, datetime.now(UTC))
                path = mesh.folder / f"{name}.sds"
                await stack.enter_async_context(Agent(path, shown, authority.root_pem))
                clusters, metadata = [agent_cluster(path)], {**METADATA, **metadata}
            app = "web" if name in ("near", "far") else name
            await mesh.add(name, address, {"app": app}, tls, metadata, clusters)
        for name in ("client", "stranger"):  # there is no way but through a gateway
            namespace = mesh.workloads[name].namespace
            await asyncio.to_thread(namespace.run, "ip", "route", "add", "blackhole", f"{FAR}/32")
        for name, address in GATEWAYS.items():
            namespace = await asyncio.to_thread(mesh._namespaces.add, name, address)
            folder = mesh.folder / name
            envoy = EnvoyProcess(
                gateway(f"{folder}/admin"), folder, name=name, netns=namespace.path, uid=PROXY_UID
            )
            stack.push_async_callback(envoy.stop)
            await envoy.start()
            await envoy.wait_ready()
            found.gateways[name] = envoy
        control = mesh.control
        lookups = NameLookups(
            lambda: control.graph.value(gateway_names, None),
            NameServers([names.address], hosts=mesh.folder / "none").look_up,
            lambda rows: control.take(Change(*row) for row in rows),
            shortest_seconds=0.05,
        )
        task = asyncio.create_task(lookups.run())
        stack.callback(task.cancel)
        await lookups.settled()
        await found.becomes("far")
        yield found


async def test_a_client_gets_through_with_its_identity(ground: Ground) -> None:
    """3.12: STRICT mutual TLS from end to end; the gateway knows neither side's keys."""
    before = await ground.passed("east")
    reply = await ground.ask()
    assert reply.by == "far"
    told = reply.seen["x-forwarded-client-cert"]
    assert f"URI=spiffe://{DOMAIN}/ns/default/sa/client" in told
    assert f"By=spiffe://{DOMAIN}/ns/default/sa/far" in told
    assert before >= 1
    client = ground.mesh.workloads["client"]
    assert await client.who_answers(VIP, 81) == "far"
    assert await ground.passed("east") > before


async def test_a_subset_has_a_name_of_its_own(ground: Ground) -> None:
    """N-03: the gateway can tell it from the others."""
    await ground.mesh.apply(RULE)
    reply = await ground.ask(path="/v2")
    assert reply.by == "far"
    assert await ground.passed("east", "outbound_.80_.v2_") >= 1
    await ground.mesh.control.delete("test.yaml")
    await ground.mesh.settled()


async def test_without_certificates_nobody_is_offered_what_is_there(ground: Ground) -> None:
    """3.12: no endpoint at all, rather than one that answers nobody."""
    before = await ground.passed("east")
    assert (await ground.ask("stranger")).status == 503
    envoy = ground.mesh.workloads["stranger"].envoy
    none = await envoy.stats(r"cluster\.outbound\|80\|\|web.*upstream_cx_none_healthy")
    assert sum(none.values()) >= 1
    known = await envoy.stats(r"cluster\.outbound\|80\|\|web.*membership_total")
    assert set(known.values()) == {0}
    assert await ground.passed("east") == before


async def test_what_is_near_is_called_directly(ground: Ground) -> None:
    """3.12: a workload in the client's own network beside those elsewhere, each with its share."""
    before = await ground.passed("east")
    await ground.mesh.apply(entry("near", NEAR, "near", "v1"))
    found = [(await ground.ask()).by for _ in range(60)]
    assert set(found) == {"near", "far"}
    assert 12 <= found.count("far") <= 48
    assert {(await ground.ask("stranger")).by for _ in range(3)} == {""}  # STRICT
    await ground.mesh.control.delete("test.yaml")
    await ground.mesh.settled()
    await ground.becomes("far")
    assert await ground.passed("east") >= before


async def test_traffic_follows_the_name(ground: Ground) -> None:
    """MN-03: to another gateway without a failed request; and stays while nobody knows the name."""
    assert await ground.passed("west") == 0
    failed: list[int] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            reply = await ground.ask()
            if reply.by != "far":
                failed.append(reply.status)

    asking = asyncio.create_task(keep_asking())
    ground.names.records[GATEWAY_NAME] = [GATEWAYS["west"]]

    async def has_moved() -> bool:
        return await ground.passed("west") > 0

    await eventually(has_moved)
    await ground.gateways["east"].stop()
    ground.names.codes = {0: NO_SUCH_NAME}

    async def is_told() -> bool:
        return any(each.code == "GatewayNameUnresolved" for each in ground.mesh.control.findings())

    await eventually(is_told)
    for _ in range(20):
        await ground.ask()
    done.set()
    await asking
    assert failed == []
    assert ground.mesh.control.rejected() == []
