"""To whom objects may be exported (VS-03, DR-05, DR-06, SE-10), and entries without endpoints."""

from typing import Any

import pytest
import yaml

from pilothouse.api.decode import decode
from pilothouse.graph.findings import Finding, Severity

SPECS = {
    "VirtualService": "hosts: [a], http: [{route: [{destination: {host: a}}]}]",
    "DestinationRule": "host: a, trafficPolicy: {tls: {mode: DISABLE}}",
    "ServiceEntry": "hosts: [a.example], resolution: DNS,"
    " ports: [{number: 80, name: http, protocol: HTTP}]",
}


def findings(kind: str, spec: str) -> tuple[Finding, ...]:
    data: dict[str, Any] = {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": "s", "namespace": "own"},
        "spec": yaml.safe_load(f"{{{spec}}}"),
    }
    return decode(data).findings


def refused(kind: str, more: str) -> list[str]:
    found = findings(kind, f"{SPECS[kind]}, {more}")
    return [each.ref.path for each in found if each.severity is Severity.ERROR]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(
    ("export", "path"),
    [
        ("[]", None),
        ("['.']", None),
        ("['*']", None),
        ("[a, b, '.']", None),
        ("['.', own]", "spec.exportTo[1]"),
        ("[a, a]", "spec.exportTo[1]"),
        ("['*', a]", "spec.exportTo[0]"),
        ("[A_b]", "spec.exportTo[0]"),
    ],
)
def test_namespaces_are_named_once(kind: str, export: str, path: str | None) -> None:
    """VS-03, DR-05, SE-10: a dot is the object's own."""
    assert refused(kind, f"exportTo: {export}") == ([path] if path else [])


@pytest.mark.parametrize(
    ("kind", "is_fine"),
    [("ServiceEntry", True), ("VirtualService", False), ("DestinationRule", False)],
)
def test_what_nobody_sees(kind: str, is_fine: bool) -> None:
    """SE-10: an entry's own workloads serve it all the same; a rule for nobody is a mistake."""
    assert refused(kind, "exportTo: ['~']") == ([] if is_fine else ["spec.exportTo[0]"])


@pytest.mark.parametrize(
    ("export", "is_fine"),
    [("[]", True), ("['.']", True), ("[own]", True), ("['*']", False), ("['.', a]", False)],
)
def test_a_rule_for_some_workloads_stays_with_them(export: str, is_fine: bool) -> None:
    """DR-06."""
    more = f"workloadSelector: {{matchLabels: {{app: a}}}}, exportTo: {export}"
    assert refused("DestinationRule", more) == ([] if is_fine else ["spec.exportTo"])


def test_an_entry_may_have_no_endpoints_yet() -> None:
    """SE-07, SE-08: as upstream, it is served, and whoever forgot them is told."""
    spec = SPECS["ServiceEntry"].replace("DNS", "STATIC")
    (found,) = findings("ServiceEntry", spec)
    assert (found.ref.path, found.severity) == ("spec.endpoints", Severity.WARNING)
