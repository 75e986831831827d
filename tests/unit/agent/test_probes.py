"""Probes of programs that are there, and of others (WG-03)."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.agent.probes import Verdict, prober
from pilothouse.api.workload import (
    ExecProbe,
    GrpcProbe,
    HttpHeader,
    HttpProbe,
    ReadinessProbe,
    TcpProbe,
)

OWN = "127.0.0.1"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Return the port of a program that speaks HTTP."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.Event().wait()
        if request.path == "/headers":
            is_right = request.headers.get("X-Probe") == "yes" and request.query_string == "a=b"
            return web.Response(status=200 if is_right else 500)
        return web.Response(status=int(request.path.strip("/") or 200))

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, OWN, 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def closed_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server((OWN, 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", None),
        ("/200", None),
        ("204", None),
        ("/399", None),
        ("/400", "status 400"),
        ("/503", "status 503"),
        ("/headers?a=b", None),
        ("/headers", "status 500"),
    ],
)
async def test_http(port: int, path: str, expected: str | None) -> None:
    """WG-03: 200 to 399 is healthy; path, query and headers are sent."""
    header = HttpHeader(name="X-Probe", value="yes")
    probe = HttpProbe(port=port, path=path, http_headers=(header,))
    assert await prober(ReadinessProbe(http_get=probe, timeout_seconds=60), OWN)() == expected


async def test_a_program_that_does_not_answer(port: int) -> None:
    """WG-03: a probe has a second, unless it says otherwise."""
    probe = ReadinessProbe(http_get=HttpProbe(port=port, path="/slow"))
    assert await prober(probe, OWN)() == "no answer within 1 s"


async def test_http_where_nobody_listens() -> None:
    """WG-03: the program has not started, or not with TLS."""
    nobody = HttpProbe(port=closed_port(), scheme="HTTPS")
    probe = ReadinessProbe(http_get=nobody, timeout_seconds=60)
    problem = await prober(probe, OWN)()
    assert problem is not None
    assert "Connect" in problem


async def test_tcp(port: int) -> None:
    """WG-03: a connection is enough; `host` may be another than the workload's own."""
    there = ReadinessProbe(tcp_socket=TcpProbe(port=port), timeout_seconds=60)
    assert await prober(there, OWN)() is None
    named = ReadinessProbe(tcp_socket=TcpProbe(port=port, host=OWN), timeout_seconds=60)
    assert await prober(named, "192.0.2.1")() is None
    nobody = ReadinessProbe(tcp_socket=TcpProbe(port=closed_port()), timeout_seconds=60)
    problem = await prober(nobody, OWN)()
    assert problem is not None
    assert "Refused" in problem


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((sys.executable, "-c", ""), None),
        ((sys.executable, "-c", "raise SystemExit(3)"), "exit code 3"),
        (("/nowhere/at/all",), "FileNotFoundError"),
        (("sleep", "1000"), "no answer within 1 s"),
    ],
)
async def test_a_command(command: tuple[str, ...], expected: str | None) -> None:
    """WG-03: by its exit code; one that does not end is killed."""
    seconds = 1 if command[0] == "sleep" else 60
    probe = ReadinessProbe(exec=ExecProbe(command=command), timeout_seconds=seconds)
    problem = await prober(probe, OWN)()
    assert (problem is None) == (expected is None)
    assert (expected or "") in (problem or "")


@pytest.mark.parametrize(
    ("service", "answer", "expected"),
    [
        ("", b"\x08\x01", None),
        ("web", b"\x08\x01", None),
        ("", b"\x08\x02", "it does not serve"),
        ("", b"", "it does not serve"),
        ("other", b"\x08\x01", "NOT_FOUND"),
    ],
)
async def test_grpc(service: str, answer: bytes, expected: str | None) -> None:
    """WG-03: gRPC's health service."""

    async def check(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if request not in (b"", b"\x0a\x03web"):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return answer

    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
    port = server.add_insecure_port(f"{OWN}:0")
    await server.start()
    try:
        probe = ReadinessProbe(grpc=GrpcProbe(port=port, service=service), timeout_seconds=30)
        problem = await prober(probe, OWN)()
        assert (problem is None) == (expected is None)
        assert (expected or "") in (problem or "")
    finally:
        await server.stop(0)
    problem = await prober(probe, OWN)()
    assert problem is not None


def test_health_changes_after_as_many_as_were_asked_for() -> None:
    """WG-03: thresholds count results in a row; the first verdict needs as many."""
    verdict = Verdict(2, 3)
    assert [verdict.take(each) for each in (None, "a", None)] == [False, False, False]
    assert not verdict.is_known
    assert verdict.take(None)
    assert (verdict.is_known, verdict.problem) == (True, None)
    assert [verdict.take(each) for each in ("a", "b", None, "c", "d")] == [False] * 5
    assert verdict.take("e")
    assert verdict.problem == "e"
    assert not verdict.take("f")


@given(st.lists(st.sampled_from([None, "bad"])), st.integers(0, 4), st.integers(0, 4))
def test_verdicts_follow_the_last_long_row(
    results: list[str | None], successes: int, failures: int
) -> None:
    """WG-03: by looking back instead of counting."""
    verdict = Verdict(successes, failures)
    expected: list[str | None] = []
    for end in range(1, len(results) + 1):
        last = results[end - 1]
        needed = max(1, successes if last is None else failures)
        row = results[max(0, end - needed) : end]
        is_new = len(row) == needed and set(row) == {last} and expected[-1:] != [last]
        assert verdict.take(last) == is_new
        if is_new:
            expected.append(last)
    assert verdict.is_known == bool(expected)
