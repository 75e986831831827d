"""What outbound listeners do with traffic for no service, or for several (LS-04 to LS-10)."""

import pytest
from served_mesh import told

TCP_PROXY = "envoy.filters.network.tcp_proxy"


def service(name: str, *ports: str, ip: str = "10.96.0.1") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {ip}, ports: [{", ".join(ports)}]}}
"""


def entry(host: str, protocol: str, created: str = "2026-01-01T00:00:00Z") -> str:
    """Return a ServiceEntry without an address, so that it shares the wildcard listener."""
    return f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {host}, namespace: default, creationTimestamp: "{created}"}}
spec:
  hosts: [{host}.example]
  resolution: DNS
  ports: [{{number: 3306, name: x, protocol: {protocol}}}]
"""


@pytest.mark.parametrize(
    ("mode", "cluster"),
    [("ALLOW_ANY", "PassthroughCluster"), ("REGISTRY_ONLY", "BlackHoleCluster")],
)
def test_what_is_not_for_a_service_passes_a_shared_listener(mode: str, cluster: str) -> None:
    """N-29, LS-06, MC-05: whatever the plain HTTP chain does not take, by a chain of that name."""
    found = told(service("a", "{name: http, port: 80}"), f"outboundTrafficPolicy: {{mode: {mode}}}")
    listener = found.listeners["0.0.0.0_80"]
    (http,) = listener["filter_chains"]
    assert http["filter_chain_match"] == {
        "transport_protocol": "raw_buffer",
        "application_protocols": ["http/1.1", "h2c"],
    }
    other = listener["default_filter_chain"]
    assert other["name"] == "PassthroughFilterChain"
    assert "filter_chain_match" not in other
    (proxy,) = other["filters"]
    assert proxy["name"] == TCP_PROXY
    assert proxy["typed_config"]["cluster"] == cluster
    assert proxy["typed_config"]["stat_prefix"] == cluster


def test_idle_connections_end_wherever_they_go() -> None:
    """NM-14: the client's own timeout holds for what passes shared listeners, too."""
    found = told(service("a", "{name: http, port: 80}"), IDLE_TIMEOUT="7s")
    passing = found.listeners["0.0.0.0_80"]["default_filter_chain"]
    catch_all = found.chains("virtualOutbound")[-1]
    for chain in (passing, catch_all):
        assert chain["filters"][0]["typed_config"]["idle_timeout"] == "7s"


@pytest.mark.parametrize(
    ("first", "second"),
    [("MYSQL", "TCP"), ("TCP", "MYSQL"), ("HTTP", "MYSQL"), ("MYSQL", "HTTP"), ("MONGO", "MYSQL")],
)
def test_nothing_waits_for_a_client_whose_server_speaks_first(first: str, second: str) -> None:
    """3.7, LS-10: MySQL and Mongo share no listener; what is older has it."""
    found = told(entry("a", first) + entry("b", second, "2026-02-01T00:00:00Z"))
    alone = told(entry("a", first))
    assert found.listeners["0.0.0.0_3306"] == alone.listeners["0.0.0.0_3306"]
    assert "ListenerConflict" in found.codes()


def test_several_mysql_servers_are_opaque() -> None:
    """3.8: its filter is off, so it is as TCP is."""
    found = told(entry("a", "MYSQL"))
    assert (
        found.listeners["0.0.0.0_3306"]["filter_chains"]
        == (told(entry("a", "TCP")).listeners["0.0.0.0_3306"]["filter_chains"])
    )


EGRESS = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: default}
spec:
  egress:
  - {port: {number: %d, name: x, protocol: HTTP}%s, hosts: ["*/*"]}
  - {hosts: ["*/*"]}
"""


@pytest.mark.parametrize("port", [15001, 15006, 15021, 15090])
def test_a_declared_port_leaves_the_proxys_own_alone(port: int) -> None:
    """LS-09: a listener there would be refused for its address; elsewhere it is as declared."""
    found = told(EGRESS % (port, ""))
    assert f"0.0.0.0_{port}" not in found.listeners
    assert {"virtualInbound", "virtualOutbound"} <= set(found.listeners)
    (conflict,) = (each for each in found.findings if each.code == "ListenerConflict")
    assert conflict.ref.path == "spec.egress[0].port.number"
    assert f"127.0.0.9_{port}" in told(EGRESS % (port, ", bind: 127.0.0.9")).listeners


def test_a_declared_low_port_needs_privileges_to_be_opened() -> None:
    """LS-09, NM-20."""
    text = EGRESS % (81, ", captureMode: NONE")
    assert "127.0.0.1_81" in told(text).listeners
    low = told(text, UNPRIVILEGED_POD="1")
    assert "127.0.0.1_81" not in low.listeners
    assert "ListenerConflict" in low.codes()


ROUTES = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: default}
spec:
  hosts: [a]
  gateways: [mesh, other]
  %s:
  - match: [{gateways: [%s]%s, sourceLabels: {app: one}%s}]
    route: [{destination: {host: a, subset: chosen, port: {number: 70}}}]
"""


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize(
    ("gateways", "more", "app", "is_chosen"),
    [
        ("mesh", "", "one", True),
        ("mesh", "", "two", False),
        ("other", "", "one", False),
        ("mesh", ", sourceNamespace: default", "one", True),
        ("mesh", ", sourceNamespace: elsewhere", "one", False),
    ],
)
def test_conditions_on_connections_hold_all_together(
    kind: str, gateways: str, more: str, app: str, is_chosen: bool
) -> None:
    """VS-45, VS-47: unlike HTTP's, gateways do not overrule what is said of the source."""
    name = "tcp" if kind == "tcp" else "tls"
    sni = "" if kind == "tcp" else ", sniHosts: [a]"
    text = service("a", f"{{name: {name}, port: 70}}") + ROUTES % (kind, gateways, sni, more)
    found = told(text, LABELS={"app": app})
    clusters = {
        chain["filters"][0]["typed_config"]["cluster"] for chain in found.chains("10.96.0.1_70")
    }
    chosen = "outbound|70|chosen|a.default.svc.cluster.local"
    assert (chosen in clusters) is is_chosen
