"""What ServiceEntries and their workloads become: ports, places, names (SE-05, SE-06, WE-02)."""

from typing import Any

import pytest
from served_mesh import Json, Told, told


def entry(resolution: str = "STATIC", location: str = "MESH_INTERNAL", **more: str) -> str:
    lines = "".join(f"  {name}: {value}\n" for name, value in more.items())
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: own, namespace: default}}
spec:
  hosts: [own.example]
  addresses: [192.0.2.1]
  resolution: {resolution}
  location: {location}
  ports:
  - {{number: 80, name: http, protocol: HTTP, targetPort: 8080}}
  - {{number: 81, name: tcp, protocol: TCP}}
{lines}"""


def places(assignment: Json) -> list[str]:
    """Where an assignment leads: addresses and ports, or paths."""
    found = []
    for group in assignment["endpoints"]:
        for each in group["lb_endpoints"]:
            address = each["endpoint"]["address"]
            at: dict[str, Any] = address.get("socket_address") or {"path": address["pipe"]["path"]}
            found.append(at.get("path") or f"{at['address']}:{at['port_value']}")
    return sorted(found)


def test_the_port_of_an_endpoint() -> None:
    """WE-02, SE-05, SE-08: a socket has none; its own for the name, the target port, the same."""
    found = told(
        entry(
            endpoints="""
  - {address: 10.0.0.1, ports: {http: 9080}}
  - {address: 10.0.0.2}
  - {address: 10.0.0.3}
  - {address: "unix:///run/own.sock"}"""
        ).replace("  - {number: 81, name: tcp, protocol: TCP}\n", "")
    )
    ends = places(found.endpoints["outbound|80||own.example"])
    assert ends == ["/run/own.sock", "10.0.0.1:9080", "10.0.0.2:8080", "10.0.0.3:8080"]
    two = told(entry(endpoints="[{address: 10.0.0.1, ports: {tcp: 9081}}, {address: 10.0.0.2}]"))
    assert places(two.endpoints["outbound|81||own.example"]) == ["10.0.0.1:9081", "10.0.0.2:81"]


def test_the_port_of_a_selected_workload() -> None:
    """WE-02, SE-09."""
    workload = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w, namespace: default}
spec: {address: 10.0.0.9, labels: {app: w}, ports: {tcp: 7000}}
"""
    found = told(entry(workloadSelector="{labels: {app: w}}") + workload)
    assert places(found.endpoints["outbound|80||own.example"]) == ["10.0.0.9:8080"]
    assert places(found.endpoints["outbound|81||own.example"]) == ["10.0.0.9:7000"]


@pytest.mark.parametrize("resolution", ["DNS", "DNS_ROUND_ROBIN"])
def test_names_are_looked_up_at_the_target_port(resolution: str) -> None:
    """SE-05, SE-08: without endpoints it is the host itself."""
    found = told(entry(resolution))
    assert places(found.clusters["outbound|80||own.example"]["load_assignment"]) == [
        "own.example:8080"
    ]
    assert places(found.clusters["outbound|81||own.example"]["load_assignment"]) == [
        "own.example:81"
    ]


def test_an_original_destination_may_have_another_port() -> None:
    """SE-05, CL-11: the port is replaced only where the entry names another one."""
    found = told(entry("NONE"))
    changed = found.clusters["outbound|80||own.example"]
    assert changed["original_dst_lb_config"] == {"upstream_port_override": 8080}
    assert "original_dst_lb_config" not in found.clusters["outbound|81||own.example"]


ENDPOINT = "[{address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio}}]"


def cluster(location: str) -> tuple[Told, Json]:
    found = told(entry("STATIC", location, endpoints=ENDPOINT), PILOTHOUSE_CERTIFICATES="ads")
    return found, dict(found.clusters["outbound|80||own.example"])


def test_what_is_outside_the_mesh_is_called_in_plain_text() -> None:
    """SE-06: no mutual TLS of its own accord, and statistics are told that it is outside."""
    _, outside = cluster("MESH_EXTERNAL")
    assert "transport_socket_matches" not in outside
    assert outside["metadata"]["filter_metadata"]["istio"]["external"] is True


def test_what_is_inside_the_mesh_is_called_as_its_endpoints_say() -> None:
    """SE-06, 3.9: mutual TLS towards those that take it."""
    found, inside = cluster("MESH_INTERNAL")
    names = [each["name"] for each in inside["transport_socket_matches"]]
    assert names == ["tlsMode-istio", "tlsMode-disabled"]
    assert "external" not in inside["metadata"]["filter_metadata"]["istio"]
    (group,) = found.endpoints["outbound|80||own.example"]["endpoints"]
    (end,) = group["lb_endpoints"]
    assert end["metadata"]["filter_metadata"]["envoy.transport_socket_match"] == {
        "tlsMode": "istio"
    }


def test_statistics_call_an_entry_by_its_host() -> None:
    """N-68: an object's name says nothing of who is called; that of a Service does."""
    _, inside = cluster("MESH_INTERNAL")
    assert inside["metadata"]["filter_metadata"]["istio"]["services"] == [
        {"host": "own.example", "name": "own.example", "namespace": "default"}
    ]
