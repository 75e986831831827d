"""Rules of MeshNetworks (traffic.md MN-01 to MN-04)."""

import pytest

from pilothouse.api.decode import decode_mesh_networks

FINE = {
    "networks": {
        "main": {
            "endpoints": [{"fromRegistry": "Kubernetes"}, {"fromCidr": "10.1.0.0/16"}],
            "gateways": [
                {"address": "203.0.113.9", "port": 15443},
                {"registryServiceName": "gw.istio-system.svc.cluster.local", "port": 15443},
                {"address": "gw.example.com", "port": 15443},
            ],
        },
        "empty": {},
    }
}


def test_fine() -> None:
    """A network may be empty, a gateway a name (MN-03); nothing is a mesh of one network."""
    assert decode_mesh_networks(FINE).findings == ()
    assert decode_mesh_networks(None).object is not None


@pytest.mark.parametrize(
    ("network", "path"),
    [
        ({"endpoints": [{}]}, "endpoints[0]"),
        ({"endpoints": [{"fromRegistry": "a", "fromCidr": "10.0.0.0/8"}]}, "endpoints[0]"),
        ({"endpoints": [{"fromCidr": "10.0.0.0"}]}, "endpoints[0].fromCidr"),
        ({"endpoints": [{"fromCidr": "10.0.0.0/40"}]}, "endpoints[0].fromCidr"),
        ({"endpoints": [{"fromRegistry": "a b"}]}, "endpoints[0].fromRegistry"),
        ({"gateways": [{"port": 1}]}, "gateways[0]"),
        ({"gateways": [{"address": "1.2.3.4"}]}, "gateways[0].port"),
        ({"gateways": [{"address": "a_b!", "port": 1}]}, "gateways[0].address"),
        ({"gateways": [{"address": "*.example.com", "port": 1}]}, "gateways[0].address"),
        (
            {"gateways": [{"registryServiceName": "a b", "port": 1}]},
            "gateways[0].registryServiceName",
        ),
    ],
)
def test_refused(network: dict, path: str) -> None:
    """Each fault is told with its place, and the last good networks stay in use."""
    decoded = decode_mesh_networks({"networks": {"n": network}})
    assert decoded.object is None
    assert [finding.ref.path for finding in decoded.findings] == [f"networks.n.{path}"]


@pytest.mark.parametrize(
    ("networks", "code", "path"),
    [
        (
            {"n": {"gateways": [{"address": "1.2.3.4", "port": 1, "locality": "eu"}]}},
            "FieldNotTranslated",
            "networks.n.gateways[0].locality",
        ),
        (
            {"n": {"gateways": [{"registryServiceName": "gw.a.svc.cluster.local", "port": 1}]}},
            "DoubtfulConfig",
            "networks.n.gateways[0].registryServiceName",
        ),
        (
            {
                "n": {"endpoints": [{"fromRegistry": "a"}]},
                "o": {"endpoints": [{"fromRegistry": "a"}]},
            },
            "DoubtfulConfig",
            "networks.o.endpoints[0].fromRegistry",
        ),
    ],
)
def test_told(networks: dict, code: str, path: str) -> None:
    """What has no effect (MN-04) or loses is said, and the rest is used."""
    decoded = decode_mesh_networks({"networks": networks})
    assert decoded.object is not None
    assert [(each.code, each.ref.path) for each in decoded.findings] == [(code, path)]
