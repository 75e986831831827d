"""A rotation of the root among agents: they hear of it and renew, and nobody has to hasten it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from certificates import verifier
from cryptography import x509
from cryptography.x509 import verification
from serving import ANY, Serving, serving

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilothouse.agent.control_plane import ControlPlaneAccess, ControlPlaneClient
from pilothouse.agent.keys import KeyKind
from pilothouse.agent.renewal import Renewal
from pilothouse.agent.sds_server import SERVICE, SdsServer
from pilothouse.agent.secrets import AgentSecrets
from pilothouse.certs.root_store import certificate_file, read_state
from pilothouse.certs.rotation import Phase, RootRotation
from pilothouse.certs.rotation_files import (
    Action,
    RotationRequest,
    RotationStatus,
    read_status,
    write_request,
)
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.credentials import ROOTS, WORKLOAD
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import SDS
from pilothouse.runtime.settings import Settings

SPREAD = timedelta(milliseconds=200)


@dataclass
class Envoy:
    """What a proxy beside an agent runs with; it takes in nothing before it `may_accept`."""

    roots_pem: bytes = b""
    chain_pem: bytes = b""
    chains: list[bytes] = field(default_factory=list)
    may_accept: asyncio.Event = field(default_factory=asyncio.Event)
    leave: Callable[[], object] = bool
    come_back: Callable[[], object] = bool
    """Of the agent: it loses its stream to the control plane, and opens one again."""

    async def follow(self, path: Path) -> None:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            await asyncio.gather(*(self._follow(channel, name) for name in (ROOTS, WORKLOAD)))

    async def _follow(self, channel: grpc.aio.Channel, name: str) -> None:
        call = channel.stream_stream(f"/{SERVICE}/StreamSecrets")()
        await call.write(DiscoveryRequest(type_url=SDS, resource_names=[name]).SerializeToString())
        while isinstance(data := await call.read(), bytes):
            answer = DiscoveryResponse.FromString(data)
            await self.may_accept.wait()
            for each in answer.resources:
                secret = Secret.FromString(each.value)
                if name == ROOTS:
                    self.roots_pem = secret.validation_context.trusted_ca.inline_bytes
                else:
                    self.chain_pem = secret.tls_certificate.certificate_chain.inline_bytes
                    self.chains.append(self.chain_pem)
            accepted = DiscoveryRequest(
                type_url=SDS,
                resource_names=[name],
                version_info=answer.version_info,
                response_nonce=answer.nonce,
            )
            await call.write(accepted.SerializeToString())

    def trusts(self, other: "Envoy") -> bool:
        leaf, *above = x509.load_pem_x509_certificates(other.chain_pem)
        try:
            verifier(self.roots_pem, datetime.now(UTC)).build_client_verifier().verify(leaf, above)
        except verification.VerificationError:
            return False
        return True


class Mesh:
    """A server, and agents with a proxy each."""

    def __init__(self, folder: Path, server: Serving) -> None:
        self.folder = folder
        self.ca_dir = folder / "ca"
        self.server = server
        self.root_file = folder / "root.pem"
        self.root_file.write_bytes(
            (self.ca_dir / certificate_file(self.state.current)).read_bytes()
        )

    @property
    def state(self) -> RootRotation:
        found = read_state(self.ca_dir)
        assert found is not None
        return found

    @property
    def root_pem(self) -> bytes:
        return (self.ca_dir / certificate_file(self.state.current)).read_bytes()

    @property
    def status(self) -> RotationStatus:
        found = read_status(self.ca_dir)
        assert found is not None
        return found

    def ask(self) -> None:
        write_request(self.ca_dir, RotationRequest(action=Action.ROTATE, phase=self.state.phase))

    @asynccontextmanager
    async def agent(self, account: str) -> AsyncIterator[Envoy]:
        identity = WorkloadIdentity("cluster.local", "default", account)
        token_file = self.folder / f"{account}.token"
        token_file.write_text(TokenStore(self.ca_dir).create(identity, datetime.now(UTC))[0])
        access = ControlPlaneAccess(
            target=str(self.server.ports.secure_grpc),
            server_name="istiod.istio-system.svc",
            root_file=self.root_file,
            token_file=token_file,
            name=account,
            address="127.0.0.1",
        )
        secrets = AgentSecrets()
        socket = self.folder / f"{account}.s"
        sds = SdsServer(secrets, socket)
        renewal = Renewal(
            ControlPlaneClient(access),
            secrets,
            key_kind=KeyKind.ECDSA_P256,
            lifetime=timedelta(),
            clock=lambda: datetime.now(UTC),
            spread=SPREAD,
        )
        envoy = Envoy()
        envoy.may_accept.set()
        await sds.start()
        running = [asyncio.create_task(each) for each in (renewal.run(), envoy.follow(socket))]

        def come_back() -> None:
            running.append(asyncio.create_task(renewal.follow_trust()))
            envoy.leave = running[-1].cancel

        envoy.come_back = come_back
        come_back()
        try:
            await until(lambda: bool(envoy.chain_pem and envoy.roots_pem))
            yield envoy
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await sds.stop()


@pytest.fixture
async def mesh_of_agents(tmp_path: Path, mesh: Path) -> AsyncIterator[Mesh]:
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca", ca_rotation_settle=timedelta(milliseconds=100),
    )  # fmt: skip
    async with serving(settings) as server:
        yield Mesh(tmp_path, server)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (files change silently)
            await asyncio.sleep(0.02)


def all_trust_all(envoys: list[Envoy]) -> bool:
    return all(one.trusts(other) for one, other in itertools.product(envoys, repeat=2))


async def test_agents_renew_when_another_root_signs(mesh_of_agents: Mesh) -> None:
    """Over in seconds, not in half a certificate's life; nobody refuses anybody meanwhile."""
    made = mesh_of_agents
    async with AsyncExitStack() as stack:
        names = [f"web-{number}" for number in range(4)]
        envoys = [await stack.enter_async_context(made.agent(name)) for name in names]
        old = made.state.current
        made.ask()

        def is_over() -> bool:
            assert all_trust_all(envoys)
            return made.state.phase is Phase.STABLE and made.state.current != old

        await until(is_over)
        await until(lambda: {each.roots_pem for each in envoys} == {made.root_pem})
        # Once at the start and once since: a renewal that brings nothing new is not made.
        assert [len(set(each.chains)) for each in envoys] == [2] * 4


async def test_an_agent_that_is_away_is_named_and_waited_for(mesh_of_agents: Mesh) -> None:
    """And goes on by itself when it is back, though its certificate has 24 hours to go."""
    made = mesh_of_agents
    async with made.agent("here") as here, made.agent("gone") as gone:
        gone.leave()
        old = made.state.current
        made.ask()
        await until(lambda: made.state.phase is Phase.TRUSTING_BOTH and made.status.absent == 1)
        assert made.status.behind[0].startswith("spiffe://cluster.local/ns/default/sa/gone ")
        assert made.status.absent_until is not None
        await until(lambda: made.status.waiting == 0)
        await asyncio.sleep(0.5)
        assert made.state.phase is Phase.TRUSTING_BOTH
        gone.come_back()

        def is_over() -> bool:
            assert all_trust_all([here, gone])
            return made.state.phase is Phase.STABLE and made.state.current != old

        await until(is_over)
        assert made.status.behind == ()


async def test_an_agent_that_never_comes_back_is_waited_for(mesh_of_agents: Mesh) -> None:
    """Its proxy may still be there: its certificate counts until it ends."""
    made = mesh_of_agents
    async with made.agent("here"):
        async with made.agent("gone"):
            pass
        made.ask()
        await until(lambda: made.state.phase is Phase.TRUSTING_BOTH and made.status.absent == 1)
        await until(lambda: made.status.waiting == 0)
        await asyncio.sleep(0.5)
        assert made.state.phase is Phase.TRUSTING_BOTH


async def test_a_proxy_that_has_not_taken_the_new_roots_is_waited_for(mesh_of_agents: Mesh) -> None:
    """What the agent acknowledges is what its proxy runs with, not what it was offered."""
    made = mesh_of_agents
    async with made.agent("quick") as quick, made.agent("slow") as slow:
        slow.may_accept.clear()
        old = made.state.current
        made.ask()
        await until(lambda: made.state.phase is Phase.TRUSTING_BOTH)
        await until(lambda: len(x509.load_pem_x509_certificates(quick.roots_pem)) == 2)
        await until(lambda: any("/sa/slow " in each for each in made.status.behind))
        await asyncio.sleep(0.5)
        assert made.state.phase is Phase.TRUSTING_BOTH
        slow.may_accept.set()

        def is_over() -> bool:
            assert all_trust_all([quick, slow])
            return made.state.phase is Phase.STABLE and made.state.current != old

        await until(is_over)
