"""Rules across the fields of ServiceEntry, WorkloadEntry and WorkloadGroup (SE-*, WE-*, WG-*)."""

import pytest
import yaml

from pilothouse.api.decode import Decoded, decode, decode_mesh_config
from pilothouse.graph.findings import Severity

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"
TCP = "ports: [{number: 9000, name: tcp, protocol: TCP}]"


def read(kind: str, spec: str, more: str = "") -> Decoded:
    """Decode an object of networking.istio.io; `more` is further YAML of its metadata."""
    head = f"apiVersion: networking.istio.io/v1\nkind: {kind}\n"
    metadata = f"metadata: {{name: x, namespace: default{more}}}\n"
    return decode(yaml.safe_load(f"{head}{metadata}spec: {spec}"))


def said(decoded: Decoded) -> set[tuple[Severity, str]]:
    return {(each.severity, each.ref.path) for each in decoded.findings}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{hosts: ['*.a.b'], resolution: DYNAMIC_DNS, " + TCP + "}", "spec.ports[0].protocol"),
        ("{hosts: ['*.a.b'], addresses: [10.0.0.1], resolution: DYNAMIC_DNS, " + HTTP + "}",
         "spec.addresses"),
        ("{hosts: [a.b], resolution: DYNAMIC_DNS, " + HTTP + "}", "spec.hosts"),
        ("{hosts: [a.b, c.d], resolution: DNS, " + TCP + "}", "spec.ports[0].protocol"),
        (("{hosts: [a.b], resolution: STATIC, endpoints: [{address: 'unix:///s'}], ports: ["
         "{number: 1, name: a, protocol: HTTP}, {number: 2, name: b, protocol: HTTP}]}"),
         "spec.endpoints[0].address"),
        ("{hosts: [a.b], resolution: DNS, ports: [{number: 80, name: Not_OK, protocol: HTTP}]}",
         "spec.ports[0].name"),
    ],
)  # fmt: skip
def test_a_service_entry_that_cannot_work_is_refused(spec: str, path: str) -> None:
    """SE-04, SE-08, SE-17."""
    decoded = read("ServiceEntry", spec)
    assert decoded.object is None
    assert said(decoded) == {(Severity.ERROR, path)}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{hosts: [a.b], resolution: NONE, " + TCP + "}", "spec.ports[0]"),
        ("{hosts: [a.b], resolution: STATIC, workloadSelector: {}, " + HTTP + "}",
         "spec.workloadSelector"),
        ("{hosts: [a.b], workloadSelector: {labels: {app: a}}, " + HTTP + "}",
         "spec.workloadSelector"),
    ],
)  # fmt: skip
def test_a_doubtful_service_entry_is_used_and_said(spec: str, path: str) -> None:
    decoded = read("ServiceEntry", spec)
    assert decoded.object is not None
    assert said(decoded) == {(Severity.WARNING, path)}


def test_tcp_without_addresses_is_doubtful_only_if_none_is_found_for_it() -> None:
    """3.13: an address of the pool tells TCP hosts apart, unless the entry opted out."""
    spec = "{hosts: [a.b], resolution: DNS, " + TCP + "}"
    out = ", labels: {networking.istio.io/enable-autoallocate-ip: 'false'}"
    assert read("ServiceEntry", spec).findings == ()
    assert said(read("ServiceEntry", spec, out)) == {(Severity.WARNING, "spec.ports[0]")}


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("{}", "spec.probe"),
        ("{tcpSocket: {port: 80}, exec: {command: [a]}}", "spec.probe"),
        ("{periodSeconds: -1, tcpSocket: {port: 80}}", "spec.probe.periodSeconds"),
        ("{httpGet: {port: 0}}", "spec.probe.httpGet.port"),
        ("{httpGet: {port: 80, scheme: FTP}}", "spec.probe.httpGet.scheme"),
        ("{httpGet: {port: 80, httpHeaders: [{name: 'a b', value: c}]}}",
         "spec.probe.httpGet.httpHeaders[0].name"),
        ("{tcpSocket: {port: 70000}}", "spec.probe.tcpSocket.port"),
        ("{exec: {command: []}}", "spec.probe.exec.command"),
    ],
)  # fmt: skip
def test_a_probe_that_cannot_run_is_refused(probe: str, path: str) -> None:
    """WG-03."""
    decoded = read("WorkloadGroup", f"{{template: {{serviceAccount: a}}, probe: {probe}}}")
    assert decoded.object is None
    assert (Severity.ERROR, path) in said(decoded)


def test_the_address_of_a_template_is_nobodys() -> None:
    """WG-01: who registers brings an address of its own."""
    decoded = read("WorkloadGroup", "{template: {address: 10.0.0.1}}")
    assert decoded.object is not None
    assert said(decoded) == {(Severity.WARNING, "spec.template.address")}


def test_labels_of_a_group_are_checked() -> None:
    """WG-02."""
    decoded = read("WorkloadGroup", "{template: {}, metadata: {labels: {app: 'a b'}}}")
    assert (Severity.ERROR, "spec.metadata.labels.app") in said(decoded)


def test_an_endpoint_of_another_network_needs_no_address() -> None:
    """WE-01."""
    assert said(read("WorkloadEntry", "{network: far}")) == {(Severity.WARNING, "spec.address")}
    assert said(read("WorkloadEntry", "{labels: {app: a}}")) == {(Severity.ERROR, "spec.address")}


@pytest.mark.parametrize(
    ("annotation", "status", "is_healthy"),
    [
        ("", "{}", True),
        ("'false'", "{}", True),
        ("'true'", "{}", False),
        ("'true'", "{conditions: [{type: Healthy, status: 'False'}]}", False),
        ("'true'", "{conditions: [{type: Other, status: 'True'}]}", False),
        ("'true'", "{conditions: [{type: Healthy, status: 'True', reason: x}, 7]}", True),
        ("'true'", "{conditions: nonsense}", False),
    ],
)
def test_health_is_what_the_status_says_once_checks_are_enabled(
    annotation: str, status: str, is_healthy: bool
) -> None:
    """WE-07; status is written by others, so what it holds besides is passed over."""
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"address": "10.0.0.1"},
        "status": yaml.safe_load(status),
    }
    if annotation:
        value = yaml.safe_load(annotation)
        document["metadata"]["annotations"] = {"proxy.istio.io/health-checks-enabled": value}
    decoded = decode(document)
    assert decoded.findings == ()
    assert decoded.object.is_healthy is is_healthy


def test_labels_of_the_object_win_over_those_of_the_spec() -> None:
    """WE-03."""
    decoded = read("WorkloadEntry", "{address: 10.0.0.1, labels: {a: s, b: s}}", ", labels: {a: o}")
    assert decoded.object.all_labels == {"a": "o", "b": "s"}


def test_tls_to_undeclared_hosts_needs_their_lookup() -> None:
    """MC-05: the mode is what sends requests there over TLS."""
    policy = {"tls": {"mode": "SIMPLE"}}
    decoded = decode_mesh_config({"outboundTrafficPolicy": policy})
    assert said(decoded) == {(Severity.WARNING, "outboundTrafficPolicy.tls")}
    policy["mode"] = "ALLOW_ANY_DYNAMIC_DNS"
    assert said(decode_mesh_config({"outboundTrafficPolicy": policy})) == set()
