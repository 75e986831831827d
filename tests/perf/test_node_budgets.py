"""
How many nodes of the graph an edit runs, as formulas: cost follows what is affected.

A made mesh of n services, each with a slice of endpoints, watched by proxies whose roots are pinned
as the server pins them. What a budget does not mention, it does not grow with.
"""

from typing import Any, NamedTuple

import pytest

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.translators.envoy import roots

NAMESPACES = 5
WILDCARD = "*.example.com"
VARIANTS = [(100, 4), (400, 4), (100, 40)]
"""Services and proxies of the meshes that are compared."""


def service(number: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number}", "namespace": f"ns{number % NAMESPACES}"},
        "spec": {
            "clusterIP": f"10.{number // 250}.{number % 250}.1",
            "selector": {"app": f"s{number}"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def slice_of(number: int, last: int = 9) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": f"s{number}-1",
            "namespace": f"ns{number % NAMESPACES}",
            "labels": {"kubernetes.io/service-name": f"s{number}"},
        },
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": [f"10.100.{number % 250}.{number // 250 * 10 + n}"]} for n in range(last)
        ],
    }


def virtual_service(weight: int) -> dict[str, Any]:
    shares = [("s1", 100 - weight), ("s6", weight)]
    routes = [{"destination": {"host": host}, "weight": share} for host, share in shares]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "s1", "namespace": "ns1"},
        "spec": {"hosts": ["s1"], "http": [{"route": routes}]},
    }


def destination_rule(connections: int, host: str = "s2") -> dict[str, Any]:
    pool = {"tcp": {"maxConnections": connections}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": host.strip("*."), "namespace": "ns2"},
        "spec": {"host": host, "trafficPolicy": {"connectionPool": pool}},
    }


def pod(**labels: str) -> dict[str, Any]:
    address = "10.100.3.0"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p3", "namespace": "ns3", "labels": {"app": "s3", **labels}},
        "status": {"podIP": address, "podIPs": [{"ip": address}]},
    }


class Run(NamedTuple):
    """What an edit did: nodes by query and what they read, roots that may have changed or have."""

    nodes: dict[str, int]
    dirty: int
    changed: int
    reads: int

    @property
    def total(self) -> int:
        return sum(self.nodes.values())


class MadeMesh:
    """A mesh with its proxies' roots pinned."""

    def __init__(
        self,
        services: int,
        proxies: int,
        certificates: CertificateSource = CertificateSource.NONE,
    ) -> None:
        self.certificates = certificates
        self.services = services
        self.proxies = proxies
        self.graph = Graph()
        documents = [make(n) for n in range(services) for make in (service, slice_of)]
        documents += [virtual_service(0), destination_rule(1), destination_rule(1, WILDCARD), pod()]
        self._commit(documents)
        self.classes = set()
        for number in range(proxies):
            self._pin(number)
        self.graph.take_dirty()

    def _commit(self, documents: list[dict[str, Any]]) -> None:
        rows = [decode(document).object for document in documents]
        self.graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows)

    def _pin(self, number: int) -> None:
        namespace = f"ns{number % NAMESPACES}"
        proxy = Proxy(
            id=f"p{number}",
            type=NodeType.SIDECAR,
            ips=(f"10.100.{number % 250}.{number // 250 * 10}",),
            name=f"p{number}",
            namespace=namespace,
            domain=f"{namespace}.svc.cluster.local",
            labels=(("app", f"s{number}"),),
            certificates=self.certificates,
        )
        known = self.graph.pin(roots.proxy_class, proxy).value
        self.classes.add(known)
        for type_url in (CDS, LDS):
            self.graph.pin(*roots.wildcard(type_url, known))
        for name, cluster in self.graph.value(*roots.wildcard(CDS, known)).items():
            if cluster.endpoints_name:
                self.graph.pin(*roots.named(EDS, known, name))
        self.graph.pin(*roots.named(RDS, known, "80"))

    def edit(self, *documents: dict[str, Any]) -> Run:
        """Commit and look at what has to be looked at, as the server does."""
        before = self.graph.moment
        self._commit(list(documents))
        dirty = self.graph.take_dirty()
        for node in dirty:
            self.graph.fresh(node.query, node.key)
        changed = sum(node.changed_at > before for node in dirty)
        stats = self.graph.stats
        return Run(dict(stats.recomputed), len(dirty), changed, stats.reads)


@pytest.fixture(scope="module")
def meshes() -> list[MadeMesh]:
    """Meshes that differ in services and in proxies."""
    return [MadeMesh(services, proxies) for services, proxies in VARIANTS]


def test_an_endpoint_event_runs_two_nodes_and_one_per_view(meshes: list[MadeMesh]) -> None:
    """
    The port's endpoints and their load assignment; each client namespace's root passes it on.

    Neither services nor proxies count.
    """
    for mesh in meshes:
        views = min(mesh.proxies, NAMESPACES)
        run = mesh.edit(slice_of(57, last=8))
        assert run.total == 2 + views, run
        assert (run.dirty, run.changed) == (views, views), run
        mesh.edit(slice_of(57))


def test_with_mutual_tls_an_endpoint_event_runs_one_node_more() -> None:
    """Who runs the endpoints is looked at; clusters name them, and as it is the same stay clean."""
    for services, proxies in VARIANTS:
        mesh = MadeMesh(services, proxies, CertificateSource.ADS)
        views = min(proxies, NAMESPACES)
        run = mesh.edit(slice_of(57, last=8))
        assert run.total == 3 + views, run
        assert run.dirty <= views + len(mesh.classes), run
        assert run.changed == views, run


def test_an_endpoint_event_that_says_nothing_new_pushes_nothing(meshes: list[MadeMesh]) -> None:
    """PU-03: a label of the slice that nobody reads: one node looks, nothing changes."""
    for mesh in meshes:
        document = slice_of(58)
        document["metadata"]["labels"]["note"] = "1"
        run = mesh.edit(document)
        assert run.total <= 2, run
        assert run.changed == 0, run


def test_an_edit_of_routes_encodes_one_virtual_host_per_view(meshes: list[MadeMesh]) -> None:
    """
    Nodes: a few, and for each client namespace its virtual host and route configuration.

    It does not grow with services, nor with proxies of the same namespaces.
    """
    runs = [mesh.edit(virtual_service(10)) for mesh in meshes]
    for mesh, run in zip(meshes, runs, strict=True):
        views = min(mesh.proxies, NAMESPACES)
        assert run.changed == views, run
        assert run.total <= 12 + 6 * views, run
    assert runs[0].total == runs[1].total


def test_an_edit_of_a_policy_builds_one_cluster(meshes: list[MadeMesh]) -> None:
    """PU-03: one cluster, and per client view the layers and sets that hold it."""
    runs = [mesh.edit(destination_rule(2)) for mesh in meshes]
    for mesh, run in zip(meshes, runs, strict=True):
        views = min(mesh.proxies, NAMESPACES)
        assert run.nodes["translators.envoy.clusters.outbound_cluster"] == 1, run
        assert run.total <= 8 + 5 * views + len(mesh.classes), run
        assert run.changed <= len(mesh.classes), run
    assert runs[0].total == runs[1].total


def test_an_edit_of_a_policy_gathers_the_services_beside_it_only(meshes: list[MadeMesh]) -> None:
    """
    Reads: per client view one shard of services, and the shards of all; few per class of proxies.

    A layer in one piece would read each service of each view again: as many nodes, but wide ones.
    """
    for mesh in meshes:
        views = min(mesh.proxies, NAMESPACES)
        run = mesh.edit(destination_rule(3))
        shard, shards = 2 * 40, mesh.services // 8
        assert run.reads <= 40 + views * (shard + shards + 20) + 4 * len(mesh.classes), run


def test_an_edit_of_routes_splices_the_hosts_beside_it_only(meshes: list[MadeMesh]) -> None:
    """Reads: per client view one shard of virtual hosts, and the shards of all."""
    for mesh in meshes:
        views = min(mesh.proxies, NAMESPACES)
        run = mesh.edit(virtual_service(20))
        shard, shards = 40, mesh.services // 8
        assert run.reads <= 40 + views * (shard + shards + 30), run


def test_a_rule_for_many_hosts_concerns_those_it_covers(meshes: list[MadeMesh]) -> None:
    """An edit of a wildcard rule: hosts that it does not cover are not looked at again, but for
    one look at whether any service has the host at all."""
    for mesh in meshes:
        run = mesh.edit(destination_rule(2, WILDCARD))
        assert run.nodes.keys() <= {"model.unserved_hosts.unserved_rules"}, run
        assert run.changed == 0, run


def test_a_label_that_selects_nothing_reaches_its_endpoints_only(meshes: list[MadeMesh]) -> None:
    """A pod's new label: its own proxy's class and its service's endpoints are looked at again."""
    runs = [mesh.edit(pod(note="new")) for mesh in meshes]
    for run in runs:
        assert run.total <= 10, run
        assert run.changed <= 1, run
    assert runs[0].total == runs[1].total


def test_a_new_service_costs_what_its_port_touches(meshes: list[MadeMesh]) -> None:
    """
    Nodes: the service itself, its cluster, and per client view a bounded number of gatherings.
    """
    runs = [mesh.edit(service(mesh.services)) for mesh in meshes]
    for mesh, run in zip(meshes, runs, strict=True):
        views = min(mesh.proxies, NAMESPACES)
        assert run.nodes["translators.envoy.clusters.outbound_cluster"] == 1, run
        assert run.total <= 30 + 14 * views + 4 * mesh.proxies, run
    assert runs[0].total == runs[1].total


def test_an_unchanged_object_runs_nothing(meshes: list[MadeMesh]) -> None:
    """A re-read of the same document is no event at all."""
    for mesh in meshes:
        assert mesh.edit(service(3), slice_of(3)).total == 0
