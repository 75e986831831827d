"""Rules for limits, ejection and TLS, wherever they are written."""

from typing import Any

import pytest

from pilothouse.api.decode import decode, decode_mesh_config

POOL = "spec.trafficPolicy.connectionPool"


def findings(policy: dict[str, Any]) -> dict[str, str]:
    """Return what a DestinationRule with this policy makes us say: severity by path."""
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"host": "h", "trafficPolicy": policy},
    }
    return {each.ref.path: each.severity.name for each in decode(document).findings}


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({}, "spec.trafficPolicy"),
        (
            {"tunnel": {"targetHost": "h.example", "targetPort": 1}, "proxyProtocol": {}},
            "spec.trafficPolicy",
        ),
        (
            {"portLevelSettings": [{"port": {"number": 80}}]},
            "spec.trafficPolicy.portLevelSettings[0]",
        ),
        ({"connectionPool": {}}, POOL),
        (
            {"connectionPool": {"http": {"http2KeepAlive": {"interval": "1s"}}}},
            f"{POOL}.http.http2KeepAlive.timeout",
        ),
        ({"connectionPool": {"http": {"idleTimeout": "0s"}}}, f"{POOL}.http.idleTimeout"),
        ({"connectionPool": {"tcp": {"connectTimeout": "0s"}}}, f"{POOL}.tcp.connectTimeout"),
        (
            {"connectionPool": {"tcp": {"tcpKeepalive": {"time": "0s"}}}},
            f"{POOL}.tcp.tcpKeepalive.time",
        ),
        ({"retryBudget": {"percent": 101}}, "spec.trafficPolicy.retryBudget.percent"),
        (
            {"tls": {"mode": "SIMPLE", "insecureSkipVerify": True, "credentialName": "x"}},
            "spec.trafficPolicy.tls",
        ),
        (
            {"tls": {"mode": "SIMPLE", "caCrl": "/crl", "credentialName": "x"}},
            "spec.trafficPolicy.tls",
        ),
        (
            {"tls": {"mode": "MUTUAL", "privateKey": "/k"}},
            "spec.trafficPolicy.tls.clientCertificate",
        ),
    ],
)
def test_what_is_wrong(policy: dict[str, Any], path: str) -> None:
    """Istio refuses these, and so do we, at the field."""
    assert findings(policy).get(path) == "ERROR"


@pytest.mark.parametrize(
    "policy",
    [
        {"connectionPool": {"tcp": {"idleTimeout": "0s"}}},
        {"retryBudget": {}},
        {"proxyProtocol": {"version": "V2"}},
        {"tls": {"mode": "DISABLE", "insecureSkipVerify": True, "caCertificates": "/ca"}},
        {"outlierDetection": {"outlierDetectionHttpErrorCodes": [500, 429]}},
    ],
)
def test_what_is_right(policy: dict[str, Any]) -> None:
    assert findings(policy) == {}


def test_a_status_that_is_none_is_doubted() -> None:
    """DR-44"""
    found = findings({"outlierDetection": {"outlierDetectionHttpErrorCodes": [500, 5000]}})
    path = "spec.trafficPolicy.outlierDetection.outlierDetectionHttpErrorCodes[1]"
    assert found == {path: "WARNING"}


@pytest.mark.parametrize(
    ("config", "path", "severity"),
    [
        ({"defaultTrafficPolicy": {"connectionPool": {}}}, "defaultTrafficPolicy", "ERROR"),
        (
            {"defaultTrafficPolicy": {"outlierDetection": {"maxEjectionPercent": 200}}},
            "defaultTrafficPolicy.outlierDetection.maxEjectionPercent",
            "ERROR",
        ),
        ({"tcpKeepalive": {"time": "0s"}}, "tcpKeepalive.time", "ERROR"),
        ({"tlsDefaults": {"ecdhCurves": ["P-1"]}}, "tlsDefaults.ecdhCurves[0]", "WARNING"),
        (
            {"tlsDefaults": {"cipherSuites": ["AES128-SHA", "AES128-SHA"]}},
            "tlsDefaults.cipherSuites[1]",
            "WARNING",
        ),
    ],
)
def test_the_mesh_is_held_to_the_same_rules(config: Any, path: str, severity: str) -> None:
    """MC-21, MC-22"""
    found = decode_mesh_config(config).findings
    assert [(each.ref.path.startswith(path), each.severity.name) for each in found] == [
        (True, severity)
    ]
