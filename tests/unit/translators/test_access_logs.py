"""Formats of access logs (traffic.md MC-28, LS-22)."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.config.listener.v3 import listener_pb2
from pilothouse._pb.envoy.extensions.access_loggers.file.v3 import file_pb2
from pilothouse.api.decode import decode_mesh_config
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import MESH_CONFIG, THE_MESH
from pilothouse.translators.envoy.access_logs import (
    access_log,
    access_logging,
    log_lost_connections,
)
from pilothouse.translators.envoy.header_formats import acceptable


def logged(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The file log of a mesh config as data, and the codes of what was found."""
    graph = Graph()
    graph.commit([(MESH_CONFIG, THE_MESH, decode_mesh_config(config).object)])
    logging = graph.value(access_logging, None)
    assert logging is not None
    message = file_pb2.FileAccessLog()
    assert access_log(logging).typed_config.Unpack(message)
    data = json_format.MessageToDict(message, descriptor_pool=POOL)
    return data, [each.code for each in graph.findings()]


def test_nothing_is_logged_unless_asked() -> None:
    """MC-28: without accessLogFile there is no log."""
    assert Graph().value(access_logging, None) is None


def test_lines_as_istio_writes_them() -> None:
    """MC-28: every part of a line is a command Envoy knows."""
    data, codes = logged({"accessLogFile": "/dev/stdout"})
    line = data["logFormat"]["textFormatSource"]["inlineString"]
    assert data["path"] == "/dev/stdout"
    assert line.startswith('[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% ')
    assert line.endswith("%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n")
    assert acceptable(line) == line
    assert codes == []


def test_fields_as_istio_writes_them() -> None:
    """MC-28: in JSON the parts have names."""
    data, codes = logged({"accessLogFile": "/x", "accessLogEncoding": "JSON"})
    fields = data["logFormat"]["jsonFormat"]
    assert fields["upstream_cluster"] == "%UPSTREAM_CLUSTER_RAW%"
    assert len(fields) == 24
    assert all(acceptable(each) == each for each in fields.values())
    assert codes == []


@pytest.mark.parametrize(
    ("written", "line", "codes"),
    [
        ("%PROTOCOL%", "%PROTOCOL%\n", []),
        ("%PROTOCOL%\n", "%PROTOCOL%\n", []),
        ("%NOT_KNOWN% 7%", "%%NOT_KNOWN%% 7%%\n", ["AccessLogFormat"]),
    ],
)
def test_a_line_of_ones_own(written: str, line: str, codes: list[str]) -> None:
    """One sign Envoy does not know would cost every listener; it is written as it is, and told."""
    data, found = logged({"accessLogFile": "/x", "accessLogFormat": written})
    assert data["logFormat"]["textFormatSource"]["inlineString"] == line
    assert found == codes


def test_fields_of_ones_own() -> None:
    """JSON in text; what is none is told, and Istio's fields are logged."""
    own = json.dumps({"p": "%PROTOCOL%", "deep": {"m": ["%X%", 7]}})
    config = {"accessLogFile": "/x", "accessLogEncoding": "JSON"}
    data, _ = logged({**config, "accessLogFormat": own})
    assert data["logFormat"]["jsonFormat"] == {"p": "%PROTOCOL%", "deep": {"m": ["%%X%%", 7]}}
    data, codes = logged({**config, "accessLogFormat": "[1]"})
    assert "start_time" in data["logFormat"]["jsonFormat"]
    assert codes == ["AccessLogFormat"]


@pytest.mark.parametrize("is_disabled", [False, True])
def test_listeners_log_what_finds_no_chain(*, is_disabled: bool) -> None:
    """LS-22: by the flag NR, unless disableEnvoyListenerLog says otherwise."""
    config = {"accessLogFile": "/x", "disableEnvoyListenerLog": is_disabled}
    graph = Graph()
    graph.commit([(MESH_CONFIG, THE_MESH, decode_mesh_config(config).object)])
    listener = listener_pb2.Listener()
    log_lost_connections(listener, graph.value(access_logging, None))
    flags = [list(log.filter.response_flag_filter.flags) for log in listener.access_log]
    assert flags == ([] if is_disabled else [["NR"]])
