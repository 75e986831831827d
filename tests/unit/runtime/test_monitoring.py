"""The monitoring port, over a small made-up server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.runtime.monitoring import INDEX, monitoring_app

BAD = Finding(
    Severity.ERROR,
    "HostMissing",
    ConfigRef("VirtualService", "default", "reviews", "spec.hosts", "mesh/vs.yaml", 7),
    "It has no hosts.",
    "Name at least one.",
)
MILD = Finding(Severity.INFO, "Note", ConfigRef("Service", "default", "a"), "Nothing much.")


class Fixed:
    """Shows always the same."""

    def __init__(self) -> None:
        """Start not ready."""
        self.is_ready = False
        self.differing: list[str] = []
        self.asked: tuple[str, frozenset[str]] | None = None

    def metrics(self) -> bytes:
        """Return one sample."""
        return b"up 1\n"

    def syncz(self) -> list[dict[str, Any]]:
        """Return one proxy."""
        return [{"proxy": "a.default"}]

    def config_dump(self, proxy_id: str, types: frozenset[str]) -> Iterator[bytes] | None:
        """Return two pieces for one proxy."""
        self.asked = (proxy_id, types)
        return iter((b'{"configs":', b"[]}")) if proxy_id == "a.default" else None

    def findings(self) -> list[Finding]:
        """Return the worst last, as the graph does."""
        return [MILD, BAD]

    def graph(self) -> dict[str, Any]:
        """Return a count."""
        return {"nodes": 3}

    def registrations(self) -> list[dict[str, Any]]:
        """Return one workload."""
        return [{"entry": "default/web-10.0.0.1"}]

    def selfcheck(self) -> list[str]:
        """Return what was set."""
        return self.differing


@pytest.fixture
def shown() -> Fixed:
    """Return the server that is shown."""
    return Fixed()


@pytest.fixture
async def http(shown: Fixed) -> AsyncIterator[TestClient[Any, Any]]:
    """Return a client of the port."""
    async with TestClient(TestServer(monitoring_app(shown))) as client:
        yield client


async def test_ready_only_after_the_first_commit(http: TestClient[Any, Any], shown: Fixed) -> None:
    """/ready says 503 until the config has been read (O-1)."""
    assert (await http.get("/ready")).status == 503
    shown.is_ready = True
    assert (await http.get("/ready")).status == 200


async def test_metrics_are_prometheus_text(http: TestClient[Any, Any]) -> None:
    """/metrics has the content type scrapers expect."""
    answer = await http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert await answer.text() == "up 1\n"


async def test_every_listed_endpoint_answers(http: TestClient[Any, Any], shown: Fixed) -> None:
    """/debug/list tells no lies."""
    shown.is_ready = True
    listed = await (await http.get("/debug/list")).json()
    assert [entry["name"] for entry in listed] == list(INDEX)
    for path in INDEX:
        if path.endswith("selfcheck"):
            answer = await http.post(path)
        else:
            answer = await http.get(path.replace("proxyID=", "proxyID=a.default"))
        assert answer.status == 200, path


async def test_findings_as_json_and_text(http: TestClient[Any, Any]) -> None:
    """The worst comes first, with file, line, object, field and remedy."""
    found = await (await http.get("/debug/findings")).json()
    assert found[0] == {
        "severity": "error",
        "code": "HostMissing",
        "kind": "VirtualService",
        "namespace": "default",
        "name": "reviews",
        "path": "spec.hosts",
        "file": "mesh/vs.yaml",
        "line": 7,
        "message": "It has no hosts.",
        "remedy": "Name at least one.",
    }
    assert found[1] == {
        "severity": "info",
        "code": "Note",
        "kind": "Service",
        "namespace": "default",
        "name": "a",
        "message": "Nothing much.",
    }
    text = await (await http.get("/debug/findings?format=text")).text()
    assert text.startswith("error HostMissing: VirtualService default/reviews spec.hosts (mesh/vs")


async def test_config_dump(http: TestClient[Any, Any], shown: Fixed) -> None:
    """A dump is streamed; types can be chosen; an unknown proxy is 404, none is 400 (Z-2)."""
    answer = await http.get("/debug/config_dump?proxyID=a.default&types=cds,eds&include_eds=false")
    assert await answer.json() == {"configs": []}
    assert shown.asked == ("a.default", frozenset({"CDS"}))
    assert (await http.get("/debug/config_dump?proxyID=nobody")).status == 404
    assert (await http.get("/debug/config_dump")).status == 400


async def test_selfcheck_fails_loudly(http: TestClient[Any, Any], shown: Fixed) -> None:
    """A difference is a server error; reading must not trigger the work."""
    shown.differing = ["routes(x)"]
    answer = await http.post("/debug/selfcheck")
    assert answer.status == 500
    assert await answer.json() == {"ok": False, "differing": ["routes(x)"]}
    assert (await http.get("/debug/selfcheck")).status == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:15014"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:15014", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:15014", "Origin": "null"}, 403),
        ({"Host": "localhost:15014"}, 200),
        ({"Host": "127.0.0.1:15014", "Origin": "http://localhost:3000"}, 200),
        ({"Host": "[::1]:15014"}, 200),
    ],
)
async def test_only_requests_for_this_machine(
    http: TestClient[Any, Any], headers: dict[str, str], status: int
) -> None:
    """DNS rebinding and pages of other hosts get nothing."""
    assert (await http.get("/version", headers=headers)).status == status
