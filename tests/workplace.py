"""
A server with an authority, and what stands on a workload's disk, made by our own commands.

    async with workplace(folder) as place:
        place.write_token("web")
        async with place.envoy("web") as envoy: ...
"""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from serving import ANY, Serving, serving

from pilothouse.agent.control_plane import ControlPlaneAccess, ControlPlaneClient
from pilothouse.agent.keys import KeyKind, SigningRequest
from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.runtime.settings import Settings

PATIENCE_SECONDS = 30.0
CLOSED = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def guarded(account: str, address: str, port: int, program: int = 9) -> str:
    """Return config by which a workload serves `address`:`port` for its program's port."""
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {account}, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: {account}}}}}
  ingress:
  - port: {{number: {port}, protocol: TCP, name: tcp}}
    bind: {address}
    defaultEndpoint: 127.0.0.1:{program}
    captureMode: NONE
"""


def calling(account: str, egress: int, port: int) -> str:
    """Return config by which an account reaches the guarded workload at its own port `egress`."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: default}}
spec:
  hosts: [web.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {egress}, name: tcp, protocol: TCP, targetPort: {port}}}]
  endpoints:
  - address: 127.0.0.1
    serviceAccount: web
    labels: {{security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {account}, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: {account}}}}}
  egress:
  - port: {{number: {egress}, protocol: TCP, name: tcp}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./web.internal"]
"""


class Workplace:
    """The running server and the files around it."""

    def __init__(self, server: Serving, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.ca_dir = folder / "ca"
        self.root_file = folder / "root-cert.pem"

    @property
    def target(self) -> str:
        """Return where the secure port is."""
        return str(self.server.ports.secure_grpc)

    async def run(self, *arguments: str | Path) -> str:
        """Run one of our commands to its end; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pilothouse",
            *map(str, arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return out.decode()

    async def write_roots(self) -> None:
        """Put the server's roots where proxies look for them."""
        await self.run("ca", "root", "--ca-dir", self.ca_dir, "--out", self.root_file)

    def token_file(self, account: str) -> Path:
        return self.folder / f"{account}-token"

    async def write_token(self, account: str) -> str:
        """Put a token where the workload looks for it; return its id."""
        token = await self.run(
            "token", "create", "--ca-dir", self.ca_dir, "-n", "default", "-s", account
        )
        draft = self.folder / "draft"
        draft.write_text(token)
        draft.replace(self.token_file(account))
        listed = json.loads(await self.run("token", "list", "--ca-dir", self.ca_dir, "-o", "json"))
        return str(listed[-1]["id"])

    @asynccontextmanager
    async def envoy(
        self, account: str, *options: str, ip: str = "127.0.0.1"
    ) -> AsyncIterator[EnvoyProcess]:
        """Run an Envoy with the bootstrap that our command writes for a workload, unmodified."""
        file = await self.write_bootstrap(account, *options, ip=ip)
        made = EnvoyProcess(json.loads(file.read_text()), file.parent / "run", name=account)
        async with made:
            yield made

    async def write_bootstrap(self, account: str, *options: str, ip: str = "127.0.0.1") -> Path:
        """Have our command write the bootstrap of a workload's Envoy; return where it is."""
        folder = self.folder / account
        folder.mkdir(exist_ok=True)
        file = folder / "envoy.json"
        await self.run(
            "bootstrap",
            *("--name", f"{account}-1", "--service-account", account, "-l", f"app={account}"),
            *("--ip", ip, "--interception-mode", "NONE"),
            *("--control-plane", self.target, "--token-file", self.token_file(account)),
            *("--root-cert-file", self.root_file, "--admin", f"unix:{folder}/admin"),
            *("-o", file),
            *options,
        )
        return file

    async def client_context(self, account: str) -> ssl.SSLContext:
        """Return a TLS context with a certificate for an account, obtained with its token."""
        access = ControlPlaneAccess(
            target=self.target,
            server_name="istiod.istio-system.svc",
            root_file=self.root_file,
            token_file=self.token_file(account),
            name=account,
            address="127.0.0.1",
        )
        made = SigningRequest(KeyKind.ECDSA_P256)
        client = ControlPlaneClient(access)
        elements = await client.create_certificate(made.csr_pem, timedelta(), None)
        file = self.folder / f"{account}-client.pem"
        file.write_bytes("".join(elements[:-1]).encode() + made.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # names are identities here; see `identity_at`
        context.load_verify_locations(cadata=elements[-1])
        context.load_cert_chain(file)
        context.set_alpn_protocols(["istio"])
        return context


async def handshake(context: ssl.SSLContext, address: str, port: int) -> x509.Certificate:
    """Return the certificate with which a workload answers; it was verified against the roots."""
    _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname="web")
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der)
    finally:
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def identity_of(certificate: x509.Certificate) -> str:
    """Return the one URI name of a certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return str(uri)


async def eventually(look: Callable[[], Any]) -> Any:
    """Ask until there is an answer that counts; Envoy has no event to wait for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
                if found := await look():
                    return found
            await asyncio.sleep(0.05)


@asynccontextmanager
async def workplace(
    folder: Path, *texts: str, writes_roots: bool = True, **more: Any
) -> AsyncIterator[Workplace]:
    """
    Run a server over these objects; `more` are settings.

    Its roots are written to where proxies look for them, if it has made any.
    """
    mesh = folder / "mesh"
    mesh.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (mesh / f"{number}.yaml").write_text(text)
    chosen = {"grpc_addr": ANY, "secure_grpc_addr": ANY, "monitoring_addr": ANY, **more}
    settings = Settings(config_dir=mesh, ca_dir=folder / "ca", **chosen)
    async with serving(settings) as server:
        place = Workplace(server, folder)
        if settings.ca_server and writes_roots:
            await place.write_roots()
        yield place
