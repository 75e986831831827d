"""A server without an authority of its own (security.md C-R-11)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from certificates import PEM, make_ca, private_key_pem
from click.testing import CliRunner
from fake_proxy import ADS, node
from serving import until
from workplace import Workplace, workplace

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from pilothouse._pb.istio.v1.auth.ca_pb2 import IstioCertificateRequest
from pilothouse.certs.authority import Authority
from pilothouse.certs.private_files import make_private_directory
from pilothouse.certs.root_store import BadRoot
from pilothouse.certs.service import METHOD, NO_AUTHORITY, SERVICE
from pilothouse.cli.main import cli
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import SDS
from pilothouse.runtime.addresses import InvalidSetting
from pilothouse.runtime.outside_authority import BadGivenRoots
from pilothouse.runtime.settings import Settings

DOMAIN = "cluster.local"
WEB = WorkloadIdentity(DOMAIN, "default", "web")
SERVER = "istiod.istio-system.svc"


class Outside:
    """The authority of somebody else, and the files that an operator has of it."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.create(DOMAIN, datetime.now(UTC))
        self.roots_file = folder / "outside-roots.pem"
        self.roots_file.write_bytes(self.authority.root_pem)
        made = self.authority.issue_server([SERVER, "127.0.0.1"], datetime.now(UTC))
        self.files = {
            "tls_cert_file": folder / "tls.crt",
            "tls_key_file": folder / "tls.key",
            "ca_cert_file": self.roots_file,
        }
        self.files["tls_cert_file"].write_bytes(made.certificate_pem)
        self.files["tls_key_file"].write_bytes(made.key_pem)

    def credentials(self, issuer: Authority | None = None) -> grpc.ChannelCredentials:
        """Return what `web` calls with: a certificate by `issuer`, by us if there is none."""
        made = (issuer or self.authority).issue_workload(WEB, datetime.now(UTC))
        return grpc.ssl_channel_credentials(
            self.authority.root_pem, made.key_pem, made.certificate_pem
        )


@asynccontextmanager
async def without_authority(folder: Path, **more: Any) -> AsyncIterator[tuple[Workplace, Outside]]:
    """Run a server whose mesh has its certificates from elsewhere."""
    outside = Outside(folder)
    async with workplace(folder, ca_server=False, **{**outside.files, **more}) as place:
        yield place, outside


class Listener:
    """A stream of `web` that asks for its certificate and the roots; it keeps what it is told."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.secrets: dict[str, Secret] = {}

    async def hear(self) -> None:
        """Take one answer, and acknowledge it."""
        answer = DeltaDiscoveryResponse.FromString(await self._call.read())
        for each in answer.resources:
            self.secrets[each.name] = Secret.FromString(each.resource.value)
        reply = DeltaDiscoveryRequest(type_url=SDS, response_nonce=answer.nonce)
        await self._call.write(reply.SerializeToString())

    @property
    def roots(self) -> bytes:
        return self.secrets["ROOTCA"].validation_context.trusted_ca.inline_bytes


@asynccontextmanager
async def listening(
    place: Workplace, credentials: grpc.ChannelCredentials
) -> AsyncIterator[Listener]:
    metadata = {
        "NAMESPACE": "default",
        "SERVICE_ACCOUNT": "web",
        "PILOTHOUSE_CERTIFICATES": "ads",
    }
    request = DeltaDiscoveryRequest(
        type_url=SDS,
        node=node("sidecar~10.0.0.9~web-1.default~default.svc.cluster.local", metadata),
        resource_names_subscribe=["default", "ROOTCA"],
    )
    async with grpc.aio.secure_channel(place.target, credentials) as channel:
        opened: Any = channel
        call = opened.stream_stream(ADS + "DeltaAggregatedResources")(timeout=20)
        await call.write(request.SerializeToString())
        listener = Listener(call)
        while not listener.secrets:
            await listener.hear()
        yield listener
        call.cancel()


async def test_roots_are_told_and_certificates_are_not(tmp_path: Path) -> None:
    """C-R-11: who has a certificate by the mesh's authority is known; `default` is refused."""
    async with without_authority(tmp_path) as (place, outside):
        async with listening(place, outside.credentials()) as web:
            assert web.secrets.keys() == {"ROOTCA"}
            assert web.roots == outside.authority.root_pem

            def says_why(found: Any) -> bool:
                return "no certificate authority" in str(found) and "'default'" in str(found)

            await place.server.until("/debug/findings", says_why)
        stranger = Authority.create(DOMAIN, datetime.now(UTC))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with listening(place, outside.credentials(stranger)):
                pass
        assert caught.value.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNAUTHENTICATED,
        )


@pytest.mark.parametrize("is_secure", [True, False])
async def test_who_asks_for_a_certificate_hears_that_there_is_none(
    tmp_path: Path, is_secure: bool
) -> None:
    """C-R-11: as where the service does not exist, on both ports, and says where to ask."""
    async with without_authority(tmp_path) as (place, outside):
        channel: Any = (
            grpc.aio.secure_channel(place.target, outside.credentials())
            if is_secure
            else grpc.aio.insecure_channel(str(place.server.ports.grpc))
        )
        async with channel:
            request = IstioCertificateRequest(csr="x").SerializeToString()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{SERVICE}/{METHOD}")(request, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == NO_AUTHORITY


async def test_tokens_of_ours_count_as_before(tmp_path: Path) -> None:
    """C-R-11: they say who somebody is; that needs no authority."""
    async with without_authority(tmp_path) as (place, outside):
        await place.write_token("web")
        token = place.token_file("web").read_text().strip()
        credentials = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(outside.authority.root_pem),
            grpc.access_token_call_credentials(token),
        )
        async with listening(place, credentials) as web:
            assert web.roots == outside.authority.root_pem


async def test_other_roots_are_told_and_trusted(tmp_path: Path) -> None:
    """C-R-11: the file is read again, by workloads' streams and by the port."""
    other = Authority.create(DOMAIN, datetime.now(UTC))
    async with without_authority(tmp_path) as (place, outside):
        async with listening(place, outside.credentials()) as web:
            both = outside.authority.root_pem + other.root_pem
            outside.roots_file.write_bytes(both)
            async with asyncio.timeout(15):
                while web.roots != both:
                    await web.hear()
        async with listening(place, outside.credentials(other)) as web:
            assert web.roots == both


async def test_a_bad_file_of_roots_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """C-R-11: neither nothing at all nor something else is trusted then; it is in the log."""
    async with without_authority(tmp_path) as (place, outside):
        outside.roots_file.write_bytes(b"hunter2")
        seen = ""

        def is_told() -> bool:
            nonlocal seen
            found = capsys.readouterr()
            seen += found.out + found.err
            return "authority.change_refused" in seen

        await until(is_told)
        assert "hunter2" not in seen
        async with listening(place, outside.credentials()) as web:
            assert web.roots == outside.authority.root_pem


@pytest.mark.parametrize("content", [None, b"", b"hunter2", bytes(2_000_000)])
async def test_roots_that_cannot_be_used_are_told_at_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    """C-R-11: a server that trusts nobody, or anybody, is no server."""
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadGivenRoots, match=r"--ca-cert-file") as caught:
        async with without_authority(tmp_path, ca_cert_file=file):
            pass
    assert "hunter2" not in str(caught.value)


async def test_the_directory_is_held(tmp_path: Path) -> None:
    """C-R-11: one server at a time, as with an authority."""
    async with without_authority(tmp_path) as (place, outside):
        with pytest.raises(BadRoot, match="another server"):
            async with workplace(tmp_path, ca_server=False, **outside.files):
                pass
        assert place.server.plane.identities.authority is None


async def test_commands_say_that_there_is_no_authority(tmp_path: Path) -> None:
    """C-R-11: also where roots of an earlier server are left; not once one is back."""
    folder = tmp_path / "ca"
    make_private_directory(folder)
    Authority.open(folder, DOMAIN, datetime.now(UTC))
    runner = CliRunner()
    asked = [["status"], ["root"], ["rotate"]]
    async with without_authority(tmp_path):
        for command in asked:
            arguments = ["ca", *command, "--ca-dir", str(folder)]
            answer = await asyncio.to_thread(runner.invoke, cli, arguments)
            assert answer.exit_code == 1
            assert "has no authority of its own" in answer.output
    async with workplace(tmp_path) as place:
        told = folder / "rotation.status"
        await until(lambda: b'"has_authority":false' not in told.read_bytes())
        assert "No rotation" in await place.run("ca", "status", "--ca-dir", folder)


async def test_a_plugged_in_authority_is_one(tmp_path: Path) -> None:
    """C-R-11: what a server without an authority left in the directory does not stay true."""
    plugged, told = tmp_path / "cacerts", tmp_path / "ca" / "rotation.status"
    plugged.mkdir()
    root, key = make_ca("Root", datetime.now(UTC))
    pem = root.public_bytes(PEM)
    for name, content in (
        ("ca-cert", pem),
        ("ca-key", private_key_pem(key)),
        ("cert-chain", pem),
        ("root-cert", pem),
    ):
        (plugged / f"{name}.pem").write_bytes(content)
    async with without_authority(tmp_path):
        assert told.exists()
    settings = {"ca_certs_dir": plugged, "ca_server": True}
    async with workplace(tmp_path, writes_roots=False, **settings):
        assert not told.exists()


def test_settings_that_leave_the_port_without_a_certificate(tmp_path: Path) -> None:
    """C-R-11: nobody issues for it; a server without the port needs nothing."""
    files = Outside(tmp_path).files
    for missing in ("ca_cert_file", None):
        given = {name: path for name, path in files.items() if missing and name != missing}
        with pytest.raises(InvalidSetting, match=r"--ca-server.*--ca-cert-file"):
            Settings(config_dir=tmp_path, ca_server=False, **given)
    with pytest.raises(InvalidSetting, match=r"--ca-certs-dir"):
        Settings(config_dir=tmp_path, ca_server=False, ca_certs_dir=tmp_path, **files)
    assert not Settings(config_dir=tmp_path, ca_server=False, secure_grpc_addr=None).ca_server


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--ca-server=false"], {}),
        ([], {"ENABLE_CA_SERVER": "false"}),
        ([], {"PILOTHOUSE_CA_SERVER": "0"}),
    ],
)
def test_the_option_and_istiods_variable(
    tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    """C-R-11: `ENABLE_CA_SERVER`; what is missing then is told before anything is opened."""
    command = ["serve", "--config-dir", str(tmp_path), *arguments]
    answer = CliRunner().invoke(cli, command, env=variables)
    assert answer.exit_code == 1
    assert "--ca-server: nobody issues for the secure port" in answer.output


async def test_a_server_without_the_secure_port_needs_no_roots(tmp_path: Path) -> None:
    """C-R-11: plain discovery goes on; there, nobody is told of roots either (D-Z-1)."""
    async with workplace(tmp_path, ca_server=False, secure_grpc_addr=None) as place:
        assert place.server.plane.identities.outside is None
        status, _ = await place.server.get("/ready")
        assert status == 200
