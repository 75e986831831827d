"""
HTTP for operators: metrics, readiness, and what the server knows (security.md 6.3, 8.2).

It has no authentication yet, so `Settings` keeps it on loopback, and requests must name this
machine: otherwise a page in somebody's browser could read the mesh through a DNS name of its own
(DNS rebinding). Answers are made from an `Inspection`; nothing here knows the graph or a stream.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from aiohttp import web

import pilothouse
from pilothouse.graph.findings import Finding
from pilothouse.runtime.reports import finding_data

INDEX: Final[Mapping[str, str]] = {
    "/ready": "200 once the config has been read and committed, 503 before",
    "/metrics": "Prometheus metrics",
    "/version": "version of this server",
    "/debug/list": "this list",
    "/debug/syncz": "connected proxies: what was sent, acknowledged and rejected",
    "/debug/config_dump?proxyID=": "resources as sent to one proxy, as Envoy's admin shows them"
    " (&types=cds,lds,... &include_eds=false)",
    "/debug/findings": "what is wrong with the config (?format=text)",
    "/debug/graph": "nodes and rows held, nodes run for the last commit",
    "/debug/registrations": "workloads that are registered, and where their entries come from",
    "/debug/selfcheck": "POST: compute everything anew and compare",
}


class Inspection(Protocol):
    """What the server shows of itself."""

    @property
    def is_ready(self) -> bool:
        """Whether the config has been read and committed once."""
        ...

    def metrics(self) -> bytes:
        """Metrics in Prometheus' text format."""
        ...

    def syncz(self) -> list[dict[str, Any]]:
        """Return the state of each connected proxy."""
        ...

    def config_dump(self, proxy_id: str, types: frozenset[str]) -> Iterator[bytes] | None:
        """
        Yield JSON of what one proxy was sent; None if it is not connected.

        `types` are short names such as ``CDS``.
        """
        ...

    def findings(self) -> Sequence[Finding]:
        """Return current findings, with file and line where known."""
        ...

    def graph(self) -> dict[str, Any]:
        """Return sizes of the graph and the work of the last commit."""
        ...

    def registrations(self) -> list[dict[str, Any]]:
        """Return the workloads that hold a WorkloadEntry, or its health."""
        ...

    def selfcheck(self) -> list[str]:
        """Compute everything anew and name what differs; takes as long as a cold start."""
        ...


_INSPECTION: Final = web.AppKey("inspection", Inspection)


def monitoring_app(inspection: Inspection) -> web.Application:
    """Return the application over one server."""
    app = web.Application(middlewares=[only_this_machine])
    app[_INSPECTION] = inspection
    app.router.add_get("/ready", _ready)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/version", _version)
    app.router.add_get("/debug", _list)
    app.router.add_get("/debug/list", _list)
    app.router.add_get("/debug/syncz", _syncz)
    app.router.add_get("/debug/config_dump", _config_dump)
    app.router.add_get("/debug/findings", _findings)
    app.router.add_get("/debug/graph", _graph)
    app.router.add_get("/debug/registrations", _registrations)
    app.router.add_post("/debug/selfcheck", _selfcheck)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def only_this_machine(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests addressed to, or coming from a page of, any other host."""
    origin = request.headers.get("Origin")
    if not names_loopback(f"//{request.host}") or (origin and not names_loopback(origin)):
        raise web.HTTPForbidden(
            text="This port answers only requests for localhost or a loopback address.\n"
        )
    return await handler(request)


def names_loopback(url: str) -> bool:
    """Tell whether the host of a URL is this machine by its very name."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=2) + "\n", content_type="application/json", status=status
    )


async def _ready(request: web.Request) -> web.Response:
    if request.app[_INSPECTION].is_ready:
        return web.Response(text="ready\n")
    return web.Response(text="The config has not been read yet.\n", status=503)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=request.app[_INSPECTION].metrics(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def _version(_request: web.Request) -> web.Response:
    version = pilothouse.__version__
    return _json({"version": version, "tag": version, "product": "pilothouse"})


async def _list(_request: web.Request) -> web.Response:
    return _json([{"name": path, "help": text} for path, text in INDEX.items()])


async def _syncz(request: web.Request) -> web.Response:
    return _json(request.app[_INSPECTION].syncz())


async def _config_dump(request: web.Request) -> web.StreamResponse:
    proxy_id = request.query.get("proxyID", "")
    if not proxy_id:
        return web.Response(
            text="Say which proxy: /debug/config_dump?proxyID=NAME.NAMESPACE"
            " (names are in /debug/syncz).\n",
            status=400,
        )
    asked = request.query.get("types", "cds,eds,lds,rds,sds,ecds")
    types = frozenset(name.strip().upper() for name in asked.split(","))
    if request.query.get("include_eds", "").lower() in {"false", "0"}:
        types -= {"EDS"}
    pieces = request.app[_INSPECTION].config_dump(proxy_id, types)
    if pieces is None:
        return web.Response(text=f"No proxy {proxy_id!r} is connected.\n", status=404)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for piece in pieces:
        # Each piece costs a decode and a render; pushes must not wait for all of them.
        await response.write(piece)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def _findings(request: web.Request) -> web.Response:
    findings = request.app[_INSPECTION].findings()
    if request.query.get("format") == "text":
        lines = [str(finding) for finding in reversed(findings)]
        return web.Response(text="".join(f"{line}\n" for line in lines) or "No findings.\n")
    return _json([finding_data(finding) for finding in reversed(findings)])


async def _graph(request: web.Request) -> web.Response:
    return _json(request.app[_INSPECTION].graph())


async def _registrations(request: web.Request) -> web.Response:
    return _json(request.app[_INSPECTION].registrations())


async def _selfcheck(request: web.Request) -> web.Response:
    differing = request.app[_INSPECTION].selfcheck()
    return _json({"ok": not differing, "differing": differing}, 500 if differing else 200)
