"""What the operator demands of TLS reaches proxies; what weakens it is said (S-PA-8, S-PA-9)."""

from pathlib import Path

from fake_proxy import FakeProxy, node
from serving import ANY, serving
from structlog.testing import capture_logs

from pilothouse.model.tls_policy import CompliancePolicy
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
