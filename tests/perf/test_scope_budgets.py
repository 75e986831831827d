"""
What one edit of a rule costs among many Sidecar scopes, as counts of nodes and reads.

Every proxy has a Sidecar of its own that imports its namespace and the shared one, where the edits
are. The scopes have four times the services in one mesh that they have in the other: nodes that are
looked at, run, or reported do not grow with that, and reads only with the number of shards.
"""

from typing import Any, NamedTuple

import pytest

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.graph.explain import mismatches, misranked
from pilothouse.model.inputs import TABLES
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.translators.envoy import roots

NAMESPACES = ("shared", "one", "two", "three")
SCOPES = 6
SMALL, LARGE = 40, 160
"""Services of a namespace in the meshes that are compared."""


def service(namespace: str, number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number}", "namespace": namespace},
        "spec": {
            "clusterIP": f"10.{NAMESPACES.index(namespace)}.{number}.1",
            "selector": {"app": f"s{number}"},
            "ports": [{"name": "http", "port": 80}],
        },
    }


def sidecar(namespace: str, number: int) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": f"s{number}", "namespace": namespace},
        "spec": {
            "workloadSelector": {"labels": {"app": f"s{number}"}},
            "egress": [{"hosts": ["./*", "shared/*"]}],
        },
    }


def virtual_service(*shares: tuple[str, int]) -> dict[str, Any]:
    routes = [{"destination": {"host": host}, "weight": share} for host, share in shares]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "s1", "namespace": "shared"},
        "spec": {"hosts": ["s1"], "http": [{"route": routes}]},
    }


def destination_rule(seconds: int, *subsets: str, affinity: str = "") -> dict[str, Any]:
    policy: dict[str, Any] = {"connectionPool": {"tcp": {"connectTimeout": f"{seconds}s"}}}
    if affinity:
        policy["loadBalancer"] = {"consistentHash": {"httpHeaderName": affinity}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "s1", "namespace": "shared"},
        "spec": {
            "host": "s1",
            "trafficPolicy": policy,
            "subsets": [{"name": name, "labels": {"version": name}} for name in subsets],
        },
    }


class Run(NamedTuple):
    """What an edit did: nodes by query, and how many roots may have changed or have."""

    nodes: dict[str, int]
    reads: int
    verified: int
    dirty: int
    changed: int

    @property
    def counts(self) -> tuple[int, ...]:
        """All but the reads."""
        return (sum(self.nodes.values()), self.verified, self.dirty, self.changed)


class ScopedMesh:
    """A mesh whose proxies' roots are pinned, each in a scope of its own."""

    def __init__(self, services: int, certificates: CertificateSource) -> None:
        self.graph = Graph()
        self.shards = 2 * (services // 32 + 2)
        documents = [service(name, n) for name in NAMESPACES for n in range(services)]
        documents += [sidecar("one", number) for number in range(SCOPES)]
        documents += [virtual_service(("s1", 50), ("s2", 50)), destination_rule(1, "v1")]
        self._commit(documents)
        for number in range(SCOPES):
            self._pin(number, certificates)
        self.graph.take_dirty()

    def _commit(self, documents: list[dict[str, Any]]) -> None:
        rows = [decode(document).object for document in documents]
        self.graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows)

    def _pin(self, number: int, certificates: CertificateSource) -> None:
        proxy = Proxy(
            id=f"p{number}",
            type=NodeType.SIDECAR,
            ips=(f"10.200.0.{number}",),
            name=f"p{number}",
            namespace="one",
            domain="one.svc.cluster.local",
            labels=(("app", f"s{number}"),),
            certificates=certificates,
        )
        known = self.graph.pin(roots.proxy_class, proxy).value
        for type_url in (CDS, LDS):
            self.graph.pin(*roots.wildcard(type_url, known))
        for name, cluster in self.graph.value(*roots.wildcard(CDS, known)).items():
            if cluster.endpoints_name:
                self.graph.pin(*roots.named(EDS, known, name))
        self.graph.pin(*roots.named(RDS, known, "80"))

    def edit(self, document: dict[str, Any]) -> Run:
        """Commit and look at what has to be looked at, as the server does."""
        before = self.graph.moment
        self._commit([document])
        dirty = self.graph.take_dirty()
        for node in dirty:
            assert node.query is not None
            self.graph.fresh(node.query, node.key)
        changed = sum(node.changed_at > before for node in dirty)
        stats = self.graph.stats
        return Run(dict(stats.recomputed), stats.reads, stats.verified, len(dirty), changed)


@pytest.fixture(scope="module", params=[CertificateSource.NONE, CertificateSource.ADS])
def meshes(request: pytest.FixtureRequest) -> tuple[ScopedMesh, ScopedMesh]:
    """Two meshes, the second with four times the services in each scope."""
    return ScopedMesh(SMALL, request.param), ScopedMesh(LARGE, request.param)


Meshes = tuple[ScopedMesh, ScopedMesh]


def both(meshes: Meshes, document: dict[str, Any]) -> Run:
    """Make an edit in both meshes; return the larger's run, which has the counts of the other."""
    runs = [mesh.edit(document) for mesh in meshes]
    assert runs[0].counts == runs[1].counts, runs
    for mesh, run in zip(meshes, runs, strict=True):
        # A shard of members, twice, and the lists of shards; no term counts services.
        assert run.reads <= 160 + SCOPES * (50 + 4 * mesh.shards), run
    return runs[1]


def test_weights_cost_a_splice_per_scope(meshes: Meshes) -> None:
    """One virtual host is encoded for all scopes; no load assignment is looked at."""
    run = both(meshes, virtual_service(("s1", 40), ("s2", 60)))
    assert run.nodes["translators.envoy.virtual_hosts.virtual_host"] == 1, run
    assert run.changed == run.dirty == SCOPES, run
    assert sum(run.nodes.values()) <= 10 + 3 * SCOPES, run
    assert run.verified == 0, run


def test_a_new_destination_in_scope_costs_no_more(meshes: Meshes) -> None:
    """The scopes are asked whether they have it; as they do, nothing else hears of it."""
    run = both(meshes, virtual_service(("s1", 40), ("s3", 60)))
    assert run.changed == run.dirty == SCOPES, run
    assert sum(run.nodes.values()) <= 10 + 6 * SCOPES, run
    assert run.verified <= 2 * SCOPES, run


def test_a_policy_costs_one_layer_and_a_set_per_scope(meshes: Meshes) -> None:
    """Clusters are built for all scopes at once; endpoints and routes do not hear of a timeout."""
    run = both(meshes, destination_rule(2, "v1"))
    assert run.nodes["translators.envoy.clusters.cluster_layer"] == 1, run
    assert run.changed == run.dirty == SCOPES, run
    assert sum(run.nodes.values()) <= 16 + 2 * SCOPES, run
    assert run.verified == 0, run


def test_a_new_subset_concerns_one_host(meshes: Meshes) -> None:
    """Its clusters are new; of the load assignments those of the host are looked at."""
    run = both(meshes, destination_rule(2, "v1", "v2"))
    assert run.changed == SCOPES, run
    assert run.dirty <= 4 * SCOPES, run
    assert sum(run.nodes.values()) <= 25 + 8 * SCOPES, run


def test_affinity_concerns_the_routes_to_one_host(meshes: Meshes) -> None:
    """Routes to the host change, in whatever virtual host they are (DR-13)."""
    run = both(meshes, destination_rule(2, "v1", "v2", affinity="x-user"))
    assert run.nodes["translators.envoy.virtual_hosts.virtual_host"] == 1, run
    assert run.changed == 2 * SCOPES, run
    assert sum(run.nodes.values()) <= 25 + 8 * SCOPES, run


def test_after_all_of_it_everything_is_as_from_scratch(meshes: Meshes) -> None:
    """Waves that waited have missed nothing, and no firewall rests on one of its own rank."""
    for mesh in meshes:
        assert mismatches(mesh.graph) == []
        assert misranked(mesh.graph) == []
