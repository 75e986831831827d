"""A certificate of the operator's on the secure port (security.md C-R-12)."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from key_pairs import Pair, pair
from serving import ANY, serving

from pilothouse.certs.authority import Authority
from pilothouse.certs.front.supervisor import FrontFailed
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.runtime.addresses import InvalidSetting
from pilothouse.runtime.settings import Settings

CLIENT = WorkloadIdentity("cluster.local", "default", "client")


def settings_of(mesh: Path, tmp_path: Path, shown: Pair, roots: bytes = b"") -> Settings:
    """Write the files, and return settings that name them."""
    (tmp_path / "tls.crt").write_bytes(shown.chain)
    (tmp_path / "tls.key").write_bytes(shown.key)
    (tmp_path / "ca.crt").write_bytes(roots)
    return Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca", tls_cert_file=tmp_path / "tls.crt",
        tls_key_file=tmp_path / "tls.key", ca_cert_file=tmp_path / "ca.crt" if roots else None,
    )  # fmt: skip


async def meets(port: int, trusted: bytes, name: str, shown: Path | None = None) -> int:
    """Shake hands as a client; return the serial number of the server's certificate."""
    context = ssl.create_default_context(cadata=trusted.decode())
    context.set_alpn_protocols(["h2"])
    if shown is not None:
        context.load_cert_chain(shown)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name
    )
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        # HTTP/2's first frame, which is the server's too: it has let us in.
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        async with asyncio.timeout(10):
            assert await reader.readexactly(9)
        return x509.load_der_x509_certificate(der).serial_number
    finally:
        writer.transport.abort()


def serial(of: Pair) -> int:
    return x509.load_pem_x509_certificate(of.chain).serial_number


async def test_the_operators_certificate_is_shown(mesh: Path, tmp_path: Path) -> None:
    """C-R-12: who was told of it finds the server; the mesh's workloads are known all the same."""
    shown = pair("mesh.example")
    authority = Authority.open(tmp_path / "ca", "cluster.local", datetime.now(UTC))
    other = Authority.create("cluster.local", datetime.now(UTC))
    clients = {}
    for name, issuer in (("own", authority), ("added", other)):
        made = issuer.issue_workload(CLIENT, datetime.now(UTC))
        clients[name] = tmp_path / f"{name}.pem"
        clients[name].write_bytes(made.key_pem + made.certificate_pem)
    settings = settings_of(mesh, tmp_path, shown, other.root_pem)
    async with serving(settings) as server:
        assert server.ports.secure_grpc is not None
        port = server.ports.secure_grpc.port
        for client in (None, clients["own"], clients["added"]):
            assert await meets(port, shown.chain, "mesh.example", client) == serial(shown)
        with pytest.raises(ssl.SSLCertVerificationError):
            await meets(port, authority.root_pem, "localhost")


async def test_files_are_read_again(mesh: Path, tmp_path: Path) -> None:
    """C-R-12: a renewed pair is used; half of one, or none, leaves the port with what it has."""
    first, second = pair("mesh.example"), pair("mesh.example")
    settings = settings_of(mesh, tmp_path, first)
    async with serving(settings) as server:
        assert server.ports.secure_grpc is not None
        port = server.ports.secure_grpc.port
        assert await meets(port, first.chain, "mesh.example") == serial(first)
        (tmp_path / "tls.crt").write_bytes(second.chain)
        with pytest.raises(FrontFailed, match="certificate or key"):
            await server.plane.identities.update_port()
        (tmp_path / "tls.key").unlink()
        with pytest.raises(FrontFailed, match="cannot be read"):
            await server.plane.identities.update_port()
        assert await meets(port, first.chain, "mesh.example") == serial(first)
        (tmp_path / "tls.key").write_bytes(second.key)
        await server.plane.identities.update_port()
        assert await meets(port, second.chain, "mesh.example") == serial(second)


@pytest.mark.parametrize("what", ["missing", "no PEM", "large"])
async def test_files_that_cannot_be_used_are_told_at_the_start(
    mesh: Path, tmp_path: Path, what: str
) -> None:
    """C-R-12: rather than a certificate nobody expects; what they hold is not quoted."""
    settings = settings_of(mesh, tmp_path, pair("mesh.example"))
    match what:
        case "missing":
            (tmp_path / "tls.crt").unlink()
        case "no PEM":
            (tmp_path / "tls.key").write_bytes("hunter2 ä".encode())
        case _:
            (tmp_path / "tls.key").write_bytes(bytes(2_000_000))
    with pytest.raises(FrontFailed) as caught:
        async with serving(settings):
            pass
    assert "tls." in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("names", [("cert",), ("key",), ("ca",), ("cert", "ca")])
def test_files_come_together(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A key without its certificate is a mistake."""
    options = {"cert": "tls_cert_file", "key": "tls_key_file", "ca": "ca_cert_file"}
    with pytest.raises(InvalidSetting, match="goes with"):
        Settings(config_dir=tmp_path, **{options[name]: tmp_path / "x" for name in names})
