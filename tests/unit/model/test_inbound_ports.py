"""Which ports a workload's proxy opens, and where their requests go (LS-14, SC-06 to SC-08)."""

from collections.abc import Iterable
from textwrap import indent

import pytest
from served_mesh import Told, told

SERVED = {"LABELS": {"app": "web"}, "INTERCEPTION_MODE": "REDIRECT"}


def service(name: str, port: str, created: str = "2026-01-01T00:00:00Z") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default, creationTimestamp: "{created}"}}
spec:
  clusterIP: 10.96.0.{len(name)}
  selector: {{app: web}}
  ports: [{{{port}}}]
"""


def sidecar(*ingress: str) -> str:
    listed = indent("\n".join(f"- {each}" for each in ingress), "  ")
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: default}}
spec:
  ingress:
{listed}
"""


def node(*ips: str) -> dict[str, str]:
    return {"node_id": f"sidecar~{ips[0]}~web-0.default~default.svc.cluster.local"}


def mesh(*documents: str, ips: Iterable[str] = ("10.1.0.2",), **metadata: object) -> Told:
    ips = tuple(ips)
    more = SERVED | {"INSTANCE_IPS": ",".join(ips)} | metadata
    return told("\n---\n".join(documents), "", node(*ips)["node_id"], **more)


def where(cluster: dict[str, object]) -> object:
    """Where the requests of a static cluster go."""
    assignment = cluster["load_assignment"]
    assert isinstance(assignment, dict)
    (endpoint,) = assignment["endpoints"][0]["lb_endpoints"]
    place = endpoint["endpoint"]["address"]["socket_address"]
    return f"{place['address']}|{place['port_value']}"


def test_the_oldest_of_several_services_on_a_port_decides() -> None:
    """LS-14, N-28, N-44: its protocol and its name; of the others the protocol is told."""
    found = mesh(
        service("young", "name: tcp, port: 70, targetPort: 8080", "2026-02-01T00:00:00Z"),
        service("old", "name: http, port: 80, targetPort: 8080"),
        service("also", "name: http-other, port: 81, targetPort: 8080", "2026-03-01T00:00:00Z"),
    )
    own = [each for each in found.chains("virtualInbound") if each["name"] == "0.0.0.0_8080"]
    (manager,) = (each["filters"][0]["typed_config"] for each in own)
    (host,) = manager["route_config"]["virtual_hosts"]
    assert (host["name"], host["domains"]) == ("inbound|http|80", ["*"])
    (route,) = host["routes"]
    assert route["decorator"]["operation"] == "old.default.svc.cluster.local:80/*"
    assert [name for name in found.clusters if name.startswith("inbound")] == ["inbound|8080||"]
    (conflict,) = (each for each in found.findings if each.code == "InboundPortConflict")
    assert (conflict.ref.name, conflict.ref.path) == ("young", "spec.ports[port=70]")


def test_statistics_know_whose_requests_arrive_on_a_port() -> None:
    """N-68: every service that has the port under the first one's number, and no other."""
    found = mesh(
        service("a", "name: http, port: 80, targetPort: 8080"),
        service("bb", "name: http, port: 80, targetPort: 8080", "2026-02-01T00:00:00Z"),
        service("ccc", "name: http, port: 81, targetPort: 8080", "2026-03-01T00:00:00Z"),
    )
    known = found.clusters["inbound|8080||"]["metadata"]["filter_metadata"]["istio"]["services"]
    assert [each["name"] for each in known] == ["a", "bb"]
    assert known[0] == {
        "host": "a.default.svc.cluster.local",
        "name": "a",
        "namespace": "default",
    }


@pytest.mark.parametrize("number", [15001, 15006, 15021, 15090])
def test_ports_of_the_proxy_serve_nothing_else(number: int) -> None:
    """LS-09, N-30: a chain there would be one that the proxy has already."""
    found = mesh(service("a", f"name: http, port: 80, targetPort: {number}"))
    names = {each["name"] for each in found.chains("virtualInbound")}
    assert f"0.0.0.0_{number}" not in names
    assert f"inbound|{number}||" not in found.clusters
    assert "ReservedPort" in found.codes()
    assert "WouldBeRefused" not in found.codes()


def test_the_ports_of_the_proxy_are_those_of_the_mesh_config() -> None:
    """LS-09, MC-01: where traffic is redirected to other ports, the usual ones are free."""
    text = service("a", "name: http, port: 15001, targetPort: 15006")
    found = told(text, "{proxyListenPort: 16001, proxyInboundListenPort: 16006}", **SERVED)
    assert "0.0.0.0_15001" in found.listeners
    assert {each["name"] for each in found.chains("virtualInbound")} >= {"0.0.0.0_15006"}
    assert {"ReservedPort", "ListenerConflict"}.isdisjoint(found.codes())
    other = told(text.replace("1500", "1600"), "{proxyListenPort: 16001}", **SERVED)
    assert "0.0.0.0_16001" not in other.listeners


def test_without_a_port_to_redirect_to_there_are_no_listeners() -> None:
    """MC-01: proxyListenPort 0 removes them."""
    text = service("a", "name: http, port: 80")
    assert not told(text, "proxyListenPort: 0", **SERVED).listeners


@pytest.mark.parametrize(
    ("ips", "bound"),
    [
        (("10.1.0.2",), "10.1.0.2_8080"),
        (("127.0.0.1", "10.1.0.2"), "10.1.0.2_8080"),
        (("127.0.0.1",), "0.0.0.0_8080"),
        (("169.254.1.1",), "0.0.0.0_8080"),
        (("fd00::2",), "fd00::2_8080"),
        (("::1",), "::_8080"),
    ],
)
def test_where_a_port_of_its_own_is_opened(ips: tuple[str, ...], bound: str) -> None:
    """SC-07, NM-03: at the workload's address, everywhere if others cannot reach that."""
    port = "port: {number: 8080, protocol: HTTP, name: x}"
    found = mesh(sidecar(f"{{{port}, captureMode: NONE, defaultEndpoint: '127.0.0.1:1'}}"), ips=ips)
    assert bound in found.listeners
    assert found.listeners[bound]["traffic_direction"] == "INBOUND"


def test_a_captured_port_is_a_chain_whatever_its_bind() -> None:
    """SC-07: only captureMode NONE makes a listener; SC-06: services' own ports are gone."""
    found = mesh(
        service("a", "name: http, port: 80"),
        sidecar("{port: {number: 8080, protocol: HTTP, name: x}, bind: 10.1.0.2}"),
    )
    names = {each["name"] for each in found.chains("virtualInbound")}
    assert "0.0.0.0_8080" in names
    assert "0.0.0.0_80" not in names
    assert "10.1.0.2_8080" not in found.listeners


@pytest.mark.parametrize(
    ("ips", "written", "goes_to"),
    [
        (("10.1.0.2", "fd00::2"), "0.0.0.0:9", "10.1.0.2|9"),
        (("fd00::2", "10.1.0.2"), "0.0.0.0:9", "10.1.0.2|9"),
        (("10.1.0.2", "fd00::2"), "[::]:9", "fd00::2|9"),
        (("fd00::2",), "0.0.0.0:9", "127.0.0.1|9"),
        (("10.1.0.2",), "[::]:9", "::1|9"),
        (("10.1.0.2",), "127.0.0.1:9", "127.0.0.1|9"),
        (("fd00::2",), "127.0.0.1:9", "::1|9"),
        (("10.1.0.2",), "[::1]:9", "127.0.0.1|9"),
    ],
)
def test_where_requests_of_a_declared_port_go(
    ips: tuple[str, ...], written: str, goes_to: str
) -> None:
    """SC-08, NM-03: the address meant, of a family that the workload has."""
    port = "port: {number: 8080, protocol: HTTP, name: x}"
    found = mesh(sidecar(f"{{{port}, defaultEndpoint: '{written}'}}"), ips=ips)
    assert where(found.clusters["inbound|8080||"]) == goes_to


def test_a_declared_port_is_the_sidecars_own() -> None:
    """N-44, N-69, SC-13: numbered as declared, called by the Sidecar, which its metadata names."""
    found = mesh(
        service("a", "name: http, port: 80, targetPort: 8080"),
        sidecar("{port: {number: 8080, protocol: HTTP, name: x}}"),
    )
    (chain,) = (each for each in found.chains("virtualInbound") if each["name"] == "0.0.0.0_8080")
    path = "/apis/networking.istio.io/v1/namespaces/default/sidecar/web"
    assert chain["metadata"]["filter_metadata"]["istio"] == {"config": path}
    (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    assert host["name"] == "inbound|http|8080"
    assert host["routes"][0]["decorator"]["operation"] == "web.default:8080/*"


def test_a_proxy_without_privileges_opens_no_low_port() -> None:
    """LS-09, NM-20: neither towards the workload nor outward; captured ports are no matter."""
    text = (
        service("a", "name: http, port: 80"),
        sidecar(
            "{port: {number: 81, protocol: HTTP, name: x}, captureMode: NONE,"
            " defaultEndpoint: '127.0.0.1:1'}",
            "{port: {number: 82, protocol: HTTP, name: z}, defaultEndpoint: '127.0.0.1:1'}",
        ),
    )
    low = mesh(*text, UNPRIVILEGED_POD="true")
    assert {"10.1.0.2_81", "0.0.0.0_80"} & set(low.listeners) == {"0.0.0.0_80"}
    assert "0.0.0.0_82" in {each["name"] for each in low.chains("virtualInbound")}
    assert "PrivilegedPort" in low.codes()
    high = mesh(*text)
    assert "10.1.0.2_81" in high.listeners
    bound = mesh(text[0], UNPRIVILEGED_POD="true", INTERCEPTION_MODE="NONE")
    assert "127.0.0.1_80" not in bound.listeners
    assert "ListenerConflict" in bound.codes()
    assert "127.0.0.1_80" in mesh(text[0], INTERCEPTION_MODE="NONE").listeners


def test_a_bound_port_waits_for_a_protocol_as_long_as_any_other() -> None:
    """MC-04."""
    port = "port: {number: 8080, name: x, protocol: ''}"
    text = sidecar(f"{{{port}, captureMode: NONE, defaultEndpoint: '127.0.0.1:1'}}")
    found = told(text, "protocolDetectionTimeout: 3s", node("10.1.0.2")["node_id"], **SERVED)
    for name in ("10.1.0.2_8080", "virtualInbound"):
        assert found.listeners[name]["listener_filters_timeout"] == "3s"
