"""By what requests of a route are spread, where a rule says it in several places."""

import pytest
from served_mesh import told

MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: a}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  %s
  subsets:
    - name: a
      labels: {v: a}
      %s
"""


def by(name: str) -> str:
    return f"loadBalancer: {{consistentHash: {{httpHeaderName: {name}}}}}"


def policy(name: str, port: str) -> str:
    """Return a policy that hashes by `name`, and at the port by `port`; neither if empty."""
    at_port = f"portLevelSettings: [{{port: {{number: 80}}, {by(port)}}}]"
    parts = [*([by(name)] if name else []), *([at_port] if port else [])]
    return f"trafficPolicy: {{{', '.join(parts)}}}" if parts else ""


@pytest.mark.parametrize(
    ("top", "top_port", "subset", "subset_port", "expected"),
    [
        ("x-top", "", "", "", "x-top"),
        ("x-top", "x-port", "", "", "x-port"),
        ("x-top", "x-port", "x-subset", "", "x-subset"),
        ("x-top", "x-port", "x-subset", "x-subset-port", "x-subset-port"),
        ("x-top", "", "", "x-subset-port", "x-subset-port"),
    ],
)
def test_the_nearest_to_the_route_counts(
    top: str, top_port: str, subset: str, subset_port: str, expected: str
) -> None:
    """DR-24: the subset before the rule, and in each of them the port before the rest."""
    text = MESH % (policy(top, top_port), policy(subset, subset_port))
    host = told(text).host("80", "web.default.svc.cluster.local:80")
    (route,) = host["routes"]
    assert route["route"]["hash_policy"] == [{"header": {"header_name": expected}}]


def test_endpoints_are_asked_for_by_the_name_of_the_cluster() -> None:
    """CL-05: over the stream the cluster came by."""
    found = told(MESH % ("", ""))
    for name in ("outbound|80||", "outbound|80|a|"):
        cluster = found.clusters[f"{name}web.default.svc.cluster.local"]
        asked = cluster["eds_cluster_config"]
        assert asked["service_name"] == cluster["name"]
        assert asked["service_name"] in found.endpoints
        assert asked["eds_config"]["resource_api_version"] == "V3"
        assert "ads" in asked["eds_config"]
