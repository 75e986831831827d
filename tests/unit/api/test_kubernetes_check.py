"""Addresses that Envoy could not use, and what of the mesh's own ConfigMap is not used."""

import pytest

from pilothouse.api.decode import decode

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}
ENDPOINTS = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "e"},
    "subsets": [
        {
            "addresses": [{"ip": "10.0.0.1"}],
            "notReadyAddresses": [{"ip": "fd00::1"}],
            "ports": [{"port": 80}],
        }
    ],
}


def networks(text: str, name: str = "istio") -> dict:
    data = {"meshNetworks": text}
    metadata = {"name": name, "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.mark.parametrize(
    "good", [POD, ENDPOINTS, networks("networks: {}\n"), networks("networks: {a: {}}", "other")]
)
def test_fine(good: dict) -> None:
    decoded = decode(good)
    assert decoded.object is not None
    assert decoded.findings == ()


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        ({**POD, "status": {"podIP": "web.example"}}, "status.podIP"),
        ({**POD, "status": {"podIPs": [{"ip": ""}]}}, "status.podIPs[0].ip"),
        (
            {**ENDPOINTS, "subsets": [{"notReadyAddresses": [{"ip": "x"}]}]},
            "subsets[0].notReadyAddresses[0].ip",
        ),
        ({**ENDPOINTS, "subsets": [{"ports": [{"port": 0}]}]}, "subsets[0].ports[0].port"),
    ],
)
def test_refused(bad: dict, path: str) -> None:
    """K8-12: one such address would make Envoy refuse the whole load assignment."""
    decoded = decode(bad)
    assert decoded.object is None
    assert [finding.ref.path for finding in decoded.findings] == [path]


def test_networks_are_not_ignored_silently() -> None:
    """MN-01: the object is used, and said to be used in part."""
    decoded = decode(networks("networks: {west: {endpoints: [{fromRegistry: west}]}}"))
    assert decoded.object is not None
    assert [finding.code for finding in decoded.findings] == ["FieldNotTranslated"]
