"""Rules across the fields of a Sidecar, as Istio has them (SC-01 to SC-12)."""

from typing import Any

import pytest
import yaml

from pilothouse.api.decode import decode
from pilothouse.graph.findings import Severity

HOSTS = "hosts: ['*/*']"
PORT = "port: {number: 80, name: x, protocol: HTTP}"
SOCKET = "port: {name: x, protocol: HTTP}, bind: 'unix:///x'"


def problems(spec: str) -> list[tuple[str, Severity]]:
    data: dict[str, Any] = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": yaml.safe_load(spec),
    }
    return [(each.ref.path, each.severity) for each in decode(data).findings]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{}", "spec"),
        ("{workloadSelector: {labels: {app: a}}}", "spec"),
        # One port, whatever the address.
        (
            f"{{ingress: [{{{PORT}}}, {{{PORT}, bind: 10.0.0.1}}]}}",
            "spec.ingress[1].port",
        ),
        (f"{{ingress: [{{{PORT}, bind: 'unix:///x'}}]}}", "spec.ingress[0].bind"),
        (
            "{ingress: [{port: {number: 80, name: x, protocol: HTTP, targetPort: 8}}]}",
            "spec.ingress[0].port.targetPort",
        ),
        (
            f"{{egress: [{{{PORT}, {HOSTS}}}, {{{PORT}, bind: 127.0.0.2, {HOSTS}}}]}}",
            "spec.egress[1].port",
        ),
        (
            f"{{egress: [{{{PORT}, bind: 'unix:///x', {HOSTS}}}]}}",
            "spec.egress[0].port.number",
        ),
        (
            f"{{egress: [{{{SOCKET}, captureMode: IPTABLES, {HOSTS}}}]}}",
            "spec.egress[0].captureMode",
        ),
        (
            "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.example}}}",
            "spec.outboundTrafficPolicy.egressProxy.port",
        ),
    ],
)
def test_what_is_refused(spec: str, path: str) -> None:
    """SC-03, SC-06, SC-07, SC-12: the object is not used, and the field is named."""
    assert [each for each in problems(spec) if each[1] is Severity.ERROR] == [
        (path, Severity.ERROR)
    ]


def test_one_socket_is_one_listener() -> None:
    socket = f"{{{SOCKET}, {HOSTS}}}"
    other = socket.replace("/x'", "/z'")
    assert problems(f"{{egress: [{socket}, {other}]}}") == []
    assert problems(f"{{egress: [{socket}, {socket}]}}") == [
        ("spec.egress[1].port", Severity.ERROR)
    ]


def test_a_selector_of_nothing_selects_everything() -> None:
    """SC-01: it is used, and it is told."""
    spec = f"{{workloadSelector: {{}}, egress: [{{{HOSTS}}}]}}"
    assert problems(spec) == [("spec.workloadSelector", Severity.WARNING)]
