"""The names of the secure port's certificate (security.md C-R-12)."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from serving import ANY, serving

from pilothouse.certs.authority import Authority
from pilothouse.runtime.addresses import InvalidSetting
from pilothouse.runtime.server_names import server_names
from pilothouse.runtime.settings import Settings


@pytest.mark.parametrize("revision", ["", "default"])
def test_istiods_names(revision: str) -> None:
    """C-R-12: agents verify the first, whatever address they dial."""
    names = server_names(revision)
    assert names[0] == "istiod.istio-system.svc"
    assert {"istiod-remote.istio-system.svc", "istio-pilot.istio-system.svc"} <= set(names)
    assert not [name for name in names if name.startswith("istiod--") or "default" in name]


def test_names_of_a_revision_and_of_the_operator() -> None:
    """C-R-12: istiod's custom host; each name once."""
    names = server_names("canary", ("mesh.example", "192.0.2.1", "localhost"))
    assert "istiod-canary.istio-system.svc" in names
    assert {"mesh.example", "192.0.2.1"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["*.example", "Mesh.Example", "a b", "-a", "x" * 300, "a/b", "ä.de"]
)
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    """Nobody would verify it; the option is named."""
    with pytest.raises(InvalidSetting, match=r"^--server-names: "):
        Settings(config_dir=tmp_path, server_names=(name,))


async def test_the_port_shows_them(mesh: Path, tmp_path: Path) -> None:
    """C-R-12: as subject alternative names, DNS names and addresses each as what they are."""
    root = Authority.open(tmp_path / "ca", "cluster.local", datetime.now(UTC)).root_pem
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca", revision="canary", server_names=("mesh.example", "192.0.2.1"),
    )  # fmt: skip
    async with serving(settings) as server:
        assert server.ports.secure_grpc is not None
        pem = await _shown(server.ports.secure_grpc.port, root)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = set(names.get_values_for_type(x509.DNSName))
    assert {"istiod.istio-system.svc", "istiod-canary.istio-system.svc", "mesh.example"} <= dns
    assert "192.0.2.1" in map(str, names.get_values_for_type(x509.IPAddress))
    assert "192.0.2.1" not in dns


async def _shown(port: int, root: bytes) -> str:
    context = ssl.create_default_context(cadata=root.decode())
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="mesh.example"
    )
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(der)
    finally:
        writer.transport.abort()
