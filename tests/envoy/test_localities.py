"""
Traffic stays near, goes elsewhere when what is near fails, and comes back: seen from the programs.

Three programs at growing distance from the client, each behind a real sidecar.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import LiveMesh, eventually
from self_signed import self_signed
from web_mesh import entry, service

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("localities"),
    pytest.mark.timeout(120),
]

PLACES = {
    "client": ("10.244.77.11", "eu/eu-1"),
    "near": ("10.244.77.12", "eu/eu-1"),
    "next": ("10.244.77.13", "eu/eu-2"),
    "far": ("10.244.77.14", "us/us-1"),
}
WEB = "http://10.96.1.10"
SERVICE = service("web", "10.96.1.10", "{name: http, port: 80, targetPort: 8080}")
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  trafficPolicy:
"""
EJECTION = """
    outlierDetection:
      {consecutive5xxErrors: 1, interval: 0.2s, baseEjectionTime: 3s, maxEjectionPercent: 100}
"""


def workload(name: str) -> str:
    """Return the WorkloadEntry of a program."""
    address, locality = PLACES[name]
    app = "client" if name == "client" else "web"
    return entry(name, address, {"app": app}, locality)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveMesh]:
    """The mesh of this file."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as mesh:
        await mesh.control.apply("---\n".join(map(workload, PLACES)), "base.yaml")
        for name, (address, _) in PLACES.items():
            await mesh.add(name, address, {"app": "client" if name == "client" else "web"}, tls)
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(whole: LiveMesh) -> AsyncIterator[LiveMesh]:
    """The mesh with no service, before and after."""
    yield whole
    await whole.control.delete("test.yaml")
    await whole.settled()


async def answers(mesh: LiveMesh, count: int, path: str = "/") -> Counter[str]:
    """Return how often each program (or status, if none) answered."""
    client = mesh.workloads["client"]
    replies = [await client.request(WEB + path, host="web") for _ in range(count)]
    return Counter(reply.by if reply.status == 200 else str(reply.status) for reply in replies)


async def is_ejected(mesh: LiveMesh) -> bool:
    """Tell whether the client's Envoy has ejected an endpoint of the web service."""
    active = await mesh.workloads["client"].envoy.stats("outlier_detection.ejections_active")
    return sum(active.values()) == 1


async def all_from(mesh: LiveMesh, *names: str) -> None:
    """Wait until these programs, and no others, answer."""

    async def holds() -> bool:
        return (await answers(mesh, 12)).keys() == set(names)

    await eventually(holds)


async def test_without_a_rule_every_place_is_used(mesh: LiveMesh) -> None:
    """3.10: nothing is prioritised by default."""
    await mesh.apply(SERVICE)
    await all_from(mesh, "near", "next", "far")


async def test_ejected_endpoints_fail_over_and_back(mesh: LiveMesh) -> None:
    """DR-17, DR-40: to the next zone, not beyond; back once the ejection has ended."""
    await mesh.apply(SERVICE + RULE + EJECTION)
    await all_from(mesh, "near")
    for name in ("next", "far"):  # these will not fail: their failures are used up
        url = f"http://{PLACES[name][0]}:8080/flaky/once/1"
        await mesh.workloads["client"].request(url)
        assert (await mesh.workloads["client"].request(url)).by == name
    assert await answers(mesh, 1, "/flaky/once/1") == {"503": 1}, "a failure is not retried"
    # Envoy's main thread ejects, after the answer has been passed on.
    await eventually(lambda: is_ejected(mesh))
    assert await answers(mesh, 5) == {"next": 5}
    await all_from(mesh, "near")


async def test_regions_in_the_order_that_is_asked_for(mesh: LiveMesh) -> None:
    """DR-18: labels before distance."""
    priority = """    loadBalancer:
      localityLbSetting: {failoverPriority: [topology.kubernetes.io/region=us]}
"""
    await mesh.apply(SERVICE + RULE + EJECTION + priority)
    await all_from(mesh, "far")


async def test_shares_of_traffic(mesh: LiveMesh) -> None:
    """DR-16: 80 to 20, nothing for the locality that is not named."""
    shares = """    loadBalancer:
      localityLbSetting: {distribute: [{from: eu/*, to: {eu/eu-1: 80, us: 20}}]}
"""
    await mesh.apply(SERVICE + RULE + shares)
    await all_from(mesh, "near", "far")
    found = await answers(mesh, 200)
    assert found.keys() == {"near", "far"}
    assert 140 <= found["near"] <= 180, found


def zonal(ready: str, policy: str = "trafficDistribution: PreferSameZone") -> str:
    """Return a service whose endpoint in the client's zone is ready or not."""
    return f"""
apiVersion: v1
kind: Node
metadata:
  name: one
  labels: {{topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-1}}
---
apiVersion: v1
kind: Node
metadata:
  name: two
  labels: {{topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: eu-2}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  clusterIP: 10.96.1.10
  {policy}
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
  - addresses: [{PLACES["near"][0]}]
    nodeName: one
    conditions: {{ready: {ready}, serving: {ready}, terminating: false}}
  - {{addresses: [{PLACES["next"][0]}], nodeName: two}}
"""


async def test_preferred_zones_follow_readiness(mesh: LiveMesh) -> None:
    """K8-07, K8-12: unready nearby, so elsewhere; ready again, so nearby; no rule is needed."""
    await mesh.apply(zonal("true"))
    await all_from(mesh, "near")
    await mesh.apply(zonal("false"))
    await all_from(mesh, "next")
    await mesh.apply(zonal("true"))
    await all_from(mesh, "near")


async def test_a_drained_zone_costs_no_request(mesh: LiveMesh) -> None:
    """K8-07, K8-12: requests under way and after are answered, by one zone or the other."""
    await mesh.apply(zonal("true"))
    await all_from(mesh, "near")
    stop = asyncio.Event()
    found: Counter[str] = Counter()

    async def load() -> None:
        while not stop.is_set():
            found.update(await answers(mesh, 1))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(load())
        await mesh.apply(zonal("false"))
        await all_from(mesh, "next")
        stop.set()
    assert found.keys() <= {"near", "next"}, found


async def test_unready_everywhere_is_no_traffic(mesh: LiveMesh) -> None:
    """3.10, DR-43: no panic; endpoints that are not ready are never tried."""
    local = zonal("false", "internalTrafficPolicy: Cluster").replace(
        f"  - {{addresses: [{PLACES['next'][0]}], nodeName: two}}\n", ""
    )
    await mesh.apply(local)
    assert await answers(mesh, 5) == {"503": 5}
