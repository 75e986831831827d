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


@pytest.mark.parametrize("good", [POD, ENDPOINTS])
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


@pytest.mark.parametrize(
    "label", ["istio.io/persistent-session", "istio.io/persistent-session-header"]
)
def test_sessions_that_are_not_kept_are_told_of(label: str) -> None:
    """K8-11: the Service is used, and its label is said to have no effect."""
    metadata = {"name": "web", "labels": {label: "cookie:/"}}
    spec = {"ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    decoded = decode(service)
    assert decoded.object is not None
    [finding] = decoded.findings
    assert (finding.code, label in finding.ref.path) == ("FieldNotTranslated", True)
