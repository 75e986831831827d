"""Names on the wire: each format and its parser are inverse to each other (N-01 to N-48)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.model.names import (
    BadName,
    ClusterName,
    InboundClusterName,
    ListenerName,
    RouteName,
    VirtualHostName,
    config_path,
)

ports = st.integers(1, 65535)
labels = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
hosts = st.builds(
    lambda star, parts: star + ".".join(parts),
    st.sampled_from(["", "*."]),
    st.lists(labels, min_size=1, max_size=4),
)
addresses = st.ip_addresses().map(str)
paths = st.from_regex(r"/[a-z0-9_.-]{1,12}(/[a-z0-9_.:-]{1,12}){0,2}", fullmatch=True)

clusters = st.builds(ClusterName, ports, st.just("") | labels, hosts)
listeners = st.builds(ListenerName, addresses, ports) | st.builds(ListenerName, paths, st.just(0))
routes = (
    st.builds(RouteName, ports, st.just("") | hosts)
    | st.builds(RouteName, st.just(0), paths)
)  # fmt: skip
virtual_hosts = st.builds(VirtualHostName, hosts, ports)


@given(st.one_of(clusters, st.builds(InboundClusterName, ports), listeners, routes, virtual_hosts))
def test_parsing_a_name_gives_it_back(
    name: ClusterName | InboundClusterName | ListenerName | RouteName | VirtualHostName,
) -> None:
    assert type(name).parse(str(name)) == name


@given(
    st.sampled_from([ClusterName, InboundClusterName, ListenerName, RouteName, VirtualHostName]),
    st.text(max_size=40),
)
def test_what_parses_formats_to_the_same_text(kind: type[ClusterName], text: str) -> None:
    """A parser takes no text that its format would not write, and fails only with BadName."""
    try:
        name = kind.parse(text)
    except BadName:
        return
    assert kind.parse(str(name)) == name
    assert str(name) == text


def test_names_as_tools_know_them() -> None:
    """N-01, N-02, N-03, N-20, N-40, N-41, N-48, N-68."""
    cluster = ClusterName(80, "v1", "reviews.default.svc.cluster.local")
    assert str(cluster) == "outbound|80|v1|reviews.default.svc.cluster.local"
    assert cluster.sni == "outbound_.80_.v1_.reviews.default.svc.cluster.local"
    assert str(InboundClusterName(9080)) == "inbound|9080||"
    assert str(ListenerName("0.0.0.0", 80)) == "0.0.0.0_80"
    assert str(RouteName(80)) == "80"
    assert str(RouteName(8080, "a.example")) == "a.example:8080"
    assert str(VirtualHostName("a.example", 80)) == "a.example:80"
    path = config_path("networking.istio.io/v1", "default", "VirtualService", "reviews")
    assert path == "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outbound|80|v1",
        "outbound|eighty||a",
        "outbound|0||a",
        "outbound|080||a",
        "inbound|80||a",
        "x|1||a",
    ],
)
def test_what_is_no_cluster_name_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(BadName, match=re.escape(repr(text))):
        ClusterName.parse(text)
