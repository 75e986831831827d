"""Names of statistics by pattern: N-62."""

import pytest

from pilothouse.graph.findings import ConfigRef
from pilothouse.model.protocols import Protocol
from pilothouse.model.provenance import Source
from pilothouse.model.services import Port, Registry, Resolution, Service, ServiceKey
from pilothouse.translators.envoy.stat_names import StatSubject, stat_name

ALL = (
    "%SERVICE%/%SERVICE_NAME%/%SERVICE_FQDN%/"
    "%SERVICE_PORT%/%SERVICE_PORT_NAME%/%TARGET_PORT%/%SUBSET_NAME%"
)


def subject(registry: Registry, host: str) -> StatSubject:
    service = Service(
        key=ServiceKey(registry, "ns", "web", host),
        ports=(),
        resolution=Resolution.ENDPOINTS,
        vips=(),
        export_to=("*",),
        age_order=("", "", ""),
        source=Source(ConfigRef("Service", "ns", "web"), "v1", ""),
    )
    port = Port(number=80, name="http", protocol=Protocol.HTTP)
    return StatSubject(service, port, "v1", 8080)


@pytest.mark.parametrize(
    ("registry", "host", "expected"),
    [
        (
            Registry.KUBERNETES,
            "web.ns.svc.cluster.local",
            "web.ns/web/web.ns.svc.cluster.local/80/http/8080/v1",
        ),
        (Registry.EXTERNAL, "api.example", "api.example/api.example/api.example/80/http/8080/v1"),
    ],
)
def test_every_variable(registry: Registry, host: str, expected: str) -> None:
    """Short names are Kubernetes' alone."""
    assert stat_name(ALL, subject(registry, host), "usual") == expected


def test_without_a_pattern() -> None:
    assert stat_name("", subject(Registry.EXTERNAL, "h"), "usual") == "usual"
