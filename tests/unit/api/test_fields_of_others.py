"""Fields that shape nothing a control plane sends: another's are taken, idle ones are told of."""

from typing import Any

import pytest
import yaml

from pilothouse.api.decode import decode, decode_mesh_config
from pilothouse.graph.findings import Severity


@pytest.mark.parametrize(
    "config",
    [
        "concurrency: 3",  # PC-01: the injector's
        "image: {imageType: distroless}",
        "drainDuration: 10s",  # PC-12: the agent's and the bootstrap's
        "statusPort: 15",
        "holdApplicationUntilProxyStarts: true",
        "proxyStatsMatcher: {inclusionPrefixes: [a]}",
        "proxyMetadata: {A: b}",  # PC-11: comes back as metadata of a node
        "interceptionMode: TPROXY",  # PC-10: likewise
    ],
)
def test_what_others_read_of_a_proxys_config(config: str) -> None:
    """PC-01, PC-10 to PC-12: nothing is wrong with it, so nothing is said."""
    found = decode_mesh_config({"defaultConfig": yaml.safe_load(f"{{{config}}}")})
    assert found.object is not None
    assert found.findings == ()


@pytest.mark.parametrize(
    "config",
    [
        "tracing: {sampling: 10}",
        "privateKeyProvider: {cryptomb: {pollDelay: 1s}}",
        "gatewayTopology: {numTrustedProxies: 1}",
    ],
)
def test_what_is_not_done_of_a_proxys_config(config: str) -> None:
    """PC-02 to PC-04, PC-08, PC-09: of gateways and telemetry; named, and all else is used."""
    found = decode_mesh_config({"defaultConfig": yaml.safe_load(f"{{{config}}}")})
    assert found.object is not None
    assert found.findings
    for each in found.findings:
        assert (each.code, each.severity) == ("FieldNotTranslated", Severity.WARNING)
        assert each.ref.path.startswith(f"defaultConfig.{config.partition(':')[0]}")


def test_where_else_config_may_come_from_is_no_concern_of_ours() -> None:
    """MC-26: another program reads it."""
    found = decode_mesh_config({"configSources": [{"address": "k8s://"}]})
    assert found.object is not None
    assert found.findings == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extensionProviders", [{"name": "a", "prometheus": {}}]),
        ("defaultProviders", {"metrics": ["a"]}),
        ("ingressClass", "own"),
        ("verifyCertificateAtClient", True),
    ],
)
def test_what_is_not_done_of_the_mesh_config(name: str, value: Any) -> None:
    """MC-24, MC-27, MC-31."""
    found = decode_mesh_config({name: value})
    assert found.object is not None
    assert {each.code for each in found.findings} == {"FieldNotTranslated"}
    assert all(each.ref.path.startswith(name) for each in found.findings)


def test_the_source_of_a_connection_is_not_compared() -> None:
    """VS-48: it has no effect upstream either; the rule is for every source, and that is told."""
    rule = """
    hosts: [a]
    tcp:
    - match: [{sourceSubnet: 10.0.0.0/8}]
      route: [{destination: {host: a}}]
    """
    found = decode(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": yaml.safe_load(rule),
        }
    )
    assert found.object is not None
    (finding,) = found.findings
    assert (finding.code, finding.ref.path) == (
        "FieldNotTranslated",
        "spec.tcp[0].match[0].sourceSubnet",
    )
