"""Several clusters: what the same name makes together, and what stays apart (K8-20, NM-04)."""

from typing import Any

import msgspec
import pytest

from pilothouse.api.decode import decode, decode_mesh_config
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.classes import proxy_class
from pilothouse.model.clusters import KnownClusters, placed, unplaced
from pilothouse.model.endpoints import Endpoint, EndpointsKey, endpoints
from pilothouse.model.inputs import CLUSTERS, MESH_CONFIG, TABLES, THE_MESH
from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.model.service import Placement, Service, ServiceKey
from pilothouse.model.service_accounts import service_identities
from pilothouse.model.services import Registry, catalog, kubernetes_service
from pilothouse.model.workloads import targets, where_it_runs, workload_labels

WEB = ObjectKey("shop", "web")
HOST = "web.shop.svc.cluster.local"


def service(ip: str = "10.96.0.1", created: str = "", **spec: Any) -> dict[str, Any]:
    """A Service ``web``."""
    meta = {"name": "web", "namespace": "shop"}
    if created:
        meta["creationTimestamp"] = created
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"clusterIP": ip, "selector": {"app": "web"}, "ports": ports, **spec},
    }


def slice_of(ip: str, port: int = 8080, pod: str = "", **labels: str) -> dict[str, Any]:
    """A slice of ``web`` with one address."""
    listed: dict[str, Any] = {"addresses": [ip]}
    if pod:
        listed["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "shop"}
    owner = {"kubernetes.io/service-name": "web", **labels}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": owner},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [listed],
    }


def pod(ip: str, account: str = "default", node: str = "", **labels: str) -> dict[str, Any]:
    """A pod ``web-0``."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web", **labels}},
        "spec": {"serviceAccountName": account, "nodeName": node},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}]},
    }


def labelled(kind: str, name: str, **labels: str) -> dict[str, Any]:
    """A Node or Namespace with labels."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}}


def mesh(mesh_config: dict[str, Any] | None = None, **objects: list[dict[str, Any]]) -> Graph:
    """A graph with objects by cluster: `own` is ours, the others are remote."""
    graph = Graph()
    rows: list[Any] = [
        (CLUSTERS, THE_MESH, KnownClusters(others=tuple(sorted(objects.keys() - {"own"})))),
        (MESH_CONFIG, THE_MESH, decode_mesh_config(mesh_config or {}).object),
    ]
    for name, documents in objects.items():
        cluster = "" if name == "own" else name
        for document in documents:
            decoded = decode(document)
            assert decoded.object is not None, decoded.findings
            meta = msgspec.structs.replace(decoded.object.meta, cluster=cluster)
            row = msgspec.structs.replace(decoded.object, meta=meta)
            rows.append((TABLES[meta.kind], meta.key, row))
    graph.commit(rows)
    return graph


def web(graph: Graph) -> Service:
    """The service as clients see it."""
    found = graph.value(kubernetes_service, WEB)
    assert found is not None
    return found


def places(graph: Graph) -> list[tuple[str, int, str]]:
    """Address, port and cluster of each endpoint of port 80."""
    return [(each.address, each.port, each.cluster) for each in every(graph)]


def every(graph: Graph) -> tuple[Endpoint, ...]:
    """The endpoints of port 80."""
    key = ServiceKey(Registry.KUBERNETES, "shop", "web", HOST)
    return graph.value(endpoints, EndpointsKey(key, 80))


def proxy(cluster: str, ip: str = "10.1.0.1", name: str = "web-0") -> Proxy:
    """A proxy of namespace ``shop``."""
    return Proxy(
        id=f"{name}{cluster}", type=NodeType.SIDECAR, ips=(ip,), name=name, namespace="shop",
        domain="shop.svc.cluster.local", cluster_id=cluster,
    )  # fmt: skip


@query
def place_of(ctx: Ctx, asked: Proxy) -> dict[str, str]:
    """Where a proxy runs."""
    return where_it_runs(ctx, asked)


def test_a_name_in_several_clusters_is_one_service() -> None:
    """Our own words count; addresses are those of each cluster, and of ours where one has none."""
    graph = mesh(own=[service("10.96.0.1")], east=[service("10.97.0.1")], west=[service("")])
    found = web(graph)
    assert [each.key for each in graph.value(catalog, None)] == [found.key]
    assert found.placements == (
        Placement("", ("10.96.0.1",)),
        Placement("east", ("10.97.0.1",)),
        Placement("west", ()),
    )
    assert found.source.ref.cluster == ""
    assert [found.vips_in(each) for each in ("", "east", "west", "none")] == [
        ("10.96.0.1",), ("10.97.0.1",), ("10.96.0.1",), ("10.96.0.1",)
    ]  # fmt: skip


def test_without_ours_the_oldest_service_counts() -> None:
    """As registries are asked upstream, but by age, so that no restart changes it."""
    new, old = "2024-02-01T00:00:00Z", "2024-01-01T00:00:00Z"
    found = web(mesh(own=[], east=[service("10.97.0.1", new)], west=[service("10.98.0.1", old)]))
    assert found.clusters == ("west", "east")
    assert (found.vips, found.vips_in("east")) == (("10.98.0.1",), ("10.97.0.1",))
    assert found.source.ref.object_name == "shop/web @west"
    same = web(mesh(own=[], west=[service("10.98.0.1")], east=[service("10.97.0.1")]))
    assert same.clusters == ("east", "west")


@pytest.mark.parametrize(
    ("there", "what"),
    [
        (service(ports=[{"name": "http", "port": 81}]), "spec.ports"),
        (service(ports=[{"name": "tcp", "port": 80}]), "spec.ports"),
        (service("None"), "spec.type"),
        (service(selector={"app": "other"}), ""),
    ],
)
def test_clusters_that_disagree_are_told_of(there: dict[str, Any], what: str) -> None:
    """Ports or type of the first cluster count; a target port is each cluster's own business."""
    graph = mesh(own=[service()], west=[there])
    assert web(graph).port(80) is not None
    found = [(each.code, each.ref.cluster, each.ref.path) for each in graph.findings()]
    assert found == ([("ClustersDisagree", "west", what)] if what else [])


def test_endpoints_are_those_of_all_clusters() -> None:
    """Each cluster's slices by the port's name; the same address may be two places."""
    graph = mesh(
        own=[service(), slice_of("10.1.0.1")],
        east=[service(), slice_of("10.1.0.1")],
        west=[service(ports=[{"name": "http", "port": 80}]), slice_of("10.3.0.1", 9090)],
    )
    assert places(graph) == [
        ("10.1.0.1", 8080, "Kubernetes"),
        ("10.1.0.1", 8080, "east"),
        ("10.3.0.1", 9090, "west"),
    ]


def test_a_cluster_without_the_service_adds_nothing() -> None:
    """Slices nobody there owns, and those a ServiceImport brought (K8-12), are no endpoints."""
    imported = slice_of("10.4.0.1")
    imported["metadata"]["labels"]["multicluster.kubernetes.io/service-name"] = "web"
    graph = mesh(
        own=[service(), slice_of("10.1.0.1")],
        east=[slice_of("10.2.0.1")],
        west=[service(), imported],
    )
    assert places(graph) == [("10.1.0.1", 8080, "Kubernetes")]


def test_a_cluster_that_is_not_known_counts_for_nothing() -> None:
    """Removing a cluster from those that are known takes its endpoints and addresses."""
    graph = mesh(own=[service(), slice_of("10.1.0.1")], west=[service(), slice_of("10.2.0.1")])
    assert len(places(graph)) == 2
    graph.commit([(CLUSTERS, THE_MESH, KnownClusters())])
    assert places(graph) == [("10.1.0.1", 8080, "Kubernetes")]
    assert web(graph).placements == ()


def test_pods_and_nodes_are_found_in_their_cluster() -> None:
    """The same names and addresses elsewhere are other pods on other nodes (K8-14, K8-17)."""
    zone = "topology.kubernetes.io/zone"
    graph = mesh(
        own=[
            service(),
            slice_of("10.1.0.1", pod="web-0"),
            pod("10.1.0.1", "a", "n", version="v1"),
            labelled("Node", "n", **{zone: "z1"}),
        ],
        west=[
            service(),
            slice_of("10.1.0.1"),
            pod("10.1.0.1", "b", "n", version="v2"),
            labelled("Node", "n", **{zone: "z2"}),
        ],
    )
    found = [
        (e.cluster, e.locality.zone, e.account, dict(e.labels)["version"]) for e in every(graph)
    ]
    assert found == [
        ("Kubernetes", "z1", "ns/shop/sa/a", "v1"),
        ("west", "z2", "ns/shop/sa/b", "v2"),
    ]
    assert [each.workload.rpartition(";")[2] for each in every(graph)] == ["Kubernetes", "west"]


def test_endpoints_wait_for_pods_of_their_own_cluster() -> None:
    """K8-13: pods of one cluster say nothing of whether those of another are told of."""
    graph = mesh(
        own=[service(), slice_of("10.1.0.1", pod="web-7"), pod("10.1.0.9")],
        west=[service(), slice_of("10.2.0.1", pod="web-7")],
    )
    assert places(graph) == [("10.2.0.1", 8080, "west")]


def test_the_registry_says_the_cluster_of_a_remote_pod() -> None:
    """A label of the pod does not, or a pod could pass for one of another cluster."""
    label = {"topology.istio.io/cluster": "Kubernetes"}
    remote = pod("10.2.0.1")
    remote["metadata"]["labels"] |= label
    graph = mesh(own=[], west=[service(), slice_of("10.2.0.1", pod="web-0"), remote])
    (found,) = every(graph)
    assert found.label("topology.istio.io/cluster") == "west"
    assert found.workload.endswith(";west")


def test_identities_are_those_of_all_clusters() -> None:
    """Accounts of pods, and what annotations of each cluster's Service add (K8-10, K8-20)."""
    there = service()
    there["metadata"]["annotations"] = {"alpha.istio.io/kubernetes-serviceaccounts": "extra"}
    graph = mesh(
        own=[service(), slice_of("10.1.0.1", pod="web-0"), pod("10.1.0.1", "a")],
        west=[there, slice_of("10.2.0.1", pod="web-0"), pod("10.2.0.1", "b")],
    )
    found = graph.value(service_identities, ServiceKey(Registry.KUBERNETES, "shop", "web", HOST))
    assert found == tuple(
        f"spiffe://cluster.local/ns/shop/sa/{name}" for name in ("a", "b", "extra")
    )


def test_a_service_selects_workload_entries_of_its_cluster_and_an_entry_all() -> None:
    """As istiod: Services select within their cluster, ServiceEntries everywhere."""

    def entry(ip: str) -> dict[str, Any]:
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": "vm", "namespace": "shop"},
            "spec": {"address": ip, "labels": {"app": "web"}},
        }

    declared = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "all", "namespace": "shop"},
        "spec": {
            "hosts": ["all.example"],
            "resolution": "STATIC",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "workloadSelector": {"labels": {"app": "web"}},
        },
    }
    graph = mesh(
        own=[service(selector={"app": "none"}), entry("10.1.0.1"), declared],
        west=[service(), entry("10.2.0.1"), pod("10.2.0.2")],
    )
    assert places(graph) == [("10.2.0.1", 8080, "west")]
    key = ServiceKey(Registry.EXTERNAL, "shop", "all", "all.example")
    found = graph.value(endpoints, EndpointsKey(key, 80))
    assert [(each.address, each.cluster) for each in found] == [
        ("10.1.0.1", "Kubernetes"),
        ("10.2.0.1", "west"),
        ("10.2.0.2", "west"),
    ]


def test_discovery_selectors_look_at_each_clusters_namespaces() -> None:
    """MC-25: a namespace that takes part here does not take part there by that."""
    config = {"discoverySelectors": [{"matchLabels": {"mesh": "on"}}]}
    graph = mesh(
        config,
        own=[labelled("Namespace", "shop", mesh="on"), service(), slice_of("10.1.0.1")],
        east=[labelled("Namespace", "shop", mesh="on"), service(), slice_of("10.2.0.1")],
        west=[labelled("Namespace", "shop"), service(), slice_of("10.3.0.1")],
    )
    assert [each[2] for each in places(graph)] == ["Kubernetes", "east"]
    (found,) = graph.findings()
    assert (found.code, found.ref.object_name) == ("NamespaceNotDiscovered", "shop @west")


def test_a_proxy_is_what_its_own_cluster_says() -> None:
    """Pod, labels, and the ports it serves are looked up by CLUSTER_ID (NM-04, K8-18)."""
    ports = [{"name": "http", "port": 80, "targetPort": 9090}]
    graph = mesh(
        own=[service(), pod("10.1.0.1", version="v1")],
        west=[service(ports=ports), pod("10.1.0.1", version="v2")],
    )
    for cluster, version, number in (
        ("Kubernetes", "v1", 8080), ("", "v1", 8080), ("south", "v1", 8080), ("west", "v2", 9090),
    ):  # fmt: skip
        asked = proxy(cluster)
        assert dict(graph.value(workload_labels, asked))["version"] == version
        assert [each.number for each in graph.value(targets, asked)] == [number]
        name = cluster if cluster == "west" else "Kubernetes"
        assert graph.value(place_of, asked)["topology.istio.io/cluster"] == name


def test_proxies_of_clusters_that_are_not_known_are_told_of() -> None:
    """They are served as ours; whoever looks for the mistake finds the name."""
    graph = mesh(own=[service()], west=[service()])
    classes = [graph.value(proxy_class, proxy(each)) for each in ("Kubernetes", "", "south")]
    assert len(set(classes)) == 1
    assert [(each.code, each.ref.name) for each in graph.findings()] == [
        ("UnknownCluster", "south")
    ]
    alone = Graph()
    alone.value(proxy_class, proxy("south"))
    assert not alone.findings()


@pytest.mark.parametrize("cluster", ["", "west"])
def test_what_is_placed_is_found_again(cluster: str) -> None:
    """Ours stays what it is, so that a mesh of one cluster pays nothing."""
    assert unplaced(placed("n", cluster)) == (cluster, "n")
    assert placed("n", "") == "n"


def test_names_of_clusters() -> None:
    """Keys have none for ours; a name that is not known is taken for ours."""
    known = KnownClusters("home", ("west",))
    assert [known.key_of(each) for each in ("home", "west", "south")] == ["", "west", ""]
    assert [known.name_of(each) for each in ("", "west")] == ["home", "west"]
    assert [known.knows(each) for each in ("home", "west", "south", "")] == [
        True, True, False, False
    ]  # fmt: skip
