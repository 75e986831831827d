"""Addresses that Envoy could not use, and what of the mesh's own ConfigMap is not used."""

import pytest

from pilothouse.api.decode import decode
from pilothouse.api.sessions import session_of

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
    ("label", "value", "is_fine"),
    [
        ("istio.io/persistent-session", "cookie", True),
        ("istio.io/persistent-session", "cookie:/cart", True),
        ("istio.io/persistent-session", ":/cart", False),
        ("istio.io/persistent-session", "coo kie", False),
        ("istio.io/persistent-session", "cookie:cart", False),
        ("istio.io/persistent-session-header", "x-session", True),
        ("istio.io/persistent-session-header", "x session", False),
    ],
)
def test_sessions_that_cannot_be_kept_are_told_of(label: str, value: str, is_fine: bool) -> None:
    """K8-11: the service is used all the same; Envoy would refuse such a cookie or header."""
    metadata = {"name": "web", "namespace": "shop", "labels": {label: value}}
    spec = {"ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": metadata,
        "spec": {
            "hosts": ["a.example"],
            "ports": [{"number": 80, "name": "h", "protocol": "HTTP"}],
        },
    }
    for each in (service, entry):
        decoded = decode(each)
        assert decoded.object is not None
        assert (session_of(decoded.object.meta.labels) is not None) is is_fine
        told = [finding.ref.path for finding in decoded.findings]
        assert told == ([] if is_fine else [f'metadata.labels["{label}"]'])


def test_clusters_that_istiod_would_reach_are_told_of() -> None:
    """K8-22: the Secret stays usable, its values are not shown, the finding says what to do."""
    labels = {"istio/multiCluster": "true"}
    data = {"west": "bm90IGZvciBldmVyeWJvZHk="}
    meta = {"name": "remotes", "namespace": "istio-system", "labels": labels}
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}
    decoded = decode(document)
    assert decoded.object is not None
    (found,) = decoded.findings
    assert (found.code, found.ref.path) == (
        "FieldNotTranslated",
        'metadata.labels["istio/multiCluster"]',
    )
    assert "west" in found.message
    assert "--remote-cluster NAME=DIR" in found.remedy
    assert "not for everybody" not in str(found)
    assert data["west"] not in str(found)


@pytest.mark.parametrize("kind", ["ServiceExport", "ServiceImport"])
def test_objects_of_multi_cluster_services_are_told_of(kind: str) -> None:
    """K8-21: Istio reads them only if told to; here they have no effect, and that is said."""
    head = {"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": kind}
    decoded = decode({**head, "metadata": {"name": "web", "namespace": "shop"}})
    assert decoded.object is None
    (found,) = decoded.findings
    assert (found.code, found.severity.name) == ("KindIgnored", "WARNING")
    assert "serviceSettings" in found.remedy
