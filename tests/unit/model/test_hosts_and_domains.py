"""Hosts, protocols and the names a virtual host answers to (traffic.md 3.1, 3.2, 3.8)."""

import pytest

from pilothouse.model.domains import host_forms
from pilothouse.model.hosts import matches, most_specific, overlaps, resolve_short_name
from pilothouse.model.protocols import Protocol, declared_protocol, kubernetes_protocol


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.example", False),
        ("*.example", "a.example", True),
        ("*.example", "a.b.example", True),
        ("*.example", "example", False),
        ("*.example", "*.a.example", True),
        ("*.a.example", "*.example", False),
        ("*", "anything", True),
        ("*", "*.example", True),
        ("*.example", "badexample", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, host: str, expected: bool) -> None:
    """DR-01, VS-01."""
    assert matches(pattern, host) is expected


def test_the_most_specific_pattern_wins() -> None:
    """3.1: exact before wildcard, longer suffix before shorter."""
    patterns = ["*", "*.com", "*.bar.com", "a.bar.com", "*.foo.bar.com"]
    assert most_specific(patterns, "a.bar.com") == "a.bar.com"
    assert most_specific(patterns, "x.foo.bar.com") == "*.foo.bar.com"
    assert most_specific(patterns, "b.bar.com") == "*.bar.com"
    assert most_specific(patterns, "x.org") == "*"
    assert most_specific(["a.com"], "b.com") is None


def test_overlap_is_symmetric() -> None:
    assert overlaps("*.example", "a.example")
    assert overlaps("a.example", "*.example")
    assert not overlaps("*.a.example", "*.b.example")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("reviews", "reviews.shop.svc.cluster.local"),
        ("Reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.other", "reviews.other"),
        ("Reviews.Example", "reviews.example"),
        ("*", "*"),
        ("*.example", "*.example"),
        ("", ""),
    ],
)
def test_short_names_are_of_the_objects_namespace(host: str, expected: str) -> None:
    """3.1: only names without a dot, whoever the client is."""
    assert resolve_short_name(host, "shop", "cluster.local") == expected


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("shop", ["a.shop.svc.D.e", "a.shop.svc.D.e.", "a", "a.shop.svc", "a.shop"]),
        ("other", ["a.shop.svc.D.e", "a.shop.svc.D.e.", "a.shop", "a.shop.svc"]),
    ],
)
def test_forms_of_a_kubernetes_host(namespace: str, expected: list[str]) -> None:
    """3.2, in its order."""
    assert list(host_forms("a.shop.svc.D.e", namespace, "svc.D.e")) == expected


def test_forms_of_other_hosts() -> None:
    """3.2: no short forms outside the mesh's domain, none at all for wildcards."""
    assert list(host_forms("a.example", "shop", "svc.D.e")) == ["a.example", "a.example."]
    assert list(host_forms("*.example", "shop", "svc.D.e")) == ["*.example"]


@pytest.mark.parametrize(
    ("name", "transport", "app_protocol", "number", "expected"),
    [
        ("http", "TCP", None, 80, Protocol.HTTP),
        ("http-web", "TCP", None, 80, Protocol.HTTP),
        ("HTTP2-x", "TCP", None, 80, Protocol.HTTP2),
        ("grpc-web", "TCP", None, 80, Protocol.GRPC_WEB),
        ("grpc-web-x", "TCP", None, 80, Protocol.GRPC_WEB),
        ("grpc", "TCP", None, 80, Protocol.GRPC),
        ("tcp-x", "TCP", "http", 80, Protocol.HTTP),
        ("http", "UDP", "http", 80, Protocol.UDP),
        ("x", "TCP", "kubernetes.io/h2c", 80, Protocol.HTTP2),
        ("x", "TCP", "kubernetes.io/ws", 80, Protocol.HTTP),
        ("x", "TCP", "kubernetes.io/wss", 80, Protocol.HTTPS),
        ("http", "TCP", "example.com/own", 80, Protocol.AUTO),
        ("x", "TCP", "http-own", 80, Protocol.HTTP),
        ("http", "TCP", "own", 3306, Protocol.TCP),
        ("", "TCP", None, 80, Protocol.AUTO),
        ("web", "TCP", None, 8080, Protocol.AUTO),
        ("web", "TCP", None, 3306, Protocol.TCP),
        ("web", "TCP", None, 25, Protocol.TCP),
        ("redis", "TCP", None, 6379, Protocol.TCP),
        ("mysql", "TCP", None, 1, Protocol.MYSQL),
        ("mongo", "TCP", None, 27017, Protocol.MONGO),
        ("httpx", "TCP", None, 80, Protocol.AUTO),
    ],
)
def test_protocol_of_a_service_port(
    name: str, transport: str, app_protocol: str | None, number: int, expected: Protocol
) -> None:
    """K8-03, 3.8: appProtocol, else the name, each up to the first dash; then the port."""
    assert kubernetes_protocol(name, transport, app_protocol, number) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("HTTP", Protocol.HTTP), ("grpc-web", Protocol.GRPC_WEB), ("TLS", Protocol.TLS),
     ("HTTPS", Protocol.HTTPS), ("TCP", Protocol.TCP), ("", Protocol.AUTO)],
)  # fmt: skip
def test_protocol_that_is_declared(text: str, expected: Protocol) -> None:
    """SE-04."""
    assert declared_protocol(text) is expected
