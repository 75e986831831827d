"""
The table of mutual TLS as a TLS library sees it: client kind x server mode x port kind.

No proxy is at the client's side, so each cell is what an OpenSSL client with a SPIFFE certificate,
without one, or without TLS meets at a workload of the mesh (security.md 1.3).
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import isolation
import pytest
import pytest_asyncio
from cryptography import x509
from live_mesh import HTTP_PORT, TCP_PORT, TLS_PORT
from mutual_mesh import ADDRESSES, DOMAIN, GRPC_PORTS, VIPS, Ground, mutual_mesh

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mutual_tls_table"),
    pytest.mark.timeout(180),
]


class Kind(NamedTuple):
    """A client: whether it speaks TLS, with a certificate of the mesh, and what it offers."""

    is_tls: bool = True
    has_certificate: bool = True
    alpn: tuple[str, ...] = ()


HTTP1: Final = Kind(alpn=("istio-http/1.1", "istio", "http/1.1"))
HTTP2: Final = Kind(alpn=("istio-h2", "istio", "h2"))
TCP: Final = Kind(alpn=("istio",))
BARE: Final = Kind()
"""A certificate of the mesh, and nothing said of what is inside."""
NOBODY: Final = Kind(has_certificate=False, alpn=("istio-http/1.1", "istio"))
OWN_TLS: Final = Kind(has_certificate=False)
"""What an application's own TLS looks like."""
PLAIN: Final = Kind(is_tls=False)

H2_PORT: Final = GRPC_PORTS[0]
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_GET: Final = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_LINE: Final = b"who are you?\n"
"""Longer than what begins a TLS record: who looks for one waits until it can tell."""
SAID: Final = {HTTP_PORT: _GET, H2_PORT: _PREFACE, TCP_PORT: _LINE, TLS_PORT: _LINE}

MUTUAL, SERVED, APP, NOT = "mutual", "plain", "the application's", ""
Cells = dict[tuple[int, Kind], str]

# What holds for ports that say what they are, and for those that are told by their first bytes.
STRICT: Final[Cells] = {
    (HTTP_PORT, HTTP1): MUTUAL, (HTTP_PORT, BARE): MUTUAL, (HTTP_PORT, NOBODY): NOT,
    (HTTP_PORT, OWN_TLS): NOT, (HTTP_PORT, PLAIN): NOT,
    (H2_PORT, HTTP2): MUTUAL, (H2_PORT, BARE): MUTUAL, (H2_PORT, OWN_TLS): NOT,
    (H2_PORT, PLAIN): NOT,
    (TCP_PORT, TCP): MUTUAL, (TCP_PORT, BARE): MUTUAL, (TCP_PORT, NOBODY): NOT,
    (TCP_PORT, OWN_TLS): NOT, (TCP_PORT, PLAIN): NOT,
    (TLS_PORT, TCP): MUTUAL, (TLS_PORT, BARE): MUTUAL, (TLS_PORT, NOBODY): NOT,
    (TLS_PORT, OWN_TLS): NOT, (TLS_PORT, PLAIN): NOT,
}  # fmt: skip
PERMISSIVE: Final[Cells] = {
    (HTTP_PORT, HTTP1): MUTUAL, (HTTP_PORT, NOBODY): NOT, (HTTP_PORT, OWN_TLS): NOT,
    (HTTP_PORT, PLAIN): SERVED,
    (H2_PORT, HTTP2): MUTUAL, (H2_PORT, NOBODY): NOT, (H2_PORT, PLAIN): SERVED,
    (TCP_PORT, TCP): MUTUAL, (TCP_PORT, NOBODY): NOT, (TCP_PORT, PLAIN): SERVED,
    (TLS_PORT, TCP): MUTUAL, (TLS_PORT, NOBODY): NOT, (TLS_PORT, BARE): APP,
    (TLS_PORT, OWN_TLS): APP,
}  # fmt: skip
DISABLE: Final[Cells] = {
    (HTTP_PORT, HTTP1): NOT, (HTTP_PORT, OWN_TLS): NOT, (HTTP_PORT, PLAIN): SERVED,
    (H2_PORT, HTTP2): NOT, (H2_PORT, PLAIN): SERVED,
    (TCP_PORT, PLAIN): SERVED,
    (TLS_PORT, TCP): APP, (TLS_PORT, BARE): APP, (TLS_PORT, OWN_TLS): APP,
}  # fmt: skip
MODES: Final = {"STRICT": STRICT, "PERMISSIVE": PERMISSIVE, "DISABLE": DISABLE}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """The mesh of this file."""
    async with mutual_mesh(tmp_path_factory.mktemp("m"), delta=True) as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", VIPS)
async def test_what_each_client_meets(ground: Ground, service: str, mode: str) -> None:
    """S-PA-4 to S-PA-8, S-PA-10: mutual TLS, plain text, the application's own TLS, or nothing."""
    await ground.apply_mode(mode)
    cells = MODES[mode]
    met = {cell: await meets(ground, service, *cell) for cell in cells}
    assert met == cells


async def meets(ground: Ground, service: str, port: int, kind: Kind) -> str:
    """Connect as a client of a kind, say what fits the port, and return what it was."""
    raw = ground.mesh.hub.socket(socket.AF_INET, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10):
            await loop.sock_connect(raw, (ADDRESSES[service], port))
            reader, writer = await asyncio.open_connection(
                sock=raw,
                ssl=_context(ground, kind) if kind.is_tls else None,
                server_hostname="fixed.example" if kind.is_tls else None,
            )
            try:
                writer.write(SAID[port])
                answered = await _is_answered(reader, service, port)
                whose = _shown_by(writer, service) if kind.is_tls else SERVED
            finally:
                writer.transport.abort()
    except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        raw.close()
        return NOT
    if port == TLS_PORT and whose == MUTUAL:
        # The bytes within are for the application's TLS, which they are not: it hangs up.
        return MUTUAL
    return whose if answered else NOT


async def _is_answered(reader: asyncio.StreamReader, service: str, port: int) -> bool:
    answer = await reader.read(4_096)
    if port == HTTP_PORT:
        return answer.startswith(b"HTTP/1.1 200")
    if port == H2_PORT:
        return answer[3:4] == b"\x04"  # a SETTINGS frame
    return answer == f"{service}\n".encode()


def _context(ground: Ground, kind: Kind) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who it is, is looked at afterwards
    if kind.has_certificate:
        shown = ground.certificate("outsider")
        pem = ground.folder / "table.pem"
        pem.write_bytes(shown.key_pem + shown.certificate_pem)
        context.load_cert_chain(pem)
    if kind.alpn:
        context.set_alpn_protocols(list(kind.alpn))
    return context


def _shown_by(writer: asyncio.StreamWriter, service: str) -> str:
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return APP
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"spiffe://{DOMAIN}/ns/default/sa/{service}"]
    return MUTUAL
