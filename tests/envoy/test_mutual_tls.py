"""
Mutual TLS between real sidecars, and towards clients that have none (security.md 1.3).

Certificates are made by our own authority and served by an agent on a Unix socket. Two servers: one
whose ports are declared, one whose ports are told by their first bytes.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc_echo
import isolation
import pytest
import pytest_asyncio
from live_mesh import HTTP_PORT, TCP_PORT, LiveMesh, eventually
from sds_agent import METADATA, Agent, agent_cluster
from self_signed import self_signed

from pilothouse.certs.authority import Authority, KeyPair
from pilothouse.demo.process import ChildProcess
from pilothouse.model.identity import WorkloadIdentity

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mutual_tls"),
    pytest.mark.timeout(180),
]

GRPC_PORT = 9090
DOMAIN = "cluster.local"
ADDRESSES = {
    "declared": "10.244.77.21",
    "detected": "10.244.77.22",
    "client": "10.244.77.23",
    "plain": "10.244.77.24",
    "foreign": "10.244.77.25",
}
VIPS = {"declared": "10.96.1.1", "detected": "10.96.1.2"}
MODES = ["STRICT", "PERMISSIVE", "DISABLE"]
PORTS = {"http": 80, "grpc": 81, "tcp": 82, "tls": 83}
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
            case "grpc":
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


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["delta", "sotw"])
async def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    """Five workloads: two servers, and a client each with, without and with foreign identity."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    authority = Authority.create(DOMAIN, datetime.now(UTC))
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(LiveMesh(delta=request.param == "delta"))
        found = Ground(mesh, authority, tmp_path_factory.mktemp("calls"))
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
            server = ChildProcess(
                f"grpc-{name}",
                [
                    sys.executable,
                    str(Path(grpc_echo.__file__)),
                    "serve",
                    f"{where.address}:{GRPC_PORT}",
                ],
                log_dir=found.folder,
                netns=where.path,
            )
            await server.start()
            stack.push_async_callback(server.stop)

            async def is_up(name: str = name, kind: str = "grpc") -> bool:
                return await found.speak("client", name, kind) == name

            await eventually(is_up)
        yield found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", VIPS)
async def test_every_client_at_every_port(ground: Ground, service: str, mode: str) -> None:
    """S-PA-4 to S-PA-7, S-PA-11: who is let in, and whether it was by mutual TLS."""
    await ground.apply_mode(mode)
    wanted = {
        "client": True,
        "plain": mode != "STRICT",
        # Its certificate is of another trust domain; where it speaks plain text nobody looks.
        "foreign": mode == "DISABLE",
    }
    for client, is_served in wanted.items():
        for kind in PORTS:
            before = await ground.handshakes(client, service, kind)
            answered = await ground.speak(client, service, kind)
            assert answered == (service if is_served else ""), (client, kind)
            made = await ground.handshakes(client, service, kind) - before
            if client == "plain" or mode == "DISABLE":
                assert made == 0, (client, kind)
            elif kind in ("tcp", "tls"):  # of those each makes a connection of its own
                assert made > 0, (client, kind)


@pytest.mark.parametrize("service", VIPS)
async def test_http_is_told_by_whom_it_was_called(ground: Ground, service: str) -> None:
    """LS-15, D-1: a detected port too knows that mutual TLS carries HTTP, and who calls."""
    await ground.apply_mode("STRICT")
    reply = await ground.mesh.workloads["client"].request(f"http://{VIPS[service]}/")
    told = reply.seen["x-forwarded-client-cert"]
    assert f"URI=spiffe://{DOMAIN}/ns/default/sa/client" in told
    assert f"By=spiffe://{DOMAIN}/ns/default/sa/{service}" in told
    await ground.apply_mode("PERMISSIVE")
    reply = await ground.mesh.workloads["plain"].request(f"http://{VIPS[service]}/")
    assert "x-forwarded-client-cert" not in reply.seen


PORT_POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: one, namespace: default}
spec:
  selector: {matchLabels: {app: declared}}
  mtls: {mode: STRICT}
  portLevelMtls:
    "8080": {mode: DISABLE}
    "9001": {mode: PERMISSIVE}
"""


async def test_ports_have_modes_of_their_own(ground: Ground) -> None:
    """S-PA-2: of a service's port, and of one that no service has."""
    await ground.mesh.apply(PORT_POLICY)
    plain = ground.mesh.workloads["plain"]
    assert await ground.speak("plain", "declared", "http") == "declared"
    assert await ground.speak("client", "declared", "http") == "declared"
    assert await ground.speak("plain", "declared", "tcp") == ""
    assert await ground.speak("client", "declared", "tcp") == "declared"
    assert await plain.who_answers(ADDRESSES["declared"], 9001) == "declared"
    assert await plain.who_answers(ADDRESSES["declared"], TCP_PORT) == ""


async def openssl(
    ground: Ground, address: str, port: int, shown: KeyPair | None, alpn: list[str], said: bytes
) -> tuple[bytes, str]:
    """
    Speak TLS as a program without a sidecar does; return what came back, and the server's name.

    The SNI is fixed, as some clients' is. What came back is empty if the connection was refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the name is a URI, which Python does not compare
    context.load_verify_locations(cadata=ground.authority.root_pem.decode())
    if shown is not None:
        pem = ground.folder / "client.pem"
        pem.write_bytes(shown.key_pem + shown.certificate_pem)
        context.load_cert_chain(pem)
    if alpn:
        context.set_alpn_protocols(alpn)
    raw = ground.mesh.hub.socket(socket.AF_INET, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    names = ""
    try:
        async with asyncio.timeout(10):
            await loop.sock_connect(raw, (address, port))
            reader, writer = await asyncio.open_connection(
                sock=raw, ssl=context, server_hostname="fixed.example"
            )
            peer = writer.get_extra_info("peercert") or {}
            names = ",".join(value for _, value in peer.get("subjectAltName", ()))
            writer.write(said)
            try:
                return await reader.read(4096), names
            finally:
                writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        raw.close()
        return b"", names


REQUEST = b"GET / HTTP/1.1\r\nhost: declared\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("alpn", [["istio-http/1.1", "istio", "http/1.1"], ["istio"], []])
async def test_a_client_that_is_no_proxy_brings_its_certificate(
    ground: Ground, alpn: list[str]
) -> None:
    """S-PA-8: a SPIFFE P-256 certificate is enough, whatever the SNI; none or a foreign one not."""
    await ground.apply_mode("STRICT")
    address = ADDRESSES["declared"]
    own = ground.certificate("outsider")
    answer, name = await openssl(ground, address, HTTP_PORT, own, alpn, REQUEST)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"sa/outsider" in answer
    assert name == f"spiffe://{DOMAIN}/ns/default/sa/declared"
    answer, _ = await openssl(ground, address, TCP_PORT, own, alpn, b"who\n")
    assert answer == b"declared\n"
    assert (await openssl(ground, address, HTTP_PORT, None, alpn, REQUEST))[0] == b""
    stranger = ground.certificate("outsider", "elsewhere.example")
    assert (await openssl(ground, address, HTTP_PORT, stranger, alpn, REQUEST))[0] == b""
    other = Authority.create(DOMAIN, datetime.now(UTC))
    forged = other.issue_workload(
        WorkloadIdentity(DOMAIN, "default", "outsider"), datetime.now(UTC)
    )
    assert (await openssl(ground, address, HTTP_PORT, forged, alpn, REQUEST))[0] == b""


@pytest.mark.parametrize("service", VIPS)
async def test_istios_own_clients_are_understood(ground: Ground, service: str) -> None:
    """S-PA-4, S-PA-10, D-7: `istio-peer-exchange` is matched and never agreed on."""
    await ground.apply_mode("PERMISSIVE")
    own = ground.certificate("outsider")
    offered = ["istio-peer-exchange", "istio"]
    address = ADDRESSES[service]
    answer, _ = await openssl(ground, address, TCP_PORT, own, offered, b"who\n")
    assert answer == f"{service}\n".encode()


async def test_a_server_that_is_somebody_else_is_not_spoken_to(ground: Ground) -> None:
    """S-PA-13: a certificate of the mesh is not enough; it must be the service's."""
    await ground.apply_mode("STRICT")
    assert await ground.speak("client", "declared", "tcp") == "declared"
    ground.show("declared", "intruder")
    await ground.becomes("", "client", "declared")
    ground.show("declared", "declared")
    await ground.becomes("declared", "client", "declared")


ALIASES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: "trustDomainAliases: [elsewhere.example]"
"""


async def test_an_alias_is_as_good_as_the_trust_domain(ground: Ground) -> None:
    """S-PA-8, S-PA-13, S-TD-1: for who calls and for who answers."""
    await ground.apply_mode("STRICT")
    assert await ground.speak("foreign", "declared", "tcp") == ""
    await ground.mesh.apply(ALIASES, "mesh.yaml")
    await ground.becomes("declared", "foreign", "declared")
    ground.show("declared", "declared", "elsewhere.example")
    await ground.becomes("declared", "client", "declared")
    await ground.mesh.control.delete("mesh.yaml")
    await ground.becomes("", "client", "declared")
    ground.show("declared", "declared")
    await ground.becomes("declared", "client", "declared")
    await ground.becomes("", "foreign", "declared")


WITH_RULE = (
    POLICY.format(mode="STRICT")
    + """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: declared, namespace: default}
spec: {host: declared, trafficPolicy: {tls: {mode: %s}}}
"""
)


@pytest.mark.parametrize(("mode", "answered"), [("ISTIO_MUTUAL", "declared"), ("DISABLE", "")])
async def test_a_destination_rule_wins(ground: Ground, mode: str, answered: str) -> None:
    """DR-50, DR-53, S-PA-11: for better or worse; without certificates nothing is sent."""
    await ground.mesh.apply(WITH_RULE % mode)
    assert await ground.speak("client", "declared", "tcp") == answered
    assert await ground.speak("plain", "declared", "tcp") == ""
