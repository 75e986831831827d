"""The secure port: who proves nothing gets nothing, and nobody is somebody else."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from fake_proxy import ADS, node
from joserfc import jwt as jose
from joserfc.jwk import ECKey
from serving import ANY, Serving, serving

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from pilothouse.certs.authority import Authority, KeyPair
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import CDS
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.settings import Settings

CLIENT = WorkloadIdentity("cluster.local", "default", "client")
CLAIMS = {"NAMESPACE": "default", "SERVICE_ACCOUNT": "client"}
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
NODE_ID = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return the root that the server will find in its directory."""
    return Authority.open(tmp_path / "ca", "cluster.local", datetime.now(UTC))


@pytest.fixture
async def secure(mesh: Path, tmp_path: Path, authority: Authority) -> AsyncIterator[Serving]:
    """Return a server with its TLS port on, with that root."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca",
    )  # fmt: skip
    assert authority.root_pem
    async with serving(settings) as running:
        yield running


def svid(authority: Authority, namespace: str = "default", account: str = "client") -> KeyPair:
    """Issue a workload's certificate."""
    identity = WorkloadIdentity("cluster.local", namespace, account)
    return authority.issue_workload(identity, datetime.now(UTC))


async def first_answer(
    server: Serving, root: bytes, pair: KeyPair | None, token: str = "", **claims: str
) -> DeltaDiscoveryResponse:
    """Ask for clusters over TLS as the node that `claims` describe."""
    credentials = grpc.ssl_channel_credentials(
        root, pair.key_pem if pair else None, pair.certificate_pem if pair else None
    )
    metadata = {**CLAIMS, **claims}
    request = DeltaDiscoveryRequest(type_url=CDS, node=node(NODE_ID, metadata))
    async with grpc.aio.secure_channel(str(server.ports.secure_grpc), credentials) as channel:
        headers = [("authorization", f"Bearer {token}")] if token else None
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")(timeout=10, metadata=headers)
        await call.write(request.SerializeToString())
        data = await call.read()
        if data is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(await call.code(), (), (), details=await call.details())
        call.cancel()
        return DeltaDiscoveryResponse.FromString(data)


async def test_own_certificate_is_served(secure: Serving, authority: Authority) -> None:
    """A proxy with a certificate of its namespace and account is served (C-A-1, C-A-8)."""
    answer = await first_answer(secure, authority.root_pem, svid(authority))
    assert "outbound|80||web.default.svc.cluster.local" in {made.name for made in answer.resources}


@pytest.mark.parametrize(
    "claims",
    [{"NAMESPACE": "other"}, {"SERVICE_ACCOUNT": "admin"}, {"SERVICE_ACCOUNT": ""}],
    ids=str,
)
async def test_claiming_to_be_somebody_else(
    secure: Serving, authority: Authority, claims: dict[str, str]
) -> None:
    """The node must say what the certificate says (C-A-8)."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, svid(authority), **claims)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "spiffe://cluster.local/ns/default/sa/client" in (caught.value.details() or "")


async def test_no_credential_is_no_stream(secure: Serving, authority: Authority) -> None:
    """Who has neither certificate nor token may connect, and is told nothing (C-A-6)."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, None)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "authentication failure"


async def test_certificate_of_another_root(secure: Serving, authority: Authority) -> None:
    """A certificate with the right name from the wrong root is nothing."""
    other = Authority.create("cluster.local", datetime.now(UTC))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, svid(other))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_server_certificate_as_client(secure: Serving, authority: Authority) -> None:
    """A server's certificate of the same root names no workload."""
    server = authority.issue_server(["localhost"], datetime.now(UTC))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, server)
    assert caught.value.code() in {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAVAILABLE,  # the handshake refuses it for its use already
    }


async def test_a_token_is_served(secure: Serving, authority: Authority, tmp_path: Path) -> None:
    """A token made while the server runs stands for a certificate; impersonation does not help."""
    store = TokenStore(tmp_path / "ca")
    token, _ = store.create(CLIENT, datetime.now(UTC))
    answer = await first_answer(secure, authority.root_pem, None, token)
    assert answer.resources
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, None, token, SERVICE_ACCOUNT="admin")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_ends_when_its_token_is_revoked(
    secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    """Revocation counts for streams that live, and for those that come (ADR 16)."""
    store = TokenStore(tmp_path / "ca")
    token, record = store.create(CLIENT, datetime.now(UTC))
    request = DeltaDiscoveryRequest(type_url=CDS, node=node(NODE_ID, CLAIMS))
    credentials = grpc.ssl_channel_credentials(authority.root_pem)
    headers = [("authorization", f"Bearer {token}")]
    async with grpc.aio.secure_channel(str(secure.ports.secure_grpc), credentials) as channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")(metadata=headers)
        await call.write(request.SerializeToString())
        assert await call.read() is not grpc.aio.EOF
        store.revoke(record.id, datetime.now(UTC))
        async with asyncio.timeout(20):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await first_answer(secure, authority.root_pem, None, token)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "authentication failure"


async def test_a_stream_ends_with_its_certificate(secure: Serving, authority: Authority) -> None:
    """XP-08: the proxy comes again, with the one it has meanwhile."""
    pair = authority.issue_workload(CLIENT, datetime.now(UTC), lifetime=timedelta(seconds=3))
    credentials = grpc.ssl_channel_credentials(
        authority.root_pem, pair.key_pem, pair.certificate_pem
    )
    request = DeltaDiscoveryRequest(type_url=CDS, node=node(NODE_ID, CLAIMS))
    async with grpc.aio.secure_channel(str(secure.ports.secure_grpc), credentials) as channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
        await call.write(request.SerializeToString())
        assert await call.read() is not grpc.aio.EOF
        async with asyncio.timeout(20):
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        again = channel.stream_stream(ADS + "DeltaAggregatedResources")()
        assert await again.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_front_that_dies_is_replaced(secure: Serving, authority: Authority) -> None:
    """Streams end and come again; it is counted, and the server never noticed otherwise."""
    pair = svid(authority)
    front = secure.plane.identities.secure_port.front
    assert front is not None
    assert front.pid is not None
    assert (await first_answer(secure, authority.root_pem, pair)).resources
    os.kill(front.pid, signal.SIGKILL)
    answer = None
    async with asyncio.timeout(20):
        while answer is None:  # the client's own connection may be the old one still
            with suppress(grpc.aio.AioRpcError):
                answer = await first_answer(secure, authority.root_pem, pair)
    assert answer.resources
    _, metrics = await secure.get("/metrics")
    assert "pilothouse_secure_port_restarts_total 1.0" in metrics
    await secure.until("/debug/syncz", lambda entries: len(entries) <= 1)


async def test_a_token_of_an_issuer_is_served(mesh: Path, tmp_path: Path) -> None:
    """C-A-2, from the file of issuers to the stream; a certificate for it, too."""
    key = ECKey.generate_key("P-256")
    issuers = tmp_path / "issuers.json"
    issuers.write_text(json.dumps({
        "issuer": "https://login.example", "audiences": ["mesh"],
        "jwks": json.dumps({"keys": [key.as_dict(private=False)]}),
        "subjects": {"app-7": "default/client"},
    }))  # fmt: skip
    claims = {"iss": "https://login.example", "aud": "mesh", "exp": 4_000_000_000}
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca", oidc_issuers=issuers,
    )  # fmt: skip
    async with serving(settings) as server:
        root = b"".join(file.read_bytes() for file in (tmp_path / "ca").glob("root-*-cert.pem"))
        token = jose.encode({"alg": "ES256"}, {**claims, "sub": "app-7"}, key)
        assert (await first_answer(server, root, None, token)).resources
        other = jose.encode({"alg": "ES256"}, {**claims, "sub": "app-8"}, key)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first_answer(server, root, None, other)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        _, metrics = await server.get("/metrics")
        assert 'pilothouse_callers_recognised_total{how="oidc"} 1.0' in metrics
        assert "citadel_server_authentication_failure_count 1.0" in metrics


@pytest.mark.parametrize(("host", "dialled"), [("::1", "[::1]"), ("::", "127.0.0.1")])
async def test_ip_version_6(mesh: Path, tmp_path: Path, host: str, dialled: str) -> None:
    """Loopback by its other name; "::" is every address of the machine, of both kinds."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=Address(host, 0), monitoring_addr=ANY,
        ca_dir=tmp_path / "ca",
    )  # fmt: skip
    async with serving(settings) as server:
        assert server.ports.secure_grpc is not None
        root = b"".join(file.read_bytes() for file in (tmp_path / "ca").glob("root-*-cert.pem"))
        credentials = grpc.ssl_channel_credentials(root)
        address = f"{dialled}:{server.ports.secure_grpc.port}"
        async with grpc.aio.secure_channel(address, credentials) as channel:
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_status_service_by_port(mesh: Path, tmp_path: Path) -> None:
    """Offered on loopback's plaintext port to all, on other plaintext ports to nobody (C-A-7)."""
    ok, unimplemented = grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED
    for host, code in (("127.0.0.1", ok), ("0.0.0.0", unimplemented)):
        settings = Settings(
            config_dir=mesh, grpc_addr=Address(host, 0), secure_grpc_addr=None,
            monitoring_addr=ANY, allow_remote_plaintext=True,
        )  # fmt: skip
        async with serving(settings) as server:
            address = f"127.0.0.1:{server.ports.grpc.port}"
            async with grpc.aio.insecure_channel(address) as channel:
                call = channel.unary_unary(CSDS)(b"")
                assert await call.code() is code


async def test_the_unix_socket_behind_the_front_is_no_way_in(
    secure: Serving, authority: Authority, tmp_path: Path
) -> None:
    """Who comes round the front is nobody, token or not, though the owner may open the socket."""
    token, _ = TokenStore(tmp_path / "ca").create(CLIENT, datetime.now(UTC))
    directory = secure.plane.identities.secure_port._directory
    assert directory is not None
    assert directory.stat().st_mode & 0o777 == 0o700
    async with grpc.aio.insecure_channel(f"unix:{directory / 'grpc'}") as channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")(
            metadata=[("authorization", f"Bearer {token}")]
        )
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
