"""Decoding: fast and thorough paths agree, and every error names object, field and remedy."""

from datetime import timedelta
from typing import Any

import pytest

from pilothouse.api.decode import Decoded, decode, decode_mesh_config, expand
from pilothouse.api.destination_rule import DestinationRule
from pilothouse.api.kinds import KINDS
from pilothouse.api.kubernetes_core import EndpointSlice, Secret, Service
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.meta import ObjectKey
from pilothouse.api.virtual_service import VirtualService
from pilothouse.graph.findings import Finding, Severity
from pilothouse.providers.yaml_loader import parse


def _decode(text: str) -> Decoded:
    [document] = parse(text)
    return decode(document.data)


def _virtual_service(spec: str) -> Decoded:
    head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r}\n"
    return _decode(f"{head}spec: {spec}")


def _only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, [str(each) for each in findings]
    return findings[0]


def test_a_virtual_service_is_decoded_with_defaults() -> None:
    """An object without a namespace goes to "default"; its generation is its spec's digest."""
    decoded = _virtual_service(
        "{hosts: [reviews], http: [{timeout: 1m, route: [{destination: {host: reviews}}]}]}"
    )
    row = decoded.object
    assert isinstance(row, VirtualService)
    assert decoded.findings == ()
    assert row.meta.key == ObjectKey("default", "r")
    assert row.spec.http[0].timeout == timedelta(minutes=1)
    assert len(row.meta.generation) == 8


def test_the_generation_follows_the_spec_and_not_its_order() -> None:
    """Equal specs have equal digests whatever the order of their fields."""
    one = _virtual_service("{hosts: [a], http: [{name: x, redirect: {uri: /}}]}")
    two = _virtual_service("{http: [{redirect: {uri: /}, name: x}], hosts: [a]}")
    other = _virtual_service("{hosts: [b], http: [{name: x, redirect: {uri: /}}]}")
    assert one.object.meta.generation == two.object.meta.generation
    assert one.object.meta.generation != other.object.meta.generation


def test_an_unknown_field_is_a_warning_and_the_object_is_used() -> None:
    """The field is named with its path and the closest name there is."""
    decoded = _virtual_service("{hosts: [a], http: [{redirect: {uri: /, autority: x}}]}")
    finding = _only(decoded.findings)
    assert decoded.object is not None
    assert (finding.code, finding.severity) == ("UnknownField", Severity.WARNING)
    assert finding.ref.path == "spec.http[0].redirect.autority"
    assert "authority" in finding.remedy


def test_a_field_in_snake_case_is_told_its_name() -> None:
    """A protobuf spelling is recognised."""
    decoded = _virtual_service("{hosts: [a], export_to: ['.'], http: [{redirect: {uri: /}}]}")
    assert "exportTo" in _only(decoded.findings).remedy


def test_all_errors_are_found_at_once() -> None:
    """A wrong type does not hide a bad value further on, and the object is not used."""
    decoded = _virtual_service(
        "{hosts: reviews, http: [{timeout: 10, retries: {attempts: many},"
        " route: [{weight: 1}], corsPolicy: {unmatchedPreflights: IGNORED}}]}"
    )
    assert decoded.object is None
    assert decoded.is_broken
    assert {(each.code, each.ref.path) for each in decoded.findings} == {
        ("WrongType", "spec.hosts"),
        ("WrongType", "spec.http[0].timeout"),
        ("WrongType", "spec.http[0].retries.attempts"),
        ("MissingField", "spec.http[0].route[0].destination"),
        ("BadValue", "spec.http[0].corsPolicy.unmatchedPreflights"),
    }
    assert "quotes" not in "".join(each.remedy for each in decoded.findings)


def test_a_number_where_text_belongs_asks_for_quotes() -> None:
    """The commonest slip of YAML has its remedy."""
    decoded = _virtual_service("{hosts: [1], http: [{redirect: {uri: /}}]}")
    assert _only(decoded.findings).remedy == "Put it in quotes."


def test_null_means_not_set() -> None:
    """An empty value is as good as its absence, as in Kubernetes."""
    decoded = _virtual_service(
        "{hosts: [a], gateways: null, http: [{match: null, redirect: {uri: /}}]}"
    )
    assert decoded.findings == ()
    assert decoded.object.spec.gateways == ()


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{hosts: [a]}", "spec"),
        ("{hosts: [a], http: [{name: x}]}", "spec.http[0]"),
        ("{hosts: [a, a], http: [{redirect: {uri: /}}]}", "spec.hosts[1]"),
        ("{hosts: ['a.*'], http: [{redirect: {uri: /}}]}", "spec.hosts[0]"),
        ("{hosts: ['*'], http: [{redirect: {uri: /}}]}", "spec.hosts[0]"),
        ("{hosts: [a], http: [{redirect: {uri: /, redirectCode: 418}}]}",
         "spec.http[0].redirect.redirectCode"),
        ("{hosts: [a], http: [{redirect: {uri: /, port: 1, derivePort: FROM_REQUEST_PORT}}]}",
         "spec.http[0].redirect"),
        ("{hosts: [a], http: [{directResponse: {status: 99}}]}",
         "spec.http[0].directResponse.status"),
        ("{hosts: [a], http: [{redirect: {uri: /}, directResponse: {status: 200}}]}",
         "spec.http[0]"),
        ("{hosts: [a], http: [{match: [{uri: {regex: '(?=x)'}}], redirect: {uri: /}}]}",
         "spec.http[0].match[0].uri.regex"),
        ("{hosts: [a], http: [{match: [{uri: {exact: /, prefix: /}}], redirect: {uri: /}}]}",
         "spec.http[0].match[0].uri"),
        ("{hosts: [a], http: [{match: [{port: 70000}], redirect: {uri: /}}]}",
         "spec.http[0].match[0].port"),
        ("{hosts: [a], http: [{match: [{headers: {'a b': {exact: x}}}], redirect: {uri: /}}]}",
         'spec.http[0].match[0].headers["a b"]'),
        ("{hosts: [a], http: [{timeout: 0s, route: [{destination: {host: a}}]}]}",
         "spec.http[0].timeout"),
        ("{hosts: [a], http: [{route: [{destination: {host: a, port: {number: 0}}}]}]}",
         "spec.http[0].route[0].destination.port.number"),
        ("{hosts: [a], http: [{route: [{destination: {host: '*'}}]}]}",
         "spec.http[0].route[0].destination.host"),
        ("{hosts: [a], http: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]}",
         "spec.http[0].route"),
        (("{hosts: [a], http: [{retries: {attempts: 1, retryOn: always},"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].retries.retryOn"),
        (("{hosts: [a], http: [{fault: {abort: {httpStatus: 503, percentage: {value: 101}}},"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].fault.abort.percentage.value"),
        (("{hosts: [a], http: [{fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}},"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].fault.abort.grpcStatus"),
        (("{hosts: [a], http: [{mirror: {host: m}, mirrors: [{destination: {host: m}}],"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].mirrors"),
        (("{hosts: [a], http: [{headers: {request: {remove: [host]}},"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].headers.request.remove[0]"),
        (("{hosts: [a], http: [{corsPolicy: {maxAge: 1.5s},"
         " route: [{destination: {host: a}}]}]}"), "spec.http[0].corsPolicy.maxAge"),
        (("{hosts: [a.com], tls: [{match: [{sniHosts: [b.com]}],"
         " route: [{destination: {host: a}}]}]}"), "spec.tls[0].match[0].sniHosts[0]"),
        (("{hosts: [a], tcp: [{match: [{destinationSubnets: [10.0.0.0/40]}],"
         " route: [{destination: {host: a}}]}]}"), "spec.tcp[0].match[0].destinationSubnets[0]"),
        ("{hosts: [a], exportTo: ['*', b], http: [{redirect: {uri: /}}]}", "spec.exportTo[0]"),
    ],
)  # fmt: skip
def test_a_virtual_service_that_istio_refuses_is_refused(spec: str, path: str) -> None:
    """One error at the field that is wrong (VS-01 to VS-50)."""
    decoded = _virtual_service(spec)
    finding = _only(tuple(e for e in decoded.findings if e.severity is Severity.ERROR))
    assert finding.ref.path == path
    assert decoded.object is None


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        ("DestinationRule", "{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1].name"),
        ("DestinationRule", "{host: 'a b'}", "spec.host"),
        ("DestinationRule", "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {}}}}",
         "spec.trafficPolicy.loadBalancer.consistentHash"),
        ("DestinationRule", ("{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM,"
         " consistentHash: {useSourceIp: true}}}}"), "spec.trafficPolicy.loadBalancer"),
        ("DestinationRule", "{host: a, trafficPolicy: {portLevelSettings: [{tls: {}}]}}",
         "spec.trafficPolicy.portLevelSettings[0].port"),
        ("DestinationRule",
         "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}",
         "spec.trafficPolicy.outlierDetection.maxEjectionPercent"),
        ("DestinationRule", "{host: a, trafficPolicy: {tls: {mode: MUTUAL, privateKey: /k}}}",
         "spec.trafficPolicy.tls.clientCertificate"),
        ("ServiceEntry", "{hosts: ['*.b'], resolution: DNS, ports: [{number: 1, name: x}]}",
         "spec.hosts"),
        ("ServiceEntry", ("{hosts: [a.b], ports: [{number: 1, name: x, protocol: HTTP},"
         " {number: 1, name: z, protocol: HTTP}]}"), "spec.ports[1].number"),
        ("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: x, protocol: SPDY}]}",
         "spec.ports[0].protocol"),
        ("ServiceEntry", ("{hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}],"
         " ports: [{number: 1, name: x, protocol: HTTP}]}"), "spec.endpoints[0].address"),
        ("WorkloadEntry", "{labels: {a: b}}", "spec.address"),
        ("WorkloadEntry", "{address: 1.2.3.4, ports: {http: 0}}", "spec.ports.http"),
        ("WorkloadEntry", "{address: 'unix://x'}", "spec.address"),
        ("Sidecar", "{egress: [{hosts: [reviews]}]}", "spec.egress[0].hosts[0]"),
        ("Sidecar", "{egress: [{hosts: ['./*']}, {hosts: ['./*']}]}", "spec.egress[0]"),
        ("Sidecar", ("{ingress: [{port: {number: 80, protocol: HTTP, name: x},"
         " defaultEndpoint: '10.0.0.1:80'}]}"), "spec.ingress[0].defaultEndpoint"),
        ("Gateway", "{servers: [{port: {number: 443, protocol: HTTPS, name: x}, hosts: ['*']}]}",
         "spec.servers[0].tls"),
    ],
)  # fmt: skip
def test_other_objects_that_istio_refuses_are_refused(kind: str, spec: str, path: str) -> None:
    """An error at the field that is wrong (DR-01.., SE-01.., WE-01.., SC-02.., GW-01..)."""
    decoded = _decode(
        f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}"
    )
    errors = [each.ref.path for each in decoded.findings if each.severity is Severity.ERROR]
    assert path in errors
    assert decoded.object is None


def test_security_kinds_are_held_and_said_to_be_unenforced() -> None:
    """A policy that does nothing must not pass for one that protects."""
    decoded = _decode(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\n"
        "spec: {action: DENY}"
    )
    assert decoded.object is not None
    finding = _only(decoded.findings)
    assert (finding.code, finding.severity) == ("KindNotTranslated", Severity.ERROR)


def test_every_version_of_every_kind_is_found() -> None:
    """v1, v1beta1 and v1alpha3 of networking are the same objects."""
    for kind in KINDS:
        for api_version in kind.api_versions:
            document: dict[str, Any] = {
                "apiVersion": api_version,
                "kind": kind.name,
                "metadata": {"name": "x"},
            }
            assert all(each.code != "KindIgnored" for each in decode(document).findings)


@pytest.mark.parametrize(
    ("document", "code", "severity"),
    [
        ({"apiVersion": "networking.istio.io/v9", "kind": "Gateway"}, "UnknownVersion", 30),
        ({"apiVersion": "networking.istio.io/v1", "kind": "VirtualServce"}, "UnknownKind", 30),
        ({"apiVersion": "apps/v1", "kind": "Deployment"}, "KindIgnored", 10),
        ({"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator"}, "KindIgnored", 10),
        ({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceExport"}, "KindIgnored",
         20),
        ({"apiVersion": ["v1"], "kind": "Service"}, "NotAnObject", 30),
        ([], "NotAnObject", 30),
        ({"apiVersion": "v1", "kind": "Service"}, "MissingField", 30),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "A_B"}}, "BadName", 30),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"x": 1}}},
         "WrongType", 30),
    ],
)  # fmt: skip
def test_documents_that_are_no_objects_of_ours(document: Any, code: str, severity: int) -> None:
    """Each is told apart, and an unrelated object is no error."""
    finding = _only(decode(document).findings)
    assert (finding.code, finding.severity) == (code, severity)


def test_kubernetes_objects_keep_only_what_is_read() -> None:
    """Two writes that differ in fields we never read are equal and stop there."""
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: s, generation: 3}\n"
    one = _decode(head + "spec: {ports: [{port: 80}], sessionAffinityConfig: {a: 1}}").object
    two = _decode(head + "spec: {ports: [{port: 80}], loadBalancerClass: x}").object
    assert isinstance(one, Service)
    assert one == two
    assert one.spec.ports[0].target_port is None


def test_an_endpoint_slice_is_decoded() -> None:
    """Conditions that are not given are unknown (K8-12); null lists are empty."""
    decoded = _decode(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\n"
        "addressType: IPv4\nports: null\n"
        "endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]"
    )
    row = decoded.object
    assert isinstance(row, EndpointSlice)
    assert row.ports is None
    assert row.endpoints is not None
    assert row.endpoints[0].conditions.ready is True
    assert row.endpoints[0].conditions.serving is None


def test_a_secret_never_shows_its_values() -> None:
    """Neither the repr nor an error message contains what is secret."""
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
    row = _decode(head + "data: {tls.key: aHVzaA==}").object
    assert isinstance(row, Secret)
    assert row.value("tls.key") == b"hush"
    assert "hush" not in repr(row)
    assert "aHVzaA" not in repr(row)
    broken = _decode(head + "data: {tls.key: 'hush!'}")
    assert broken.object is None
    assert "hush" not in "".join(str(each) for each in broken.findings)


def test_lists_are_expanded() -> None:
    """`kind: List` and typed lists give their items, with the path to each."""
    text = "kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: a}}, {kind: Pod}]"
    [document] = parse(text)
    items = list(expand(document.data))
    assert [path for path, _ in items] == ["items[0]", "items[1]"]
    assert items[0][1]["kind"] == "Service"
    assert items[1][1]["kind"] == "Pod"


def test_the_mesh_config_has_istios_defaults() -> None:
    """MC-01, MC-03, MC-05, MC-09, MC-10: what holds without a word."""
    config = decode_mesh_config({}).object
    assert config == MeshConfig()
    assert (config.proxy_listen_port, config.proxy_inbound_listen_port) == (15001, 15006)
    assert config.connect_timeout == timedelta(seconds=10)
    assert config.outbound_traffic_policy.mode == "ALLOW_ANY"
    assert config.root_namespace == "istio-system"
    assert config.default_service_export_to == ("*",)


def test_the_mesh_config_is_checked() -> None:
    """An unknown field is a finding and not a failure; a bad port is an error."""
    decoded = decode_mesh_config({"connectTimeout": "3s", "trustDomian": "x"})
    assert decoded.object.connect_timeout == timedelta(seconds=3)
    assert _only(decoded.findings).code == "UnknownField"
    assert decode_mesh_config({"proxyListenPort": 70000}).object is None


def test_the_thorough_path_gives_the_same_row_as_the_fast_one() -> None:
    """An unknown field changes nothing of the rest."""
    head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n"
    spec = "spec:\n  host: a\n  subsets: [{name: v1, labels: {version: v1}}]\n"
    clean = _decode(head + spec).object
    with_more = _decode(head + spec + "  hosst: b\n").object
    assert isinstance(clean, DestinationRule)
    assert with_more.spec == clean.spec
