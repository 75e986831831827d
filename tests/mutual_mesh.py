"""
Five workloads for tests of mutual TLS: two servers, and a client of the mesh, one without identity
and one with a foreign one.

Certificates are made by our own authority and served by an agent on a Unix socket. One server's
ports are declared, the other's are told by their first bytes.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc_echo
from live_mesh import LiveMesh, eventually
from sds_agent import METADATA, Agent, agent_cluster
from self_signed import self_signed

from pilothouse.certs.authority import Authority, KeyPair
from pilothouse.demo.process import ChildProcess
from pilothouse.model.identity import WorkloadIdentity

GRPC_PORTS = (9090, 9091)
DOMAIN = "cluster.local"
ADDRESSES = {
    "declared": "10.244.77.21",
    "detected": "10.244.77.22",
    "client": "10.244.77.23",
    "plain": "10.244.77.24",
    "foreign": "10.244.77.25",
}
VIPS = {"declared": "10.96.1.1", "detected": "10.96.1.2"}
PORTS = {"http": 80, "grpc": 81, "tcp": 82, "tls": 83, "http2": 84}
"""Ports of both services, by what is spoken there."""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  clusterIP: {vip}
  selector: {{app: {name}}}
  ports:
    - {{name: {prefix}http, port: 80, targetPort: 8080}}
    - {{name: {prefix}grpc, port: 81, targetPort: 9090}}
    - {{name: {prefix}tcp, port: 82, targetPort: 9000}}
    - {{name: {prefix}tls, port: 83, targetPort: 8443}}
    - {{name: {prefix}http2, port: 84, targetPort: 9091}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: default}}
spec:
  address: {address}
  labels: {{app: {name}, security.istio.io/tlsMode: istio}}
  serviceAccount: {name}
---
"""
STANDING = "".join(
    SERVICE.format(name=name, vip=vip, address=ADDRESSES[name], prefix=prefix)
    for (name, vip), prefix in zip(VIPS.items(), ("", "x-"), strict=True)
)
POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: default}}
spec: {{mtls: {{mode: {mode}}}}}
"""


@dataclass
class Ground:
    """The mesh, and the authority whose certificates its workloads have."""

    mesh: LiveMesh
    authority: Authority
    folder: Path
    agents: dict[str, Agent] = field(default_factory=dict)

    def certificate(self, account: str, domain: str = DOMAIN) -> KeyPair:
        """Return a new certificate of a workload."""
        identity = WorkloadIdentity(domain, "default", account)
        return self.authority.issue_workload(identity, datetime.now(UTC))

    async def speak(self, client: str, service: str, kind: str) -> str:
        """Return who answers a client's program, "" if nobody; over its own sidecar."""
        workload, vip, port = self.mesh.workloads[client], VIPS[service], PORTS[kind]
        match kind:
            case "http":
                try:
                    reply = await workload.request(f"http://{vip}:{port}/")
                except ConnectionError:
                    return ""
                return reply.by
            case "grpc" | "http2":
                return service if await self._calls(client, f"{vip}:{port}") else ""
            case "tcp":
                return await workload.who_answers(vip, port)
            case _:
                return await workload.who_answers(vip, port, "app.example")

    async def _calls(self, client: str, address: str) -> bool:
        caller = ChildProcess(
            "grpc-call",
            [sys.executable, str(Path(grpc_echo.__file__)), "call", address],
            log_dir=self.folder,
            netns=self.mesh.workloads[client].namespace.path,
        )
        await caller.start()
        await caller.wait()
        log = self.folder / "grpc-call.log"
        answered = "echo hello" in log.read_text()
        log.write_text("")
        return answered

    async def handshakes(self, client: str, service: str, kind: str) -> int:
        """Return how many TLS handshakes a client's proxy has made towards a port."""
        pattern = rf"outbound\|{PORTS[kind]}\|\|{service}\..*ssl\.handshake"
        return sum((await self.mesh.workloads[client].envoy.stats(pattern)).values())

    def show(self, workload: str, account: str, domain: str = DOMAIN) -> None:
        """Have a workload show another certificate from now on."""
        shown = self.certificate(account, domain)
        self.agents[workload].show(shown, self.authority.root_pem)

    async def becomes(self, answered: str, client: str, service: str) -> None:
        """Wait until a client is answered so; Envoy does not tell when it has new secrets."""

        async def holds() -> bool:
            return await self.speak(client, service, "tcp") == answered

        await eventually(holds)

    async def apply_mode(self, mode: str) -> None:
        """Set the namespace's mode and wait until every Envoy has it."""
        await self.mesh.apply(POLICY.format(mode=mode))


@asynccontextmanager
async def mutual_mesh(folder: Path, *, delta: bool) -> AsyncIterator[Ground]:
    """Start the five; `folder` is for what they write."""
    tls = self_signed(folder)
    authority = Authority.create(DOMAIN, datetime.now(UTC))
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(LiveMesh(delta=delta))
        found = Ground(mesh, authority, folder)
        await mesh.control.apply(STANDING, "standing.yaml")
        for name, address in ADDRESSES.items():
            clusters, metadata = [], {}
            if name != "plain":
                shown = found.certificate(
                    name, "elsewhere.example" if name == "foreign" else DOMAIN
                )
                path = mesh.folder / f"{name}.sds"
                agent = Agent(path, shown, authority.root_pem)
                found.agents[name] = await stack.enter_async_context(agent)
                clusters, metadata = [agent_cluster(path)], METADATA
            await mesh.add(name, address, {"app": name}, tls, metadata, clusters)
        for name in VIPS:
            where = mesh.workloads[name].namespace
            for port in GRPC_PORTS:
                address = f"{where.address}:{port}"
                server = ChildProcess(
                    f"grpc-{name}-{port}",
                    [sys.executable, str(Path(grpc_echo.__file__)), "serve", address],
                    log_dir=found.folder,
                    netns=where.path,
                )
                await server.start()
                stack.push_async_callback(server.stop)

            async def are_up(name: str = name) -> bool:
                spoken = [await found.speak("client", name, kind) for kind in ("grpc", "http2")]
                return spoken == [name, name]

            await eventually(are_up)
        yield found
