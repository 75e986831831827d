"""
Traffic in a mesh of two clusters: one service, called in each by the address it has there.

Two callers and two programs, one of each in a cluster, each behind a real sidecar (K8-20, MC-16).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import LiveMesh, eventually
from self_signed import self_signed

from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import CLUSTERS, THE_MESH
from pilothouse.providers.clusters import ClusterView
from pilothouse.providers.directory_state import Change, DirectoryState

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("clusters"),
    pytest.mark.timeout(120),
]

ADDRESSES = {
    "caller-home": "10.244.77.11",
    "caller-west": "10.244.77.12",
    "web-home": "10.244.77.13",
    "web-west": "10.244.77.14",
}
VIPS = {"home": "10.96.2.10", "west": "10.97.2.10"}

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  clusterIP: {vip}
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{address}]}}]
"""

LOCAL = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "serviceSettings: [{settings: {clusterLocal: true}, hosts: ['*']}]"}
"""

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/cluster]}}
    outlierDetection:
      {consecutive5xxErrors: 1, interval: 0.2s, baseEjectionTime: 3s, maxEjectionPercent: 100}
"""

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  subsets: [{name: west, labels: {topology.istio.io/cluster: west}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web, subset: west}}]}]
"""


def objects(cluster: str) -> str:
    """What a cluster has of the service."""
    return OBJECTS.format(vip=VIPS[cluster], address=ADDRESSES[f"web-{cluster}"])


class West:
    """The other cluster of a mesh, as a provider would bring it."""

    def __init__(self, mesh: LiveMesh) -> None:
        self._mesh = mesh
        self._state = DirectoryState()
        self._view = ClusterView("west")

    async def join(self) -> None:
        """Become known, with the service."""
        known = KnownClusters(others=("west",))
        found = self._view.take(self._state.update("west.yaml", objects("west")))
        await self._mesh.control.take([Change(CLUSTERS.name, THE_MESH, known), *found])
        await self._mesh.settled()

    async def leave(self) -> None:
        """Be removed, with all there is of it."""
        gone = self._view.remove()
        self._state = DirectoryState()
        known = Change(CLUSTERS.name, THE_MESH, KnownClusters())
        await self._mesh.control.take([*gone, known])
        await self._mesh.settled()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveMesh]:
    """The workloads of both clusters, and the service as ours has it."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as mesh:
        await mesh.control.apply(objects("home"), "base.yaml")
        await West(mesh).join()
        for name, address in ADDRESSES.items():
            app, _, cluster = name.partition("-")
            said = {"CLUSTER_ID": "west" if cluster == "west" else "Kubernetes"}
            await mesh.add(name, address, {"app": app}, tls, said)
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(whole: LiveMesh) -> AsyncIterator[LiveMesh]:
    """The mesh without rules, before and after."""
    yield whole
    await whole.control.delete("test.yaml")
    await whole.settled()


async def answers(mesh: LiveMesh, cluster: str, count: int = 12) -> Counter[str]:
    """How often each program (or status, if none) answered the caller of a cluster."""
    caller = mesh.workloads[f"caller-{cluster}"]
    url = f"http://{VIPS[cluster]}"
    replies = [await caller.request(url, host=VIPS[cluster]) for _ in range(count)]
    return Counter(reply.by if reply.status == 200 else str(reply.status) for reply in replies)


async def all_from(mesh: LiveMesh, cluster: str, *names: str) -> None:
    """Wait until these programs, and no others, answer the caller of a cluster."""

    async def holds() -> bool:
        return (await answers(mesh, cluster)).keys() == set(names)

    await eventually(holds)


async def test_each_cluster_calls_by_its_own_address(mesh: LiveMesh) -> None:
    """K8-20, NM-04: the programs of both clusters answer, whoever calls."""
    for cluster in VIPS:
        await all_from(mesh, cluster, "web-home", "web-west")


async def test_cluster_local_services_stay_at_home(mesh: LiveMesh) -> None:
    """MC-16: each caller is answered by its own cluster."""
    await mesh.apply(LOCAL)
    for cluster in VIPS:
        await all_from(mesh, cluster, f"web-{cluster}")


async def test_a_subset_may_be_a_cluster(mesh: LiveMesh) -> None:
    """K8-14: endpoints carry their cluster as a label, though no pod does."""
    await mesh.apply(SUBSETS)
    for cluster in VIPS:
        await all_from(mesh, cluster, "web-west")


async def test_the_other_cluster_takes_over(mesh: LiveMesh) -> None:
    """DR-18: own cluster first; the other while the own one fails, and back."""
    await mesh.apply(RULE)
    for cluster, other in (("home", "west"), ("west", "home")):
        await all_from(mesh, cluster, f"web-{cluster}")
        program = mesh.workloads[f"web-{cluster}"].program
        program.is_broken = True
        await all_from(mesh, cluster, f"web-{other}")
        program.is_broken = False
        await all_from(mesh, cluster, f"web-{cluster}")


async def test_a_cluster_that_leaves_and_comes_back_fails_no_request(mesh: LiveMesh) -> None:
    """Its endpoints are gone for callers at home, under requests; then they are back."""
    await all_from(mesh, "home", "web-home", "web-west")
    west, seen = West(mesh), Counter[str]()
    is_over = asyncio.Event()

    async def call() -> None:
        while not is_over.is_set():
            seen.update(await answers(mesh, "home", 5))

    calling = asyncio.create_task(call())
    await west.join()  # as it is already: only then can it leave with all there is of it
    await west.leave()
    await all_from(mesh, "home", "web-home")
    await west.join()
    await all_from(mesh, "home", "web-home", "web-west")
    is_over.set()
    await calling
    assert seen.keys() == {"web-home", "web-west"}, seen
