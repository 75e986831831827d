"""The status service on the secure port: who may see which proxies (security.md Z-8, GN-07)."""

from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
from fake_proxy import ADS, node
from serving import ANY, serving

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from pilothouse._pb.envoy.service.status.v3 import csds_pb2
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import CDS
from pilothouse.runtime.settings import Settings

CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
NODE = node(
    "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local",
    {"NAMESPACE": "default", "SERVICE_ACCOUNT": "client"},
)


async def test_who_sees_what_a_proxy_was_sent(mesh: Path, tmp_path: Path) -> None:
    """Z-8, GN-07: an identity is needed; of other namespaces only the root namespace sees."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca",
    )  # fmt: skip
    tokens = TokenStore(tmp_path / "ca")

    def headers(namespace: str, account: str) -> list[tuple[str, str]]:
        identity = WorkloadIdentity("cluster.local", namespace, account)
        token, _ = tokens.create(identity, datetime.now(UTC))
        return [("authorization", f"Bearer {token}")]

    async with serving(settings) as server:
        root = b"".join(file.read_bytes() for file in (tmp_path / "ca").glob("root-*-cert.pem"))
        credentials = grpc.ssl_channel_credentials(root)
        async with grpc.aio.secure_channel(str(server.ports.secure_grpc), credentials) as channel:
            proxy = channel.stream_stream(ADS + "DeltaAggregatedResources")(
                metadata=headers("default", "client")
            )
            request = DeltaDiscoveryRequest(type_url=CDS, node=NODE)
            await proxy.write(request.SerializeToString())
            assert await proxy.read() is not grpc.aio.EOF
            for namespace, account, seen in (
                ("default", "client", 1),
                ("default", "somebody", 1),
                ("other", "client", 0),
                ("istio-system", "operator", 1),
            ):
                call = channel.unary_unary(CSDS)(b"", metadata=headers(namespace, account))
                status = csds_pb2.ClientStatusResponse.FromString(await call)
                assert len(status.config) == seen, (namespace, account)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(CSDS)(b"")
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            proxy.cancel()
