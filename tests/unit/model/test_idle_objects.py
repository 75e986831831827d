"""Objects that nobody obeys or uses are named, with what to do about it (SC-01, DR-01, VS-01)."""

import pytest
from served_mesh import Told, told

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
"""


def rule(host: str) -> str:
    return f"""---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r, namespace: default}}
spec: {{host: "{host}", trafficPolicy: {{tls: {{mode: DISABLE}}}}}}
"""


def sidecar(name: str, day: int, selector: str = "", namespace: str = "default") -> str:
    return f"""---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2026-01-0{day}T00:00:00Z"}}
spec: {{{selector}egress: [{{hosts: ["*/*"]}}]}}
"""


def refs(found: Told, code: str) -> list[tuple[str, str, str]]:
    return [
        (each.ref.kind, each.ref.name, each.ref.path)
        for each in found.findings
        if each.code == code
    ]


@pytest.mark.parametrize(
    ("host", "is_used"),
    [
        ("web", True),
        ("web.default.svc.cluster.local", True),
        ("WEB", True),
        ("*.default.svc.cluster.local", True),
        ("*", True),
        ("gone", False),
        ("web.other.svc.cluster.local", False),
        ("*.gone.example", False),
    ],
)
def test_a_rule_for_a_host_that_nobody_has(host: str, is_used: bool) -> None:
    """DR-01."""
    found = refs(told(WEB + rule(host)), "HostWithoutService")
    assert found == ([] if is_used else [("DestinationRule", "r", "spec.host")])


APP = "workloadSelector: {labels: {app: a}}, "


@pytest.mark.parametrize(
    ("sidecars", "ignored"),
    [
        ([sidecar("one", 1), sidecar("two", 2)], ["two"]),
        ([sidecar("one", 2), sidecar("two", 1)], ["one"]),
        ([sidecar("one", 1, APP), sidecar("two", 2, APP)], ["two"]),
        ([sidecar("one", 1, APP), sidecar("two", 2)], []),
        ([sidecar("one", 1), sidecar("two", 2, "", "istio-system")], []),
        (
            [
                sidecar("one", 1, "", "istio-system"),
                sidecar("two", 2, "", "istio-system"),
            ],
            ["two"],
        ),
        ([sidecar("one", 1, APP.replace("a}}", "b}}")), sidecar("two", 2, APP)], []),
    ],
)
def test_a_workload_obeys_one_sidecar(sidecars: list[str], ignored: list[str]) -> None:
    """SC-01, 3.3: of several for it in the same rank the oldest; the others are told of."""
    found = told(WEB + "".join(sidecars), LABELS={"app": "a"})
    assert refs(found, "SidecarIgnored") == [("Sidecar", name, "spec") for name in ignored]
