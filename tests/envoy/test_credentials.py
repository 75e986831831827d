"""A real Envoy presents a client certificate from a Secret that its service account may read."""

import asyncio
import base64
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from key_pairs import Pair, pair
from serving import replace_file
from workplace import Workplace, eventually, workplace

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("identity"),
]
ADDRESS = "127.0.0.1"
SERVER = pair("api.example")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("k", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as probe:
        return int(probe.getsockname()[1])


class TlsServer:
    """Takes clients with certificates only; says their name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = 0

    @asynccontextmanager
    async def running(self, *clients: Pair) -> AsyncIterator[None]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = self._folder / "server.pem"
        file.write_bytes(SERVER.chain + SERVER.key)
        context.load_cert_chain(file)
        context.verify_mode = ssl.CERT_REQUIRED
        for each in clients:
            context.load_verify_locations(cadata=each.chain.decode())
        server = await asyncio.start_server(self._greet, ADDRESS, 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        subject = x509.load_der_x509_certificate(der).subject
        (name,) = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        writer.write(f"{name.value}\n".encode())
        await writer.drain()
        writer.close()


def mesh(egress: int, upstream: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: default}}
spec:
  hosts: [api.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: {egress}, name: tcp, protocol: TCP, targetPort: {upstream}}}]
  endpoints: [{{address: {ADDRESS}}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  egress:
  - port: {{number: {egress}, protocol: TCP, name: tcp}}
    bind: {ADDRESS}
    captureMode: NONE
    hosts: ["./api.example"]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api, namespace: default}}
spec:
  host: api.example
  workloadSelector: {{matchLabels: {{app: web}}}}
  trafficPolicy:
    tls: {{mode: MUTUAL, credentialName: api-client, sni: api.example}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: api-client, namespace: default}}
rules: [{{apiGroups: [""], resources: [secrets], resourceNames: [api-client], verbs: [get]}}]
"""


BINDING = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: api-client, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: api-client}
subjects: [{kind: ServiceAccount, name: web}]
"""


def secret(client: Pair) -> str:
    chain, key, root = (base64.b64encode(each).decode() for each in (*client, SERVER.chain))
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: api-client, namespace: default}}
type: kubernetes.io/tls
data: {{tls.crt: {chain}, tls.key: {key}, ca.crt: {root}}}
"""


async def test_a_client_certificate_from_a_secret(folder: Path) -> None:
    """D-C-5, DR-54, D-Z-2, D-Z-7: refused is said; given once allowed; replaced by SDS alone."""
    first, second = pair("first"), pair("second")
    upstream, egress = TlsServer(folder), free_port()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream.running(first, second))
        config = (mesh(egress, upstream.port), secret(first))
        place = await stack.enter_async_context(workplace(folder, *config))
        await place.write_token("web")
        envoy = await stack.enter_async_context(place.envoy("web"))
        await eventually(lambda: has_finding(place, "SecretRefused"))
        await eventually(lambda: counted_errors(place))
        (folder / "mesh" / "binding.yaml").write_text(BINDING)
        await envoy.wait_ready()
        assert await eventually(lambda: greeting(egress)) == "first"
        assert not await has_finding(place, "SecretRefused")
        pushed = await pushes(place)
        replace_file(folder / "mesh" / "1.yaml", secret(second))

        async def is_second() -> bool:
            return await greeting(egress) == "second"

        await eventually(is_second)
        after = await pushes(place)
        assert after.pop("sds") > pushed.pop("sds")
        assert after == pushed


async def greeting(port: int) -> str:
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    try:
        writer.write(b"who\n")
        await writer.drain()
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()


async def has_finding(place: Workplace, code: str) -> bool:
    return any(each["code"] == code for each in await place.server.json("/debug/findings"))


async def counted_errors(place: Workplace) -> bool:
    _, text = await place.server.get("/metrics")
    return "pilot_sds_certificate_errors_total 1.0" in text


async def pushes(place: Workplace) -> dict[str, float]:
    """Return how many responses of each type were sent."""
    _, text = await place.server.get("/metrics")
    found = {}
    for line in text.splitlines():
        if line.startswith("pilot_xds_pushes{"):
            found[line.split('"')[1]] = float(line.rpartition(" ")[2])
    return found
