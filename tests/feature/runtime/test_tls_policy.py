"""What the operator demands of TLS reaches proxies; what weakens it is said (S-PA-8, S-PA-9)."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
from fake_proxy import FakeProxy, node
from serving import ANY, serving
from structlog.testing import capture_logs

from pilothouse.certs.authority import Authority
from pilothouse.model.tls_policy import FIPS_CIPHERS, CompliancePolicy
from pilothouse.runtime.settings import Settings

WITH_AGENT = node(metadata={"NAMESPACE": "default", "PILOTHOUSE_CERTIFICATES": "agent"})
LOUD = "mutual_tls.trust_domains_unchecked"


async def inbound(settings: Settings) -> str:
    """Return the inbound listener that a server with such settings gives a proxy."""
    async with (
        serving(settings) as server,
        FakeProxy(str(server.ports.grpc), node=WITH_AGENT) as proxy,
    ):
        await proxy.until(lambda p: p.is_complete)
        return str(proxy.listeners["virtualInbound"])


async def test_a_server_without_demands(mesh: Path) -> None:
    """S-PA-8: trust domains are checked, and nothing is said about it."""
    settings = Settings(config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY)
    with capture_logs() as lines:
        served = await inbound(settings)
    assert "spiffe://cluster.local/" in served
    assert "X25519MLKEM768" not in served
    assert LOUD not in [line["event"] for line in lines]


async def test_a_server_with_demands(mesh: Path) -> None:
    """S-PA-8, S-PA-9: both settings are in the first listener a proxy gets; one is warned of."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY,
        compliance_policy=CompliancePolicy.PQC, skip_validate_trust_domain=True,
    )  # fmt: skip
    with capture_logs() as lines:
        served = await inbound(settings)
    assert "X25519MLKEM768" in served
    assert "spiffe://" not in served
    (said,) = [line for line in lines if line["event"] == LOUD]
    assert (said["log_level"], said["option"]) == ("warning", "--skip-validate-trust-domain")


@pytest.mark.parametrize("policy", [CompliancePolicy.FIPS_140_2, CompliancePolicy.FIPS_140_3])
async def test_the_secure_port(mesh: Path, tmp_path: Path, policy: CompliancePolicy) -> None:
    """S-PA-9, C-R-14: it is under the policy, and gRPC's own library can talk to it."""
    root = Authority.open(tmp_path / "ca", "cluster.local", datetime.now(UTC)).root_pem
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca", compliance_policy=policy,
    )  # fmt: skip
    async with serving(settings) as server:
        assert server.ports.secure_grpc is not None
        context = ssl.create_default_context(cadata=root.decode())
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection(
            "127.0.0.1", server.ports.secure_grpc.port, ssl=context, server_hostname="localhost"
        )
        tls = writer.get_extra_info("ssl_object")
        assert tls.version() == "TLSv1.2"
        assert tls.cipher()[0] in FIPS_CIPHERS
        writer.close()
        address = f"localhost:{server.ports.secure_grpc.port}"
        credentials = grpc.ssl_channel_credentials(root)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            async with asyncio.timeout(10):
                await channel.channel_ready()
