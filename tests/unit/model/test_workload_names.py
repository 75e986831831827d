"""What statistics call the workload of an endpoint (N-70), and whom clients are told of (DR-43)."""

from typing import Any

import pytest
import yaml
from served_mesh import Json, told

from pilothouse.api.decode import decode
from pilothouse.model.workload_names import workload_of_pod


def name_of(metadata: str) -> str:
    """Return the workload's name for a Pod named p with this much more metadata."""
    data: dict[str, Any] = {"name": "p", "namespace": "n", **yaml.safe_load(f"{{{metadata}}}")}
    decoded = decode({"apiVersion": "v1", "kind": "Pod", "metadata": data, "spec": {}})
    assert decoded.object is not None, decoded.findings
    return workload_of_pod(decoded.object)


def made_by(kind: str, name: str, labels: str = "", controller: str = "true") -> str:
    owner = f"{{kind: {kind}, name: {name}, controller: {controller}}}"
    return f"generateName: p-, ownerReferences: [{owner}], labels: {{{labels}}}"


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ("labels: {}", "p"),
        (made_by("ReplicaSet", "web-5f", "pod-template-hash: 5f"), "web"),
        (made_by("ReplicaSet", "web-5f", "rollouts-pod-template-hash: 5f"), "web"),
        (made_by("ReplicaSet", "web-5f", "pod-template-hash: 6a"), "web-5f"),
        (made_by("ReplicaSet", "bare"), "bare"),
        (made_by("StatefulSet", "db"), "db"),
        (made_by("DaemonSet", "agent"), "agent"),
        (made_by("Job", "once"), "once"),
        (made_by("Job", "nightly-28401234"), "nightly"),
        (made_by("ReplicationController", "web-3", "deploymentconfig: web"), "web"),
        (made_by("ReplicaSet", "web-5f", "pod-template-hash: 5f", "false"), "p"),
        (made_by("StatefulSet", "db").replace("generateName: p-, ", ""), "p"),
        (made_by("StatefulSet", "db", "service.istio.io/workload-name: own"), "own"),
        ("generateName: p-, ownerReferences: odd", "p"),
        ("generateName: p-, ownerReferences: [{controller: true, kind: [], name: 3}]", "p"),
    ],
)
def test_a_workload_is_called_by_what_made_it(metadata: str, name: str) -> None:
    """N-70: the same name for all pods of a Deployment, before and after a rollout."""
    assert name_of(metadata) == name


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own, namespace: shop}
spec:
  hosts: [own.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, labels: {app: till, version: v2}}, {address: 10.0.0.2}]
"""


def test_listed_endpoints_are_known_by_their_labels() -> None:
    """N-70: they have no name of their own."""
    (group,) = told(ENTRY).endpoints["outbound|80||own.example"]["endpoints"]
    said = [
        each["metadata"]["filter_metadata"]["istio"]["workload"] for each in group["lb_endpoints"]
    ]
    assert said == [";shop;till;v2;Kubernetes", ";shop;;;Kubernetes"]


SPREAD = """
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]%s}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: default, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.1.0.2], conditions: {ready: false}}, {addresses: [10.1.0.3]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, trafficPolicy: {outlierDetection: {%s}}}
"""
A = "outbound|80||a.default.svc.cluster.local"


def told_of(assignment: Json) -> int:
    return sum(len(group["lb_endpoints"]) for group in assignment["endpoints"])


@pytest.mark.parametrize(
    ("distribution", "ejection", "threshold", "count"),
    [
        ("", "interval: 1s", {}, 2),
        ("", "minHealthPercent: 30", {"value": 30.0}, 1),
        (", trafficDistribution: PreferClose", "minHealthPercent: 30", {}, 2),
    ],
)
def test_who_is_not_ready_is_never_used_in_panic(
    distribution: str, ejection: str, threshold: Json, count: int
) -> None:
    """DR-43, 3.10, K8-07: either there is panic, or clients know of the unready."""
    found = told(SPREAD % (distribution, ejection))
    assert found.clusters[A]["common_lb_config"]["healthy_panic_threshold"] == threshold
    assert told_of(found.endpoints[A]) == count
