"""What a caller says of itself in headers is nobody's identity (security.md C-A-5)."""

from pathlib import Path

import grpc
import grpc.aio
import pytest
from certificates import csr
from fake_proxy import ADS, node
from serving import ANY, serving

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.model.resource import CDS
from pilothouse.runtime.settings import Settings

CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
CLIENT = "spiffe://cluster.local/ns/default/sa/client"
CLAIMS = {"NAMESPACE": "default", "SERVICE_ACCOUNT": "client"}
FORGED = [
    ("x-forwarded-client-cert", f"By=x;Hash=00;URI={CLIENT};DNS=client.default"),
    ("x-forwarded-client-cert", f'Subject="CN={CLIENT}"'),
    ("x-forwarded-for", "127.0.0.1"),
    ("clusterid", "Kubernetes"),
]


@pytest.mark.parametrize("port", ["plaintext", "secure"])
async def test_a_forged_header_is_no_identity(mesh: Path, tmp_path: Path, port: str) -> None:
    """C-A-5, C-A-7: Istio takes it from addresses it trusts, loopback's among them; we never do."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca",
    )  # fmt: skip
    request = DeltaDiscoveryRequest(type_url=CDS, node=node(metadata=CLAIMS)).SerializeToString()
    async with serving(settings) as server:
        root = b"".join(file.read_bytes() for file in (tmp_path / "ca").glob("root-*-cert.pem"))
        channel = (
            grpc.aio.secure_channel(
                str(server.ports.secure_grpc), grpc.ssl_channel_credentials(root)
            )
            if port == "secure"
            else grpc.aio.insecure_channel(str(server.ports.grpc))
        )
        async with channel:
            asked = ca_pb2.IstioCertificateRequest(csr=csr().decode()).SerializeToString()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(CREATE)(asked, metadata=FORGED)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            stream = channel.stream_stream(ADS + "DeltaAggregatedResources")(metadata=FORGED)
            if port == "secure":
                assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
                return
            await stream.write(request)
            assert await stream.read() is not grpc.aio.EOF
            [status] = server.plane.streams.status()
            assert status.stream.proxy.identity is None
            stream.cancel()
