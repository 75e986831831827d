"""
Mutual TLS with peers that are no proxy, both ways: a TLS library and a SPIFFE certificate will do.

And what no peer can do: say who it is in a header, or bargain for an old version of TLS.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import isolation
import pytest
import pytest_asyncio
from live_mesh import HTTP_PORT, TCP_PORT
from mutual_mesh import ADDRESSES, DOMAIN, VIPS, Ground, mutual_mesh

from pilothouse.certs.authority import Authority, KeyPair
from pilothouse.model.identity import WorkloadIdentity

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mutual_tls_peers"),
    pytest.mark.timeout(180),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["delta"])
async def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    """The mesh of this file."""
    async with mutual_mesh(tmp_path_factory.mktemp("m"), delta=request.param == "delta") as made:
        yield made


async def openssl(
    ground: Ground,
    address: str,
    port: int,
    shown: KeyPair | None,
    alpn: list[str],
    said: bytes,
    *,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> tuple[bytes, str]:
    """
    Speak TLS as a program without a sidecar does; return what came back, and the server's name.

    The SNI is fixed, as some clients' is. What came back is empty if the connection was refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = newest
    context.check_hostname = False  # the name is a URI, which Python does not compare
    context.load_verify_locations(cadata=ground.authority.root_pem.decode())
    if shown is not None:
        pem = ground.folder / "client.pem"
        pem.write_bytes(shown.key_pem + shown.certificate_pem)
        context.load_cert_chain(pem)
    if alpn:
        context.set_alpn_protocols(alpn)
    raw = ground.mesh.hub.socket(socket.AF_INET, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    names = ""
    try:
        async with asyncio.timeout(10):
            await loop.sock_connect(raw, (address, port))
            reader, writer = await asyncio.open_connection(
                sock=raw, ssl=context, server_hostname="fixed.example"
            )
            peer = writer.get_extra_info("peercert") or {}
            names = ",".join(value for _, value in peer.get("subjectAltName", ()))
            writer.write(said)
            try:
                return await reader.read(4096), names
            finally:
                writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        raw.close()
        return b"", names


REQUEST = b"GET / HTTP/1.1\r\nhost: declared\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("alpn", [["istio-http/1.1", "istio", "http/1.1"], ["istio"], []])
async def test_a_client_that_is_no_proxy_brings_its_certificate(
    ground: Ground, alpn: list[str]
) -> None:
    """S-PA-8: a SPIFFE P-256 certificate is enough, whatever the SNI; none or a foreign one not."""
    await ground.apply_mode("STRICT")
    address = ADDRESSES["declared"]
    own = ground.certificate("outsider")
    answer, name = await openssl(ground, address, HTTP_PORT, own, alpn, REQUEST)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"sa/outsider" in answer
    assert name == f"spiffe://{DOMAIN}/ns/default/sa/declared"
    answer, _ = await openssl(ground, address, TCP_PORT, own, alpn, b"who\n")
    assert answer == b"declared\n"
    assert (await openssl(ground, address, HTTP_PORT, None, alpn, REQUEST))[0] == b""
    stranger = ground.certificate("outsider", "elsewhere.example")
    assert (await openssl(ground, address, HTTP_PORT, stranger, alpn, REQUEST))[0] == b""
    other = Authority.create(DOMAIN, datetime.now(UTC))
    forged = other.issue_workload(
        WorkloadIdentity(DOMAIN, "default", "outsider"), datetime.now(UTC)
    )
    assert (await openssl(ground, address, HTTP_PORT, forged, alpn, REQUEST))[0] == b""


@pytest.mark.parametrize("service", VIPS)
async def test_istios_own_clients_are_understood(ground: Ground, service: str) -> None:
    """S-PA-4, S-PA-10, D-7: `istio-peer-exchange` is matched and never agreed on."""
    await ground.apply_mode("PERMISSIVE")
    own = ground.certificate("outsider")
    offered = ["istio-peer-exchange", "istio"]
    address = ADDRESSES[service]
    answer, _ = await openssl(ground, address, TCP_PORT, own, offered, b"who\n")
    assert answer == f"{service}\n".encode()


MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "meshMTLS: {minProtocolVersion: %s}"}
"""


@pytest.mark.parametrize(("oldest", "is_served"), [("TLSV1_2", True), ("TLSV1_3", False)])
async def test_the_mesh_says_how_old_tls_may_be(
    ground: Ground, oldest: str, is_served: bool
) -> None:
    """S-PA-9, MC-20."""
    await ground.mesh.apply(MESH % oldest, "mesh.yaml")
    await ground.apply_mode("STRICT")
    own = ground.certificate("outsider")
    for newest, wanted in ((ssl.TLSVersion.TLSv1_2, is_served), (ssl.TLSVersion.TLSv1_3, True)):
        answer, _ = await openssl(
            ground, ADDRESSES["declared"], TCP_PORT, own, ["istio"], b"who\n", newest=newest
        )
        assert answer == (b"declared\n" if wanted else b""), newest
    await ground.mesh.control.delete("mesh.yaml")


PARTNER = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "caCertificates: [{trustDomains: [partner.example]}]"}
"""


async def test_the_mesh_says_which_other_trust_domains_may_call(ground: Ground) -> None:
    """S-PA-8: roots alone do not let a trust domain in, `caCertificates[].trustDomains` does."""
    await ground.apply_mode("STRICT")
    other = ground.certificate("outsider", "partner.example")
    for is_named in (False, True):
        if is_named:
            await ground.mesh.apply(PARTNER, "mesh.yaml")
        answer, _ = await openssl(
            ground, ADDRESSES["declared"], TCP_PORT, other, ["istio"], b"who\n"
        )
        assert answer == (b"declared\n" if is_named else b"")
    await ground.mesh.control.delete("mesh.yaml")


async def test_nobody_says_in_a_header_who_they_are(ground: Ground) -> None:
    """LS-15: what a plain client puts there is gone; what a certificate says stands last."""
    await ground.apply_mode("PERMISSIVE")
    forged = f"URI=spiffe://{DOMAIN}/ns/default/sa/admin"
    said = REQUEST.replace(
        b"connection", f"x-forwarded-client-cert: {forged}\r\nconnection".encode()
    )
    raw = ground.mesh.hub.socket(socket.AF_INET, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        await loop.sock_connect(raw, (ADDRESSES["declared"], HTTP_PORT))
        reader, writer = await asyncio.open_connection(sock=raw)
        writer.write(said)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"sa/admin" not in answer
    own = ground.certificate("outsider")
    answer, _ = await openssl(ground, ADDRESSES["declared"], HTTP_PORT, own, ["istio"], said)
    assert answer.rindex(b"sa/outsider") > answer.find(b"sa/admin")


OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: legacy, namespace: default}}
spec:
  hosts: [legacy.example]
  addresses: [10.96.1.9]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: tcp, protocol: TCP, targetPort: 7443}}]
  endpoints: [{{address: {address}, serviceAccount: legacy}}]
"""


async def test_a_server_that_is_no_proxy_is_called_with_mutual_tls(ground: Ground) -> None:
    """S-PA-11 to S-PA-13, N-03: it sees SNI, protocols and who calls; and must be who it should."""
    seen: list[str | None] = []

    def context_for(account: str) -> ssl.SSLContext:
        shown = ground.certificate(account)
        pem = ground.folder / "server.pem"
        pem.write_bytes(shown.key_pem + shown.certificate_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.load_verify_locations(cadata=ground.authority.root_pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["istio-h2", "istio"])
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        return context

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        tls = writer.get_extra_info("ssl_object")
        [(_, caller)] = tls.getpeercert()["subjectAltName"]
        writer.write(f"{caller} {tls.selected_alpn_protocol()}\n".encode())
        await writer.drain()
        writer.close()

    address = ground.mesh.hub.address
    await ground.mesh.apply(OUTSIDE.format(address=address), "outside.yaml")
    client = ground.mesh.workloads["client"]
    for account, wanted in (
        ("legacy", f"spiffe://{DOMAIN}/ns/default/sa/client istio"),
        ("intruder", ""),
    ):
        listening = ground.mesh.hub.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, 7443))
        async with await asyncio.start_server(answer, sock=listening, ssl=context_for(account)):
            assert await client.who_answers("10.96.1.9", 80) == wanted
    assert set(seen) == {"outbound_.80_._.legacy.example"}
    await ground.mesh.control.delete("outside.yaml")
