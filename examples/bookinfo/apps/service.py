"""
What the four Bookinfo programs share: answer HTTP, call another service.

A program in a mesh knows names, not places. It sends every call to its own sidecar and says in the
Host header whom it means; where the call goes is the mesh's business. It also hands on the headers
that say on whose behalf it asks, as any program in a mesh that routes by header must.
"""

import argparse
import http.client
import json
import re
import signal
import sys
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANDED_ON = ("end-user", "x-request-id", "traceparent", "tracestate")
CALL_TIMEOUT_SECONDS = 10.0

IDENTITY = re.compile(r'(?:^|;)URI="?([^;,"]+)')

Headers = Mapping[str, str]
Answer = tuple[int, Any]
"""HTTP status and body; a text is sent as HTML, anything else as JSON."""


def caller(headers: Headers) -> str:
    """Return the identity that the sidecar verified of whoever sent a request; empty if none."""
    *_, last = headers.get("x-forwarded-client-cert", "").split(",")
    found = IDENTITY.search(last)
    return found[1] if found else ""


class Service:
    """One program: where it listens and whom it may call, from the command line."""

    def __init__(self, name: str) -> None:
        parser = argparse.ArgumentParser(description=f"Bookinfo's {name}.")
        parser.add_argument("--listen", required=True, metavar="IP:PORT")
        parser.add_argument("--version", default="v1")
        parser.add_argument(
            "--upstream",
            action="append",
            default=[],
            metavar="NAME=IP:PORT",
            help="where to send calls to the service NAME (the sidecar, in a mesh)",
        )
        options = parser.parse_args()
        self.name = name
        self.version: str = options.version
        self._listen: str = options.listen
        self._upstreams = dict(item.split("=", 1) for item in options.upstream)

    def call(self, service: str, path: str, headers: Headers) -> Answer:
        """GET `path` of `service`; 503 if it cannot be reached."""
        host, port = self._upstreams[service].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=CALL_TIMEOUT_SECONDS)
        sent = {"host": f"{service}:9080"}
        sent |= {name: headers[name] for name in HANDED_ON if name in headers}
        try:
            connection.request("GET", path, headers=sent)
            response = connection.getresponse()
            body = response.read().decode(errors="replace")
        except OSError as error:
            return 503, str(error)
        finally:
            connection.close()
        try:
            return response.status, json.loads(body)
        except ValueError:
            return response.status, body

    def run(self, answer: Callable[[str, Headers], Answer]) -> None:
        """Serve until SIGTERM; `answer` gets the path with its query, and the headers."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one packet: apart, the second waits 40 ms for the first's receipt.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, body = answer(self.path, headers)
                is_page = isinstance(body, str)
                data = (body if is_page else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("content-type", "text/html" if is_page else "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Stay silent; the sidecar sees every request."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        host, port = self._listen.rsplit(":", 1)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with Server((host, int(port)), Handler) as server:
            server.serve_forever(poll_interval=0.2)
