"""Proxies whose certificates are files on their own disk, and no agent (NM-11, NM-12, DR-58)."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import isolation
import pytest
import pytest_asyncio
from live_mesh import LiveMesh, eventually
from self_signed import self_signed
from web_mesh import service

from pilothouse.certs.authority import Authority
from pilothouse.demo.interception import PROXY_UID
from pilothouse.model.identity import WorkloadIdentity

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("certificate_files"),
    pytest.mark.timeout(120),
]

DOMAIN = "cluster.local"
ADDRESSES = {"web": "10.244.77.81", "client": "10.244.77.82", "stranger": "10.244.77.83"}
WEB = "http://10.96.1.80"
SERVICE = f"""{service("web", "10.96.1.80", "{name: http, port: 80, targetPort: 8080}")}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web, namespace: default}}
spec: {{address: {ADDRESSES["web"]}, serviceAccount: web, labels: {{app: web}}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: default}}
spec: {{mtls: {{mode: STRICT}}}}
"""
RULE = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: default}}
spec:
  host: web
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
      sni: web.example
      subjectAltNames: ["spiffe://{DOMAIN}/ns/default/sa/NAME"]
"""
ONE_REQUEST = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
"""


class Disk:
    """Files of one authority, as an operator puts them on a proxy's disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o755)
        self.folder = folder
        self._authority = Authority.create(DOMAIN, datetime.now(UTC))
        self._write("roots.pem", self._authority.root_pem)

    def _write(self, name: str, content: bytes) -> None:
        draft = self.folder / f".{name}"
        draft.write_bytes(content)
        os.chown(draft, PROXY_UID, PROXY_UID)
        draft.chmod(0o600)
        draft.replace(self.folder / name)

    def show(self, name: str, account: str) -> None:
        """Put a certificate of that account, and its key, into files of that name."""
        identity = WorkloadIdentity(DOMAIN, "default", account)
        made = self._authority.issue_workload(identity, datetime.now(UTC))
        self._write(f"{name}-key.pem", made.key_pem)
        self._write(f"{name}.pem", made.certificate_pem)

    def metadata(self, name: str) -> dict[str, str]:
        """What a proxy says that has these files."""
        parts = {"CERT_CHAIN": f"{name}.pem", "KEY": f"{name}-key.pem", "ROOT_CERT": "roots.pem"}
        return {
            f"TLS_{side}_{part}": str(self.folder / file)
            for side in ("CLIENT", "SERVER")
            for part, file in parts.items()
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[LiveMesh, Disk]]:
    """A server and a client with files, and a client without any."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as found:
        disk = Disk(found.folder / "certificates")
        await found.control.apply(SERVICE, "service.yaml")
        for name, address in ADDRESSES.items():
            disk.show(name, name)
            metadata = disk.metadata(name) if name != "stranger" else {}
            await found.add(name, address, {"app": name}, tls, metadata)
        yield found, disk


async def told_of(mesh: LiveMesh, client: str = "client") -> str:
    """Return what the server's program is told of a caller's certificate, "" without an answer."""
    reply = await mesh.workloads[client].request(WEB, host="web")
    return reply.seen["x-forwarded-client-cert"] if reply.by == "web" else ""


async def test_files_are_an_identity(mesh: tuple[LiveMesh, Disk]) -> None:
    """NM-11, NM-12: in STRICT mode, on both sides; who has none is not let in."""
    found, _ = mesh
    await found.settled()
    told = await told_of(found)
    assert f"URI=spiffe://{DOMAIN}/ns/default/sa/client" in told
    assert f"By=spiffe://{DOMAIN}/ns/default/sa/web" in told
    assert await told_of(found, "stranger") == ""


async def test_files_are_shown_where_a_rule_asks_for_a_certificate(
    mesh: tuple[LiveMesh, Disk],
) -> None:
    """DR-58: and whom the rule names must answer."""
    found, _ = mesh
    await found.apply(RULE.replace("NAME", "web"))
    assert f"URI=spiffe://{DOMAIN}/ns/default/sa/client" in await told_of(found)
    await found.apply(RULE.replace("NAME", "somebody"))
    assert await told_of(found) == ""
    await found.control.delete("test.yaml")
    await found.settled()


async def test_new_files_are_read(mesh: tuple[LiveMesh, Disk]) -> None:
    """N-64: files are secrets, which Envoy reads again when they are replaced."""
    found, disk = mesh
    await found.apply(ONE_REQUEST)  # a connection keeps what it was opened with
    assert "sa/client" in await told_of(found)
    disk.show("client", "renewed")

    async def is_renewed() -> bool:
        return "sa/renewed" in await told_of(found)

    await eventually(is_renewed)
