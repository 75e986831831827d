"""Log lines: JSON for machines, and never a secret."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from pilothouse.runtime.logs import configure_logs
from pilothouse.runtime.settings import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    yield
    structlog.reset_defaults()


def test_lines_are_json_off_a_terminal() -> None:
    """Each line is an object with the event and its values."""
    out = io.StringIO()
    configure_logs(stream=out)
    structlog.get_logger().info("xds.connected", proxy="a.default")
    line = json.loads(out.getvalue())
    assert line["event"] == "xds.connected"
    assert line["proxy"] == "a.default"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_level_filters() -> None:
    """What is less severe than the level is not written."""
    out = io.StringIO()
    configure_logs(LogLevel.WARNING, LogFormat.JSON, out)
    structlog.get_logger().info("quiet.please")
    structlog.get_logger().error("loud.enough")
    assert "quiet.please" not in out.getvalue()
    assert "loud.enough" in out.getvalue()


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
def test_secrets_are_hidden(form: LogFormat) -> None:
    """A value under a secret-sounding key is never written; long values are cut."""
    out = io.StringIO()
    configure_logs(LogLevel.DEBUG, form, out)
    structlog.get_logger().warning(
        "x.y", bearer_token="s3cr3t", key_pem=b"s3cr3t", error="e" * 9999
    )
    assert "s3cr3t" not in out.getvalue()
    assert len(out.getvalue()) < 3000


def test_exceptions_are_written() -> None:
    """A traceback stays on one JSON line."""
    out = io.StringIO()
    configure_logs(stream=out)
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("x.failed")
    assert "ValueError: invalid literal" in json.loads(out.getvalue())["exception"]


def test_tracebacks_for_people_do_not_show_local_variables() -> None:
    """A key may be among them."""
    out = io.StringIO()
    configure_logs(form=LogFormat.CONSOLE, stream=out)
    log = structlog.get_logger()
    try:
        _fail("hun" + "ter" + str(2))
    except ValueError:
        log.exception("server.failed")
    assert "ValueError" in out.getvalue()
    assert "hunter2" not in out.getvalue()


def _fail(hidden: str) -> int:
    return int(hidden[:0])
