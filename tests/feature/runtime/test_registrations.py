"""
Workloads that register themselves, over a real server: tokens, streams, reports, endpoints.

The workloads speak as an agent's stream does; a simulated proxy looks on as a client.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import pytest
from fake_proxy import ADS, FakeProxy, node
from prometheus_client.parser import text_string_to_metric_families
from serving import replace_file, until
from workplace import Workplace, workplace

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS, EDS
from pilothouse.runtime.registrations_file import FILE_NAME
from pilothouse.xds.health import HEALTH_TYPE

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: default}
spec:
  metadata: {labels: {app: web}}
  template: {serviceAccount: web, ports: {http: 8080}}
"""
PROBED = GROUP + "  probe: {tcpSocket: {port: 8080}}\n"
SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: web}}
"""
WRITTEN = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: vm
  namespace: default
  annotations: {proxy.istio.io/health-checks-enabled: 'true'}
spec: {address: 10.0.0.5, serviceAccount: web, ports: {http: 8080}, labels: {app: web}}
"""
CLUSTER = "outbound|80||web.internal"
METADATA = {
    "NAMESPACE": "default",
    "SERVICE_ACCOUNT": "web",
    "AUTO_REGISTER_GROUP": "web",
    "INTERCEPTION_MODE": "REDIRECT",
}
LONG = timedelta(minutes=5)
both = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


class Agent:
    """The stream of a workload's agent; use as an async context manager."""

    def __init__(
        self,
        place: Workplace,
        metadata: Mapping[str, Any],
        *,
        address: str = "10.0.0.1",
        delta: bool = True,
        account: str = "web",
    ) -> None:
        name = address.replace(".", "-")
        node_id = f"sidecar~{address}~vm-{name}.default~default.svc.cluster.local"
        self._place = place
        self._node = node(node_id, {**METADATA, **metadata})
        self._delta = delta
        self._account = account
        self._is_introduced = False

    async def __aenter__(self) -> Self:
        root = grpc.ssl_channel_credentials(self._place.root_file.read_bytes())
        self._channel: Any = grpc.aio.secure_channel(
            self._place.target, root, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        token = self._place.token_file(self._account).read_text().strip()
        method = "DeltaAggregatedResources" if self._delta else "StreamAggregatedResources"
        self.call = self._channel.stream_stream(ADS + method)(
            metadata=(("authorization", f"Bearer {token}"),)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self._channel.close()

    async def write(self, type_url: str, problem: str | None = None) -> None:
        """Send a request; the first that is no report says who we are."""
        kind = pb.DeltaDiscoveryRequest if self._delta else pb.DiscoveryRequest
        request = kind(type_url=type_url)
        if problem is not None:
            request.error_detail.code = 13
            request.error_detail.message = problem
        if not self._is_introduced and type_url != HEALTH_TYPE:
            request.node.CopyFrom(self._node)
            self._is_introduced = True
        await self.call.write(request.SerializeToString())

    async def report(self, problem: str | None = None) -> None:
        """Say how the workload is."""
        await self.write(HEALTH_TYPE, problem)

    async def clusters(self) -> set[str]:
        """Ask for clusters and return their names."""
        await self.write(CDS)
        data = await self.call.read()
        assert data is not grpc.aio.EOF, await self.call.code()
        if self._delta:
            return {each.name for each in pb.DeltaDiscoveryResponse.FromString(data).resources}
        found = pb.DiscoveryResponse.FromString(data).resources
        return {Cluster.FromString(each.value).name for each in found}

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        """Ask for clusters and return how the stream was ended."""
        with pytest.raises((grpc.aio.AioRpcError, AssertionError)):
            await self.clusters()
        return await self.call.code(), await self.call.details()


def addresses(proxy: FakeProxy) -> set[str]:
    """Return where a client finds the service."""
    assignment = proxy.endpoints.get(CLUSTER)
    return {
        endpoint.endpoint.address.socket_address.address
        for group in (assignment.endpoints if assignment is not None else ())
        for endpoint in group.lb_endpoints
    }


async def counted(place: Workplace, name: str) -> int:
    """Return a metric of auto-registration, by the name that istiod has for it."""
    _, text = await place.server.get("/metrics")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"auto_registration_{name}_total":
                return int(sample.value)
    raise AssertionError(name)


@asynccontextmanager
async def watched(
    folder: Path, *texts: str, grace: timedelta = LONG, **more: Any
) -> AsyncIterator[tuple[Workplace, FakeProxy]]:
    """Run a server with the service, and a client of it."""
    async with workplace(folder, SERVICE, *texts, workload_entry_grace=grace, **more) as place:
        await place.write_token("web")
        client = node("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local")
        async with FakeProxy(str(place.server.ports.grpc), node=client) as proxy:
            await proxy.until(lambda p: p.is_complete and CLUSTER in p.endpoints)
            yield place, proxy


@both
async def test_a_workload_is_an_endpoint_while_it_is_connected(
    tmp_path: Path, *, delta: bool
) -> None:
    """WG-01: clients find it, its own first answer knows what it serves; then it is dropped."""
    async with watched(tmp_path, GROUP, grace=timedelta(milliseconds=50)) as (place, client):
        assert addresses(client) == set()
        async with Agent(place, {}, delta=delta) as agent:
            await agent.clusters()
            await client.until(lambda p: addresses(p) == {"10.0.0.1"})
            (shown,) = await place.server.json("/debug/registrations")
            assert shown["entry"] == "default/web-10.0.0.1"
            assert shown["from"] == "WorkloadGroup default/web"
            streams = await place.server.json("/debug/syncz")
            assert [each.get("workload_entry") for each in streams] == [None, shown["entry"]]
            assert await counted(place, "success") == 1
            status, _ = await place.server.post("/debug/selfcheck")
            assert status == 200
        await client.until(lambda p: addresses(p) == set())
        assert await counted(place, "unregister") == 1
        assert await counted(place, "deletes") == 1
        assert await place.server.json("/debug/registrations") == []


async def test_its_own_first_answer_knows_what_it_serves(tmp_path: Path) -> None:
    """WG-01: the entry is in the mesh before the first request is answered."""
    never = timedelta(hours=1)
    async with watched(tmp_path, quiet=never, longest_wait=never) as (place, _):
        # This change is committed at once; from now on they wait, unless somebody waits for them.
        (tmp_path / "mesh" / "group.yaml").write_text(GROUP)
        await until(lambda: bool(place.server.plane.registrations.groups))
        await until(lambda: not place.server.plane.cycle.waiting_count)
        async with Agent(place, {}) as agent:
            assert "inbound|8080||" in await agent.clusters()


async def test_a_break_of_the_connection_moves_nothing(tmp_path: Path) -> None:
    """WG-01: within the grace clients hear nothing of it; two streams count as one workload."""
    async with watched(tmp_path, GROUP) as (place, client):
        async with Agent(place, {}) as agent:
            await agent.clusters()
            await client.until(lambda p: addresses(p) == {"10.0.0.1"})
            client.history.clear()
        await place.server.until("/debug/registrations", lambda f: "leaves_in_seconds" in f[0])
        async with Agent(place, {}) as agent, Agent(place, {}) as second:
            await agent.clusters()
            await second.clusters()
            (shown,) = await place.server.json("/debug/registrations")
            assert list(shown["proxies"].values()) == [2]
            assert "leaves_in_seconds" not in shown
        assert client.history == []
        assert await counted(place, "updates") == 2
        assert await counted(place, "deletes") == 0


async def test_who_may_not_register(tmp_path: Path) -> None:
    """WG-01: unknown group, other account, nobody known: each refused, counted and told."""
    async with watched(tmp_path, GROUP) as (place, client):
        await place.write_token("other")
        async with Agent(place, {"AUTO_REGISTER_GROUP": "nope"}) as agent:
            code, text = await agent.refusal()
            assert (code, "default/nope" in text) == (grpc.StatusCode.FAILED_PRECONDITION, True)
        async with Agent(place, {"SERVICE_ACCOUNT": "other"}, account="other") as agent:
            code, text = await agent.refusal()
            assert (code, "'other'" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
        async with Agent(place, {"AUTO_REGISTER_GROUP": "a\nb" + "c" * 9_000}) as agent:
            code, text = await agent.refusal()
            assert (code, "\n" in text, len(text) < 1_000) == (
                grpc.StatusCode.FAILED_PRECONDITION, False, True
            )  # fmt: skip
        async with Agent(place, {"NETWORK": "No_Name"}) as agent:
            assert (await agent.refusal())[0] is grpc.StatusCode.INVALID_ARGUMENT
        stranger = node("sidecar~10.0.0.3~vm-3.default~default.svc.cluster.local", METADATA)
        async with FakeProxy(str(place.server.ports.grpc), node=stranger) as proxy:
            await proxy.until(lambda p: p.ended is not None)
            assert proxy.ended is not None
            assert proxy.ended.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await counted(place, "errors") == 5
        assert addresses(client) == set()
        found = await place.server.json("/debug/findings")
        names = {each["name"] for each in found if each["code"] == "RegistrationRefused"}
        assert {"nope", "web"} < names
        assert all(len(name) < 300 and "\n" not in name for name in names)


async def test_a_group_that_appears(tmp_path: Path) -> None:
    """WG-01: who was refused is let in once the group is there, and the finding goes."""
    async with watched(tmp_path) as (place, client):
        async with Agent(place, {}) as agent:
            assert (await agent.refusal())[0] is grpc.StatusCode.FAILED_PRECONDITION
        (tmp_path / "mesh" / "group.yaml").write_text(GROUP)
        await until(lambda: bool(place.server.plane.registrations.groups))
        async with Agent(place, {}) as agent:
            await agent.clusters()
            await client.until(lambda p: addresses(p) == {"10.0.0.1"})
            found = await place.server.json("/debug/findings")
            assert "RegistrationRefused" not in {each["code"] for each in found}


async def test_entries_follow_the_file_of_their_group(tmp_path: Path) -> None:
    """WG-01: an edit of the template, its end, and its return, with the workload connected."""
    async with watched(tmp_path, GROUP) as (place, client), Agent(place, {}) as agent:
        file = tmp_path / "mesh" / "1.yaml"
        await agent.clusters()
        await client.until(lambda p: addresses(p) == {"10.0.0.1"})
        replace_file(file, GROUP.replace("app: web", "app: other"))
        await client.until(lambda p: addresses(p) == set())
        replace_file(file, GROUP)
        await client.until(lambda p: addresses(p) == {"10.0.0.1"})
        file.unlink()
        await client.until(lambda p: addresses(p) == set())
        found = await place.server.json("/debug/findings")
        assert "NotRegistered" in {each["code"] for each in found}
        file.write_text(GROUP)
        await client.until(lambda p: addresses(p) == {"10.0.0.1"})


@both
async def test_health_that_an_agent_reports(tmp_path: Path, *, delta: bool) -> None:
    """WG-03, WE-07, GN-06: no traffic before the first good report, nor after a bad one."""
    async with watched(tmp_path, PROBED) as (place, client):
        async with Agent(place, {}, delta=delta) as agent:
            await agent.report()  # comes before its Envoy has asked for anything, and is lost
            await agent.clusters()
            (shown,) = await place.server.json("/debug/registrations")
            assert "health" not in shown
            found = await place.server.json("/debug/findings")
            assert "HealthNotReported" in {each["code"] for each in found}
            assert addresses(client) == set()
            await agent.report()
            await client.until(lambda p: addresses(p) == {"10.0.0.1"})
            await agent.report("connection refused")
            await client.until(lambda p: addresses(p) == set())
            (shown,) = await place.server.json("/debug/registrations")
            assert (shown["health"], shown["problem"]) == ("unhealthy", "connection refused")
            await agent.report()
            await client.until(lambda p: addresses(p) == {"10.0.0.1"})
            client.history.clear()
        async with Agent(place, {}, delta=delta) as agent:
            await agent.clusters()
            assert addresses(client) == {"10.0.0.1"}, "it is known from before"
            assert client.history == []


async def test_a_new_server_begins_with_those_who_are_on_their_way(tmp_path: Path) -> None:
    """ADR 22: callers that come back first find them, healthy as they were; then they are late."""
    file = tmp_path / "ca" / FILE_NAME
    async with watched(tmp_path, PROBED) as (place, client), Agent(place, {}) as agent:
        await agent.clusters()
        await agent.report()
        await client.until(lambda p: addresses(p) == {"10.0.0.1"})
        await until(lambda: file.exists() and b'"is_healthy":true' in file.read_bytes())
    async with watched(tmp_path, PROBED) as (place, client):
        assert addresses(client) == {"10.0.0.1"}
        (shown,) = await place.server.json("/debug/registrations")
        assert shown["health"] == "healthy"
        assert 10 < shown["leaves_in_seconds"] <= LONG.total_seconds()
        assert await counted(place, "success") == 0
        async with Agent(place, {}) as agent:
            await agent.clusters()
            (shown,) = await place.server.json("/debug/registrations")
            assert "leaves_in_seconds" not in shown
            assert client.messages[EDS] == 1
    file.write_text("[{")
    async with watched(tmp_path) as (place, client):
        assert addresses(client) == set(), "what is damaged is as if it were not there"


async def test_what_was_killed_is_remembered(tmp_path: Path) -> None:
    """ADR 22: the file is written while the server runs, not only at its end; it is private."""
    file = tmp_path / "ca" / FILE_NAME
    async with watched(tmp_path, GROUP) as (place, _), Agent(place, {}) as agent:
        await agent.clusters()
        await until(lambda: file.exists() and b"10.0.0.1" in file.read_bytes())
        assert file.stat().st_mode & 0o077 == 0
        assert place.token_file("web").read_bytes().strip() not in file.read_bytes()


async def test_reports_for_an_entry_that_somebody_wrote(tmp_path: Path) -> None:
    """NM-19: WORKLOAD_ENTRY registers nothing, and takes health; of its own workload only."""
    own = {"AUTO_REGISTER_GROUP": "", "WORKLOAD_ENTRY": "vm"}
    async with watched(tmp_path, WRITTEN, grace=timedelta(milliseconds=50)) as (place, client):
        await place.write_token("other")
        other = {**own, "SERVICE_ACCOUNT": "other"}
        async with Agent(place, other, account="other") as agent:
            assert (await agent.refusal())[0] is grpc.StatusCode.PERMISSION_DENIED
        async with Agent(place, {**own, "WORKLOAD_ENTRY": "nope"}) as agent:
            assert (await agent.refusal())[0] is grpc.StatusCode.FAILED_PRECONDITION
        async with Agent(place, own, address="10.0.0.5") as agent:
            await agent.clusters()
            assert addresses(client) == set()
            await agent.report()
            await client.until(lambda p: addresses(p) == {"10.0.0.5"})
        await client.until(lambda p: addresses(p) == set())
        assert await counted(place, "success") == await counted(place, "deletes") == 0
