"""How HTTP is spoken upstream, by port, rule and mesh."""

from typing import Any

import pytest
from google.protobuf import json_format
from route_building import from_data

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from pilothouse.api.destination_rule import ConnectionPool
from pilothouse.model.protocols import Protocol
from pilothouse.translators.envoy.http_options import HttpUpstream, http_options


def upstream(protocol: Protocol, http: Any = None, tcp: Any = None, **more: Any) -> HttpUpstream:
    pool = from_data({"http": http, "tcp": tcp}, ConnectionPool) if http or tcp else None
    return HttpUpstream(protocol, pool, **more)


def options(of: HttpUpstream) -> dict[str, Any] | None:
    packed = http_options(of)
    if packed is None:
        return None
    message = http_protocol_options_pb2.HttpProtocolOptions.FromString(packed.value)
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=POOL
    )


@pytest.mark.parametrize(
    ("protocol", "asked", "mesh", "expected"),
    [
        (Protocol.HTTP, None, False, False),
        (Protocol.HTTP, None, True, True),
        (Protocol.HTTP, "DEFAULT", True, True),
        (Protocol.HTTP, "DO_NOT_UPGRADE", True, False),
        (Protocol.HTTP, "UPGRADE", False, True),
        (Protocol.AUTO, None, True, False),
        (Protocol.AUTO, "UPGRADE", False, True),
        (Protocol.TCP, "UPGRADE", True, False),
        (Protocol.GRPC, "DO_NOT_UPGRADE", False, True),
    ],
)
def test_who_speaks_http2(
    protocol: Protocol, asked: str | None, mesh: bool, expected: bool
) -> None:
    """DR-38, MC-14: the mesh upgrades named HTTP ports only, a rule auto-detected ones too."""
    http = {"h2UpgradePolicy": asked} if asked else None
    assert upstream(protocol, http, upgrades=mesh).is_http2 is expected


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.HTTP2, Protocol.AUTO])
def test_the_clients_protocol_blocks_upgrades(protocol: Protocol) -> None:
    """DR-39: useClientProtocol wins over the mesh and over what the port says."""
    found = upstream(protocol, {"useClientProtocol": True}, upgrades=True)
    assert found.follows_client
    assert not found.is_http2
    assert options(found) == {
        "use_downstream_protocol_config": {
            "http_protocol_options": {},
            "http2_protocol_options": {},
        }
    }


def test_nothing_is_said_where_nothing_is_meant() -> None:
    """CL-06: plain HTTP and opaque ports have no options; detected ones follow the client."""
    assert options(upstream(Protocol.HTTP)) is None
    assert options(upstream(Protocol.TCP)) is None
    assert options(upstream(Protocol.HTTP, {"maxRetries": 3})) is None
    assert upstream(Protocol.AUTO).follows_client
    assert options(upstream(Protocol.GRPC)) == {
        "explicit_http_config": {"http2_protocol_options": {}}
    }


def test_idle_timeouts_of_http_and_tcp() -> None:
    """DR-34, DR-36: HTTP's own counts first, even if it turns the timeout off."""

    def idle(http: Any, tcp: Any) -> str:
        found = options(upstream(Protocol.HTTP, http, tcp))
        assert found is not None
        timeout: str = found["common_http_protocol_options"]["idle_timeout"]
        return timeout

    assert idle({"idleTimeout": "5s"}, {"idleTimeout": "9s"}) == "5s"
    assert idle({"idleTimeout": "0s"}, {"idleTimeout": "9s"}) == "0s"
    assert idle({}, {"idleTimeout": "9s"}) == "9s"


def test_http2_limits_need_http2() -> None:
    """DR-37: streams and pings of a cluster that speaks HTTP/1.1 are nothing."""
    limits = {"maxConcurrentStreams": 7, "http2KeepAlive": {"interval": "30s", "timeout": "5s"}}
    assert options(upstream(Protocol.HTTP, limits)) is None
    assert options(upstream(Protocol.HTTP2, limits)) == {
        "explicit_http_config": {
            "http2_protocol_options": {
                "max_concurrent_streams": 7,
                "connection_keepalive": {"interval": "30s", "timeout": "5s"},
            }
        }
    }


def test_error_codes_for_ejection() -> None:
    """DR-44: one code stands alone, several are alternatives."""

    def matcher(*codes: int) -> dict[str, Any]:
        found = options(upstream(Protocol.HTTP, error_codes=codes))
        assert found is not None
        rule: dict[str, Any] = found["outlier_detection"]["error_matcher"]
        return rule

    def status(code: str) -> dict[str, Any]:
        headers = [{"name": ":status", "string_match": {"exact": code}}]
        return {"http_response_headers_match": {"headers": headers}}

    assert matcher(503) == status("503")
    assert matcher(429, 503) == {"or_match": {"rules": [status("429"), status("503")]}}
