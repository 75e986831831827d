"""Node messages as istio-agent and plain bootstraps write them (traffic.md section 4)."""

from datetime import timedelta

import pytest
from fake_proxy import node

from pilothouse.api.duration import Duration
from pilothouse.api.proxy_config import ConnectionSettings, OwnProxyConfig, ProxyHeaders
from pilothouse.model.proxies import InterceptionMode, Locality, NodeType, Profile
from pilothouse.xds.node import MAX_ID_LENGTH, MAX_NODE_BYTES, InvalidNode, read_proxy

ID = "sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local"


def test_an_id_is_enough():
    """NM-01: nothing else is needed on the plaintext port; the profile is stock Envoy."""
    proxy = read_proxy(node(ID))
    assert proxy.type is NodeType.SIDECAR
    assert proxy.ips == ("10.0.0.1",)
    assert (proxy.name, proxy.namespace) == ("reviews-v1", "default")
    assert proxy.domain == "default.svc.cluster.local"
    assert proxy.profile is Profile.ENVOY
    assert proxy.interception_mode is InterceptionMode.REDIRECT


def test_metadata_of_an_agent():
    """NM-02 to NM-06, NM-08, NM-09, NM-15, NM-20, PC-10: in the words of an agent."""
    proxy = read_proxy(
        node(
            ID,
            {
                "NAMESPACE": "other",
                "LABELS": {"version": "v1", "app": "reviews"},
                "STATIC_LABELS": {"app": "static", "zone": "z"},
                "SERVICE_ACCOUNT": "bookinfo",
                "INSTANCE_IPS": "10.0.0.1,10.0.0.2, fd00::1",
                "CLUSTER_ID": "Kubernetes",
                "NETWORK": "network1",
                "ISTIO_VERSION": "1.30.0",
                "INTERCEPTION_MODE": "NONE",
                "NODE_NAME": "node-1",
                "DNS_CAPTURE": "true",
                "HTTP10": "1",
                "UNPRIVILEGED_POD": True,
                "UNKNOWN": [1, None, {"deep": ["x"]}],
            },
        )
    )
    assert proxy.namespace == "other"
    assert proxy.labels == (("app", "reviews"), ("version", "v1"), ("zone", "z"))
    assert proxy.ips == ("10.0.0.1", "10.0.0.2", "fd00::1")
    assert (proxy.service_account, proxy.cluster_id, proxy.network) == (
        "bookinfo", "Kubernetes", "network1",
    )  # fmt: skip
    assert proxy.interception_mode is InterceptionMode.NONE
    assert (proxy.istio_version, proxy.node_name) == ("1.30.0", "node-1")
    assert (proxy.dns_capture, proxy.http10, proxy.unprivileged) == (True, True, True)


@pytest.mark.parametrize("value", ["false", "0", "", False, None, 0])
def test_flags_that_are_not_set(value):
    assert not read_proxy(node(ID, {"DNS_CAPTURE": value})).dns_capture


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("localhost:15054", "127.0.0.1:15054"),
        ("[::1]:53", "[::1]:53"),
        ("", "127.0.0.1:15053"),
        ("nonsense", "127.0.0.1:15053"),
        ("10.0.0.1:70000", "127.0.0.1:15053"),
    ],
)
def test_who_captures_dns_is_asked(told, asked):
    """NM-08: DNS_PROXY_ADDR counts only with DNS_CAPTURE, and only as an address."""
    captured = {"DNS_CAPTURE": "true", "DNS_PROXY_ADDR": told}
    assert read_proxy(node(ID, captured)).dns_resolver == asked
    assert read_proxy(node(ID, {"DNS_PROXY_ADDR": told})).dns_resolver == ""


def test_lists_may_be_lists():
    """Quirk of section 4: INSTANCE_IPS is text in istio-agent's JSON, a list elsewhere."""
    proxy = read_proxy(node(ID, {"INSTANCE_IPS": ["10.0.0.9", "nonsense"]}))
    assert proxy.ips == ("10.0.0.1", "10.0.0.9")


def test_the_address_may_come_from_metadata():
    proxy = read_proxy(node(ID.replace("10.0.0.1", ""), {"INSTANCE_IPS": "10.0.0.9"}))
    assert proxy.ips == ("10.0.0.9",)


def test_a_name_without_a_namespace_needs_metadata():
    bare = "router~10.0.0.1~gateway~x"
    assert read_proxy(node(bare, {"NAMESPACE": "istio-system"})).name == "gateway"
    with pytest.raises(InvalidNode, match=r"name\.namespace"):
        read_proxy(node(bare))


def test_the_profile_follows_what_the_proxy_is_built_with():
    """0.1: istio-proxy tells itself by its extensions or its metadata; an explicit word wins."""
    assert read_proxy(node(ID, extensions=["istio.stats"])).profile is Profile.ISTIO_PROXY
    assert read_proxy(node(ID, extensions=["envoy.filters.http.lua"])).profile is Profile.ENVOY
    agent = {"ISTIO_PROXY_SHA": "abc"}
    assert read_proxy(node(ID, agent)).profile is Profile.ISTIO_PROXY
    agent["PILOTHOUSE_PROFILE"] = "envoy"
    assert read_proxy(node(ID, agent)).profile is Profile.ENVOY


def test_locality_of_the_node():
    """NM-26."""
    made = node(ID)
    made.locality.region, made.locality.zone, made.locality.sub_zone = "r", "z", "s"
    assert read_proxy(made).locality == Locality(region="r", zone="z", subzone="s")


def test_sizes_are_bounded():
    """A node is kept as long as its stream, so it must not be large."""
    with pytest.raises(InvalidNode, match="longer"):
        read_proxy(node("sidecar~10.0.0.1~" + "x" * MAX_ID_LENGTH + ".y~z"))
    with pytest.raises(InvalidNode, match="larger"):
        read_proxy(node(ID, {"X": "x" * MAX_NODE_BYTES}))
    with pytest.raises(InvalidNode, match="labels"):
        read_proxy(node(ID, {"LABELS": {f"l{number}": "" for number in range(1_001)}}))


def test_refusals_do_not_repeat_an_attackers_text():
    with pytest.raises(InvalidNode) as caught:
        read_proxy(node("x" * 900))
    assert len(str(caught.value)) < 300


def test_the_proxys_own_config():
    """NM-07, NM-14: of PROXY_CONFIG what shapes listeners is kept, the agent's own is passed by."""
    proxy = read_proxy(
        node(
            ID,
            {
                "IDLE_TIMEOUT": "90s",
                "PROXY_CONFIG": {
                    "concurrency": 2,
                    "statusPort": 15020,
                    "fieldOfALaterVersion": {"x": [1]},
                    "proxyHeaders": {
                        "forwardedClientCert": "SANITIZE",
                        "headerOfALaterVersion": {},
                    },
                    "connectionSettings": {"httpMaxConcurrentStreams": 8, "httpIdleTimeout": "60s"},
                },
            },
        )
    )
    assert proxy.idle_timeout == timedelta(seconds=90)
    assert proxy.config == OwnProxyConfig(
        proxy_headers=ProxyHeaders(forwarded_client_cert="SANITIZE"),
        connection_settings=ConnectionSettings(
            http_max_concurrent_streams=8, http_idle_timeout=Duration(seconds=60)
        ),
    )


@pytest.mark.parametrize(
    ("told", "ports"),
    [
        (
            '[{"name":"web","containerPort":8080,"protocol":"TCP"},{"containerPort":1}]',
            {"web": 8080},
        ),
        (
            [{"name": "web", "containerPort": 8080}, "x", {"name": "odd", "containerPort": 0}],
            {"web": 8080},
        ),
        ("[", {}),
        ("[" * 100_000, {}),
        (7, {}),
        (None, {}),
    ],
)
def test_ports_of_containers(told, ports):
    """NM-10: JSON inside text; what cannot be read says nothing."""
    assert dict(read_proxy(node(ID, {"POD_PORTS": told})).ports) == ports


def test_a_proxy_without_a_config_of_its_own():
    """Not the same as one whose config is silent on headers: that sets the mesh's aside (2.9)."""
    assert read_proxy(node(ID)).config is None
    assert read_proxy(node(ID, {"PROXY_CONFIG": {}})).config is None
    assert read_proxy(node(ID, {"PROXY_CONFIG": {"concurrency": 2}})).config == OwnProxyConfig()
    assert read_proxy(node(ID, {"IDLE_TIMEOUT": "soon"})).idle_timeout is None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"proxyHeaders": {"forwardedClientCert": "SANITISE"}}, "forwardedClientCert"),
        ({"proxyHeaders": {"server": "off"}}, "proxyHeaders.server"),
        ({"connectionSettings": {"httpMaxConcurrentStreams": 0}}, "httpMaxConcurrentStreams"),
        ({"connectionSettings": {"httpIdleTimeout": "soon"}}, "httpIdleTimeout"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(config, told):
    """Headers keep secrets in: a misspelled SANITIZE must not become the default that forwards."""
    with pytest.raises(InvalidNode, match=rf"PROXY_CONFIG.*{told}"):
        read_proxy(node(ID, {"PROXY_CONFIG": config}))
