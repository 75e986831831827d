"""Programs may use their proxy as an HTTP proxy (MC-02, NM-13, N-24); its config is a story."""

import pytest
from fake_proxy import NODE_ID, node
from story import served_to

from pilothouse.api.decode import decode, decode_mesh_config
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import MESH_CONFIG, SIDECARS, THE_MESH
from pilothouse.model.names import HTTP_PROXY_ROUTE, RouteName
from pilothouse.xds.node import read_proxy


def listeners(mesh_port, said):
    """Names of the listeners in a mesh with that port, for a proxy that says something itself."""
    graph = Graph()
    config = decode_mesh_config({"proxyHttpPort": mesh_port}).object
    graph.commit([(MESH_CONFIG, THE_MESH, config)])
    metadata = {} if said is None else {"HTTP_PROXY_PORT": said}
    served = served_to(graph, read_proxy(node(NODE_ID, metadata)))
    codes = {each.code for each in graph.findings()}
    return {each.name for each in served["lds"]} - {"virtualInbound", "virtualOutbound"}, codes


@pytest.mark.parametrize(
    ("mesh_port", "said", "port"),
    [
        (0, None, 0),
        (15080, None, 15080),
        (15080, "3128", 3128),
        (15080, 3128, 3128),
        (15080, "0", 0),
        (15080, "many", 15080),
        (15080, "99999", 15080),
        (0, "3128", 3128),
    ],
)
def test_what_the_proxy_says_goes_before_the_mesh(mesh_port, said, port) -> None:
    """NM-13: unless it is no port."""
    found, codes = listeners(mesh_port, said)
    assert found == ({f"127.0.0.1_{port}"} if port else set())
    assert not codes


def test_a_port_of_the_proxy_itself_is_not_taken() -> None:
    """Envoy would refuse two listeners at one place."""
    assert listeners(15001, None) == (set(), {"ListenerConflict"})


def test_the_routes_have_a_name_of_their_own() -> None:
    """N-24."""
    name = RouteName.parse(HTTP_PROXY_ROUTE)
    assert name.is_http_proxy
    assert not name.pipe
    assert str(name) == HTTP_PROXY_ROUTE
    assert not RouteName.parse("http_proxy:80").is_http_proxy


def test_a_listener_of_a_sidecar_goes_first() -> None:
    """It was opened by hand; that the other is missing is said."""
    graph = Graph()
    row = decode(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": {"name": "s", "namespace": "default"},
            "spec": {
                "egress": [
                    {
                        "port": {"number": 15080, "protocol": "HTTP", "name": "http"},
                        "captureMode": "NONE",
                        "hosts": ["./*"],
                    }
                ]
            },
        }
    ).object
    config = decode_mesh_config({"proxyHttpPort": 15080}).object
    graph.commit([(MESH_CONFIG, THE_MESH, config), (SIDECARS, row.meta.key, row)])
    served = served_to(graph, read_proxy(node()))
    assert [each.name for each in served["rds"]] == ["15080"]
    assert {each.code for each in graph.findings()} == {"ListenerConflict"}
