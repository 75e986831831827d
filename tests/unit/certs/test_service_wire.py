"""Bytes of the certificate service as Istio's agents write them (security.md C-W-2, C-W-4)."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from certificates import ALICE, NOW, csr, make_chain
from cryptography import x509

from pilothouse._pb.google.protobuf.struct_pb2 import Struct
from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.authority import Authority, LocalIssuer
from pilothouse.certs.callers import Caller, How
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.refusals import Refusal
from pilothouse.certs.service import METHOD, SERVICE, CertificateService

AUTHORITY = Authority(make_chain(NOW, intermediates=0))


class Silent:
    """An observer who does nothing."""

    def requested(self) -> None:
        pass

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        pass

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        pass


async def alice(_context: object) -> Caller:
    return Caller(identity=ALICE, how=How.TOKEN)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    service = CertificateService(LocalIssuer(AUTHORITY, lambda: NOW), alice, Silent())
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(0)


def field(number: int, content: bytes | int) -> bytes:
    """Write a field of a message by hand."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


async def asked(channel: grpc.aio.Channel, data: bytes) -> x509.Certificate:
    answer = await channel.unary_unary(f"/{SERVICE}/{METHOD}")(data)
    leaf = ca_pb2.IstioCertificateResponse.FromString(answer).cert_chain[0]
    return x509.load_pem_x509_certificate(leaf.encode())


async def test_fields_have_istios_numbers(channel: grpc.aio.Channel) -> None:
    """C-W-2: the request is 1, the lifetime in seconds 3, hints 4; what was 2 is passed over."""
    hints = Struct()
    hints.update({"WorkloadName": "alice-1", "WorkloadIPs": ["10.0.0.1"]})
    data = field(1, csr()) + field(3, 3_600) + field(4, hints.SerializeToString())
    leaf = await asked(channel, field(2, b"node agent") + data + field(99, b"of a later version"))
    assert (leaf.not_valid_after_utc - NOW).total_seconds() == 3_600
    answer = await channel.unary_unary(f"/{SERVICE}/{METHOD}")(data)
    assert answer[0] == 1 << 3 | 2, "the chain is field 1 of the answer"


@pytest.mark.parametrize(
    ("hint", "code"),
    [
        ("CertSigner", grpc.StatusCode.OK),
        ("WorkloadName", grpc.StatusCode.OK),
        ("ImpersonatedIdentity", grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_hints(channel: grpc.aio.Channel, hint: str, code: grpc.StatusCode) -> None:
    """C-W-4, C-A-9: whom a signer or workload is named after changes nothing; nobody is another."""
    request = ca_pb2.IstioCertificateRequest(csr=csr().decode())
    request.metadata.update({hint: "spiffe://cluster.local/ns/default/sa/bob"})
    call = channel.unary_unary(f"/{SERVICE}/{METHOD}")(request.SerializeToString())
    assert await call.code() is code
    if code is grpc.StatusCode.OK:
        leaf = await asked(channel, request.SerializeToString())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(ALICE)]
