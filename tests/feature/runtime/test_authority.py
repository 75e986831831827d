"""The authority in a whole server: requests over the secure port, rotation, plugged-in files."""

import asyncio
import itertools
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from certificates import KEY, PEM, csr, make_ca, private_key_pem, verifier
from cryptography import x509
from cryptography.x509 import verification
from identity_follower import IdentityFollower
from serving import ANY, Serving, serving

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.material import fingerprint
from pilothouse.certs.root_store import BadRoot, certificate_file, read_state
from pilothouse.certs.rotation import Phase, RootRotation
from pilothouse.certs.rotation_files import (
    Action,
    RotationRequest,
    RotationStatus,
    read_status,
    request_waits,
    write_request,
)
from pilothouse.certs.service import METHOD, SERVICE
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.runtime.settings import Settings

WEB = WorkloadIdentity("cluster.local", "default", "web")
SETTLE = timedelta(milliseconds=100)


class Place:
    """A server over a directory, and who asks it."""

    def __init__(self, folder: Path, mesh: Path, **more: Any) -> None:
        self.folder = folder
        self.ca_dir = folder / "ca"
        self.settings: dict[str, Any] = {
            "config_dir": mesh, "grpc_addr": ANY, "secure_grpc_addr": ANY, "monitoring_addr": ANY,
            "ca_dir": self.ca_dir, "ca_rotation_settle": SETTLE, **more,
        }  # fmt: skip

    @asynccontextmanager
    async def server(self, **more: Any) -> AsyncIterator[Serving]:
        async with serving(Settings(**{**self.settings, **more})) as running:
            yield running

    def state(self) -> RootRotation:
        found = read_state(self.ca_dir)
        assert found is not None
        return found

    def status(self) -> RotationStatus | None:
        return read_status(self.ca_dir)

    def root_pem(self) -> bytes:
        return (self.ca_dir / certificate_file(self.state().current)).read_bytes()

    def token(self, identity: WorkloadIdentity = WEB) -> str:
        return TokenStore(self.ca_dir).create(identity, datetime.now(UTC))[0]

    def ask(self, action: Action = Action.ROTATE) -> None:
        write_request(self.ca_dir, RotationRequest(action=action, phase=self.state().phase))

    @asynccontextmanager
    async def followers(
        self, server: Serving, count: int, roots: bytes = b""
    ) -> AsyncIterator[list[IdentityFollower]]:
        roots = roots or self.root_pem()
        async with AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(
                    IdentityFollower(
                        str(server.ports.secure_grpc), number, self.token(), roots, "web"
                    )
                )
                for number in range(count)
            ]
            await until(lambda: all(each.held.leaf_pem for each in made))
            yield made


@pytest.fixture
def place(tmp_path: Path, mesh: Path) -> Place:
    return Place(tmp_path, mesh)


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (files change silently)
            await asyncio.sleep(0.02)


async def certificate(
    server: Serving,
    roots: bytes,
    token: str = "",
    pair: tuple[bytes, bytes] | None = None,
    request_pem: bytes | None = None,
) -> list[x509.Certificate]:
    """Ask for a certificate as an agent does, with a token or a (key, chain)."""
    credentials = grpc.ssl_channel_credentials(roots, *(pair or (None, None)))
    headers = [("authorization", f"Bearer {token}")] if token else None
    message = ca_pb2.IstioCertificateRequest(csr=(request_pem or csr()).decode())
    async with grpc.aio.secure_channel(
        str(server.ports.secure_grpc),
        credentials,
        options=[("grpc.use_local_subchannel_pool", 1)],
    ) as channel:
        data = await channel.unary_unary(f"/{SERVICE}/{METHOD}")(
            message.SerializeToString(), metadata=headers, timeout=10
        )
    chain = ca_pb2.IstioCertificateResponse.FromString(data).cert_chain
    return [each for element in chain for each in x509.load_pem_x509_certificates(element.encode())]


def identity_of(leaf: x509.Certificate) -> str:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


async def metric(server: Serving, name: str) -> float:
    _, text = await server.get("/metrics")
    lines = [line for line in text.splitlines() if line.startswith(name)]
    assert lines, f"no {name}"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_certificates_by_token_and_by_certificate(place: Place) -> None:
    """C-W-1, C-A-1, C-S-1: who has a token gets a certificate, and renews with it."""
    async with place.server() as server:
        roots = place.root_pem()
        leaf, root = await certificate(server, roots, place.token())
        assert identity_of(leaf) == str(WEB)
        assert root.public_bytes(PEM) == roots
        pair = (private_key_pem(KEY), leaf.public_bytes(PEM))
        renewed, _ = await certificate(server, roots, pair=pair)
        assert identity_of(renewed) == str(WEB)
        assert renewed.serial_number != leaf.serial_number
        assert await metric(server, "citadel_server_csr_count ") == 2
        assert await metric(server, "citadel_server_success_cert_issuance_count ") == 2
        ends = await metric(server, "citadel_server_root_cert_expiry_timestamp")
        assert ends == root.not_valid_after_utc.timestamp()
        assert await metric(server, "citadel_server_root_cert_expiry_seconds") > 0


async def test_impersonation_is_refused_and_counted(place: Place) -> None:
    """The identity is the credential's; a request for another's name is refused (C-S-1, C-S-6)."""
    bob = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/bob")
    async with place.server() as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await certificate(server, place.root_pem(), place.token(), request_pem=csr(names=[bob]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await certificate(server, place.root_pem())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        name = 'citadel_server_csr_sign_err_count{error="CSR_ERROR"}'
        assert await metric(server, name) == 1
        assert await metric(server, 'pilothouse_csr_refused_total{problem="foreign-name"}') == 1
        assert await metric(server, "citadel_server_success_cert_issuance_count ") == 0


async def test_plaintext_port_certifies_nobody(place: Place) -> None:
    """C-A-7: a credential would be overheard there."""
    async with (
        place.server() as server,
        grpc.aio.insecure_channel(str(server.ports.grpc)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/{METHOD}")(
                b"", metadata=[("authorization", f"Bearer {place.token()}")], timeout=10
            )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details() == "request authenticate failure"


async def test_alias_of_the_trust_domain_may_be_named(place: Place, mesh: Path) -> None:
    """C-S-8: a workload that still calls itself by the old trust domain is served."""
    async with place.server() as server:
        (mesh / "istio.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
            "data: {mesh: 'trustDomainAliases: [old.example]'}\n"
        )
        alias = x509.UniformResourceIdentifier("spiffe://old.example/ns/default/sa/web")
        async with asyncio.timeout(20):
            while True:
                with suppress(grpc.aio.AioRpcError):  # until the change has been read
                    leaf, _ = await certificate(
                        server, place.root_pem(), place.token(), request_pem=csr(names=[alias])
                    )
                    break
                await asyncio.sleep(0.05)
        assert identity_of(leaf) == str(WEB)


async def test_two_servers_do_not_share_a_directory(place: Place) -> None:
    async with place.server():
        with pytest.raises(BadRoot, match="another server uses it"):
            async with place.server():
                pass


def all_trust_all(followers: list[IdentityFollower]) -> bool:
    return all(
        one.trusts(other.held.leaf_pem) for one, other in itertools.product(followers, repeat=2)
    )


async def test_root_is_replaced_while_proxies_watch(place: Place) -> None:
    """Trust both, sign with new, drop old; at no moment two proxies refuse each other."""
    async with place.server() as server, place.followers(server, 5) as followers:
        old = place.state().current
        old_roots = place.root_pem()
        place.ask()
        phases = []

        def is_over() -> bool:
            assert all_trust_all(followers)
            state = place.state()
            if not phases or phases[-1] is not state.phase:
                phases.append(state.phase)
            return state.phase is Phase.STABLE and state.current != old

        await until(is_over)
        assert [phase for phase in phases if phase is not Phase.STABLE] == [
            Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW, Phase.DROPPING_OLD,
        ]  # fmt: skip
        assert {each.held.roots_pem for each in followers} == {place.root_pem()}
        assert all(each.connects == 1 for each in followers)
        assert not request_waits(place.ca_dir)
        leaf, root = await certificate(server, place.root_pem(), place.token())
        assert fingerprint(root) == place.state().current
        leaf.verify_directly_issued_by(root)
        with pytest.raises(verification.VerificationError):
            verifier(old_roots, datetime.now(UTC)).build_client_verifier().verify(leaf, [])
        # Who was given the old root before may still come and learn of the new one (ADR 18).
        assert (await certificate(server, old_roots, place.token()))[1] == root


async def test_a_step_waits_for_an_agent_that_is_away(place: Place) -> None:
    """A certificate counts until it ends, also over a restart; the operator may go on."""
    async with place.server() as server:
        await certificate(server, place.root_pem(), place.token())
    async with place.server() as server:
        place.ask()
        await until(lambda: (found := place.status()) is not None and found.absent == 1)
        await asyncio.sleep(4 * SETTLE.total_seconds())
        assert place.state().phase is Phase.TRUSTING_BOTH
        found = place.status()
        assert found is not None
        assert found.absent_until is not None
        assert found.absent_until - datetime.now(UTC) > timedelta(hours=23)
        place.ask(Action.GO_ON)
        await until(lambda: place.state().phase is Phase.SIGNING_WITH_NEW)
        assert server.plane.identities.authority is not None


async def test_an_agent_that_renews_lets_it_go_on(place: Place) -> None:
    """Who comes back with its certificate and gets the next no longer stands for the old one."""
    async with place.server() as server:
        roots = place.root_pem()
        leaf, _ = await certificate(server, roots, place.token())
        place.ask()
        await until(lambda: place.state().phase is Phase.TRUSTING_BOTH)
        await until(lambda: (found := place.status()) is not None and found.absent == 1)
        pair = (private_key_pem(KEY), leaf.public_bytes(PEM))
        chain = await certificate(server, roots, pair=pair)
        assert len(chain) == 3, "the leaf and both roots"
        held = server.plane.identities.authority
        assert held is not None
        ledger = dict(held._journal.holders)  # type: ignore[union-attr]
        first, second = (f"leaf:{each.serial_number:x}:{WEB}" for each in (leaf, chain[0]))
        assert ledger[first].until <= datetime.now(UTC) + timedelta(minutes=2)
        assert ledger[second].trusts == place.state().trusted_roots


async def test_a_connection_by_an_old_root_ends_with_it(place: Place, tmp_path: Path) -> None:
    """Whoever has that root's key could have made its certificate; others stay."""
    async with place.server() as server, place.followers(server, 1) as followers:
        leaf, root = await certificate(server, place.root_pem(), place.token())
        file = tmp_path / "own.pem"
        file.write_bytes(private_key_pem(KEY) + leaf.public_bytes(PEM))
        context = ssl.create_default_context(cadata=root.public_bytes(PEM).decode())
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2"])
        assert server.ports.secure_grpc is not None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.ports.secure_grpc.port, ssl=context, server_hostname="localhost"
        )
        place.ask()
        for phase in (Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW):
            await until(lambda phase=phase: place.state().phase is phase)  # type: ignore[misc]
            assert not reader.at_eof()
            place.ask(Action.GO_ON)
        async with asyncio.timeout(30):
            await reader.read(-1)
        writer.close()
        await until(lambda: place.state().phase is not Phase.SIGNING_WITH_NEW)
        assert followers[0].connects == 1


@pytest.mark.parametrize(
    "phase", [Phase.TRUSTING_BOTH, Phase.SIGNING_WITH_NEW, Phase.DROPPING_OLD], ids=str
)
async def test_a_rotation_goes_on_after_a_restart(place: Place, phase: Phase) -> None:
    """The state on disk is what counts; proxies come back to another server and are served."""
    async with place.server() as server, place.followers(server, 2) as followers:
        old = place.state().current
        place.ask()
        await until(lambda: place.state().phase is phase)
        held = [each.held for each in followers]
    state = place.state()
    assert state.phase is phase
    async with place.server() as server, place.followers(server, 2) as followers:
        trusted = [*held, *(each.held for each in followers)]
        assert all(each.leaf_pem for each in trusted)

        def is_over() -> bool:
            assert all_trust_all(followers)
            return place.state().phase is Phase.STABLE and place.state().current != old

        await until(is_over)


async def test_wrong_requests_are_told(place: Place) -> None:
    """The status says why nothing happens."""
    async with place.server():
        place.ask(Action.CANCEL)
        await until(lambda: (found := place.status()) is not None and bool(found.refused))
        found = place.status()
        assert found is not None
        assert "only before the new root signs" in found.refused
        (place.ca_dir / "rotation.request").write_text("nonsense")
        await until(lambda: not request_waits(place.ca_dir))
        await until(lambda: "cannot be read" in (place.status() or found).refused)
        assert place.state().phase is Phase.STABLE


def write_files(directory: Path, **files: bytes) -> None:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        draft = directory / f".{name}"
        draft.write_bytes(content)
        os.replace(draft, directory / f"{name.replace('_', '-')}.pem")  # noqa: PTH105


async def test_plugged_in_authority_and_its_change(place: Place) -> None:
    """C-R-4, C-R-5: Istio's files, chains to the root, live change of the intermediate."""
    now = datetime.now(UTC)
    directory = place.folder / "cacerts"
    root = make_ca("Root", now)
    root_pem = root[0].public_bytes(PEM)

    def plug_in(name: str, issuer: Any = root, roots: bytes = root_pem) -> None:
        made, key = make_ca(name, now, issuer)
        pem = made.public_bytes(PEM)
        write_files(
            directory, ca_cert=pem, ca_key=private_key_pem(key), cert_chain=pem, root_cert=roots
        )

    plug_in("first")
    async with (
        place.server(ca_certs_dir=directory) as server,
        place.followers(server, 2, root_pem) as followers,
    ):
        assert all_trust_chain(followers, root_pem)
        leaf, signer, last = await certificate(server, root_pem, place.token())
        assert signer.subject.rfc4514_string() == "CN=first"
        leaf.verify_directly_issued_by(signer)
        signer.verify_directly_issued_by(last)
        plug_in("second")
        async with asyncio.timeout(20):
            while True:
                _, signer, _ = await certificate(server, root_pem, place.token())
                if signer.subject.rfc4514_string() == "CN=second":
                    break
                await asyncio.sleep(0.05)
        stranger = make_ca("Stranger", now)
        plug_in("third", stranger, stranger[0].public_bytes(PEM))
        async with asyncio.timeout(20):
            while await metric(server, "pilothouse_authority_changes_refused_total") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        _, signer, last = await certificate(server, root_pem, place.token())
        assert signer.subject.rfc4514_string() == "CN=second"
        assert last.public_bytes(PEM) == root_pem


async def test_a_plugged_in_authority_is_rotated_by_its_files(place: Place) -> None:
    """Who asks as for roots of our own is told what to do instead."""
    async with place.server():
        pass  # leaves a root of its own in the directory
    root, key = make_ca("Root", datetime.now(UTC))
    directory = place.folder / "cacerts"
    pem = root.public_bytes(PEM)
    write_files(directory, ca_cert=pem, ca_key=private_key_pem(key), cert_chain=pem, root_cert=pem)
    async with place.server(ca_certs_dir=directory):
        with pytest.raises(BadRoot, match="another server uses it"):
            async with place.server():
                pass
        place.ask()
        await until(lambda: not request_waits(place.ca_dir))
        found = place.status()
        assert found is not None
        assert "add the new root to its bundle" in found.refused
        assert place.state().phase is Phase.STABLE


def all_trust_chain(followers: list[IdentityFollower], root_pem: bytes) -> bool:
    return all(each.held.roots_pem == root_pem for each in followers)
