"""A server as its own process, an honest client of it, and what attackers send."""

import asyncio
import json
import os
import signal
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import grpc
import grpc.aio
from certificates import csr
from fake_proxy import ADS, node
from fronted import rss_bytes
from secret_watch import SecretWatch
from serving import MESH

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import CDS

CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
CLIENT = WorkloadIdentity("cluster.local", "default", "client")
CLAIMS = {"NAMESPACE": "default", "SERVICE_ACCOUNT": "client"}
REQUEST = DeltaDiscoveryRequest(type_url=CDS, node=node(metadata=CLAIMS)).SerializeToString()

_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Attacked:
    """The server, as seen from outside."""

    def __init__(self, directory: Path, process: "subprocess.Popen[bytes]") -> None:
        ports = json.loads((directory / "ports.json").read_text())
        self.directory = directory
        self.process = process
        self.plain_port: int = ports["grpc"]
        self.secure_port: int = ports["secure_grpc"]
        self.monitoring_port: int = ports["monitoring"]
        self.token, self.record = TokenStore(directory / "ca").create(CLIENT, datetime.now(UTC))
        self.roots = _roots(directory / "ca")
        self.watch = SecretWatch([self.token])
        for file in (directory / "ca").glob("*key.pem"):
            self.watch.add(file.read_bytes())

    # -- clients ----------------------------------------------------------------------------------

    def plain(self) -> grpc.aio.Channel:
        """Connect to the plaintext port."""
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.plain_port}", options=_OWN_CONNECTION)

    def secure(self, **options: int) -> grpc.aio.Channel:
        """Connect to the secure port, without a certificate."""
        credentials = grpc.ssl_channel_credentials(self.roots)
        return grpc.aio.secure_channel(
            f"localhost:{self.secure_port}",
            credentials,
            options=[*_OWN_CONNECTION, *((f"grpc.{name}", n) for name, n in options.items())],
        )

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The honest client's token."""
        return [("authorization", f"Bearer {self.token}")]

    def tls(self) -> ssl.SSLContext:
        """Return a context of a client that speaks anything but gRPC."""
        context = ssl.create_default_context(cadata=self.roots.decode())
        context.set_alpn_protocols(["h2"])
        return context

    async def honest(self) -> float:
        """Do what a proxy does when it starts; return the seconds that took."""
        began = time.monotonic()
        async with self.secure() as channel:
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")(metadata=self.headers)
            await call.write(REQUEST)
            assert await call.read() is not grpc.aio.EOF
            request = ca_pb2.IstioCertificateRequest(csr=csr().decode())
            answer = await channel.unary_unary(CREATE)(
                request.SerializeToString(), metadata=self.headers
            )
            assert len(ca_pb2.IstioCertificateResponse.FromString(answer).cert_chain) >= 2
            call.cancel()
        return time.monotonic() - began

    async def honest_seconds(self, times: int = 5) -> float:
        """Return the median of several honest clients, one after the other."""
        return statistics.median([await self.honest() for _ in range(times)])

    # -- the process ------------------------------------------------------------------------------

    def front_pid(self) -> int:
        """Find the TLS front among the server's children."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"pilothouse.certs.front" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise LookupError("there is no front")

    def memory(self) -> int:
        """Return the resident memory of the server and its front."""
        return rss_bytes(self.process.pid) + rss_bytes(self.front_pid())

    def http(self, path: str) -> bytes:
        """Return what the monitoring port answers."""
        with urlopen(f"http://127.0.0.1:{self.monitoring_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def metric(self, name: str) -> float:
        """Return the sum of a metric's values."""
        lines = self.http("/metrics").decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def log(self) -> bytes:
        """Return what it has logged."""
        return (self.directory / "log").read_bytes()

    def produced(self) -> Iterator[tuple[str, bytes]]:
        """Yield everything that is for others' eyes."""
        yield "the log", self.log()
        yield "standard output", (self.directory / "out").read_bytes()
        for path in ("/metrics", "/debug/syncz", "/debug/findings", "/debug/graph"):
            yield path, self.http(path)
        for entry in json.loads(self.http("/debug/syncz")):
            yield "a dump", self.http(f"/debug/config_dump?proxyID={entry['proxy']}")

    def secrets_seen(self) -> dict[str, list[str]]:
        """Return where a secret is to be seen, and which."""
        found = {name: list(self.watch.seen_in(data)) for name, data in self.produced()}
        return {name: seen for name, seen in found.items() if seen}


def _roots(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.glob("root-*-cert.pem")))


@contextmanager
def attacked(directory: Path, *options: str) -> Iterator[Attacked]:
    """Run a server; at the end it must still be there, and end cleanly."""
    (directory / "mesh").mkdir()
    (directory / "mesh" / "web.yaml").write_text(MESH)
    ports = directory / "ports.json"
    command = [
        sys.executable, "-m", "pilothouse", "serve", "-d", str(directory / "mesh"),
        "--grpc-addr", ":0", "--secure-grpc-addr", ":0", "--monitoring-addr", "127.0.0.1:0",
        "--ca-dir", str(directory / "ca"), "--ports-file", str(ports),
        "--log-format", "json", "--log-level", "debug", *options,
    ]  # fmt: skip
    with (directory / "log").open("wb") as log, (directory / "out").open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=log, env={**os.environ, "PYTHONSAFEPATH": "1"}
        )
        try:
            deadline = time.monotonic() + 30
            while not ports.exists():
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "the server did not become ready"
                time.sleep(0.02)
            yield Attacked(directory, process)
            assert process.poll() is None, "the server has died"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait(10)


async def gathered(limit: int, calls: Sequence[object]) -> list[object]:
    """Run coroutines, so many at a time; return results and exceptions."""
    gate = asyncio.Semaphore(limit)

    async def one(call: object) -> object:
        async with gate:
            return await call  # type: ignore[misc]

    return await asyncio.gather(*map(one, calls), return_exceptions=True)
