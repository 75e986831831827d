"""PeerAuthentication as it is decoded and checked (security.md S-API-1)."""

from typing import Any

import pytest

from pilothouse.api.decode import Decoded, decode
from pilothouse.api.peer_authentication import MutualTls
from pilothouse.graph.findings import Severity


def policy(spec: dict[str, Any], version: str = "v1") -> Decoded:
    return decode(
        {
            "apiVersion": f"security.istio.io/{version}",
            "kind": "PeerAuthentication",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": spec,
        }
    )


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_every_field_is_read_in_both_versions(version: str) -> None:
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "DISABLE"}, "9000": {}},
    }
    decoded = policy(spec, version)
    assert decoded.findings == ()
    assert decoded.object.spec.labels == {"app": "web"}
    assert decoded.object.spec.mtls == MutualTls(mode="STRICT")
    assert decoded.object.spec.port_level_mtls == {
        "8080": MutualTls(mode="DISABLE"),
        "9000": MutualTls(),
    }


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"portLevelMtls": {"80": {"mode": "STRICT"}}}, "spec.portLevelMtls"),
        (
            {"selector": {"matchLabels": {}}, "portLevelMtls": {"80": {"mode": "STRICT"}}},
            "spec.portLevelMtls",
        ),
        *(
            (
                {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {port: {}}},
                f'spec.portLevelMtls["{port}"]',
            )
            for port in ("0", "65536", "-1", "080", "80a", "٣", "9" * 5000)
        ),
        ({"selector": {"matchLabels": {"app": "w*"}}}, "spec.selector.matchLabels.app"),
        ({"mtls": {"mode": "MUTUAL"}}, "spec.mtls.mode"),
    ],
)
def test_what_breaks_a_rule_is_refused(spec: dict[str, Any], path: str) -> None:
    decoded = policy(spec)
    assert decoded.object is None
    assert {(each.severity, each.ref.path) for each in decoded.findings} == {(Severity.ERROR, path)}
