"""The certificate service over real gRPC: Istio's wire, codes and texts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from certificates import ALICE, NOW, csr, make_chain, verifier
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.authority import Authority, LocalIssuer
from pilothouse.certs.callers import Caller, How, NotAuthenticated
from pilothouse.certs.gate import Gate
from pilothouse.certs.issued import DEFAULT_TTL, IssuedChain
from pilothouse.certs.issuer import Issuer
from pilothouse.certs.precedence import Precedence, RightOfWay
from pilothouse.certs.refusals import Refusal, SigningFailed
from pilothouse.certs.service import METHOD, SERVICE, AuthenticateContext, CertificateService
from pilothouse.model.identity import WorkloadIdentity

AUTHORITY = Authority(make_chain(NOW, intermediates=1))
BOB = x509.UniformResourceIdentifier("spiffe://cluster.local/ns/default/sa/bob")


@dataclass
class Told:
    """What an observer was told."""

    requested_count: int = 0
    issued_to: list[WorkloadIdentity] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def requested(self) -> None:
        self.requested_count += 1

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        assert chain.leaf_pem
        self.issued_to.append(caller.identity)

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        assert caller is None or caller.identity == ALICE
        self.refusals.append(refusal)


async def authenticate(context: grpc.aio.ServicerContext[bytes, bytes]) -> Caller:
    """Know who has alice's token."""
    metadata = dict(context.invocation_metadata() or ())
    if metadata.get("authorization") != "Bearer alice":
        raise NotAuthenticated
    return Caller(identity=ALICE, how=How.TOKEN)


@dataclass
class Client:
    channel: grpc.aio.Channel
    told: Told

    async def raw(self, data: bytes, token: str = "alice") -> bytes:
        call = self.channel.unary_unary(f"/{SERVICE}/{METHOD}")
        return await call(data, metadata=(("authorization", f"Bearer {token}"),), timeout=20)

    async def create(
        self,
        request_pem: bytes | None = None,
        *,
        token: str = "alice",
        seconds: int = 0,
        **hints: str,
    ) -> list[str]:
        request = ca_pb2.IstioCertificateRequest(
            csr=(csr() if request_pem is None else request_pem).decode(), validity_duration=seconds
        )
        request.metadata.update(hints)
        answer = await self.raw(request.SerializeToString(), token)
        return list(ca_pb2.IstioCertificateResponse.FromString(answer).cert_chain)


@asynccontextmanager
async def serving(
    issuer: Issuer | None = None,
    gate: Gate | None = None,
    look: AuthenticateContext = authenticate,
) -> AsyncIterator[Client]:
    told = Told()
    service = CertificateService(issuer or LocalIssuer(AUTHORITY, lambda: NOW), look, told, gate)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel, told)
    await server.stop(0)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving() as made:
        yield made


async def refusal_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), caught.value.details() or ""


async def test_chain_has_leaf_intermediates_and_roots(client: Client) -> None:
    """C-W-1..3: leaf, each intermediate, the root bundle last; each ends with a newline."""
    chain = await client.create()
    assert len(chain) == 3
    assert all(element.endswith("-----END CERTIFICATE-----\n") for element in chain)
    leaf, intermediate, root = (x509.load_pem_x509_certificate(each.encode()) for each in chain)
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    made = verifier(chain[-1].encode(), NOW).build_client_verifier().verify(leaf, [intermediate])
    assert [str(name.value) for name in made.subjects or ()] == [str(ALICE)]
    assert client.told.issued_to == [ALICE]
    assert client.told.requested_count == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3_600, timedelta(hours=1)), (0, DEFAULT_TTL), (-5, DEFAULT_TTL), (-(2**63), DEFAULT_TTL)],
)
async def test_lifetime(client: Client, seconds: int, expected: timedelta) -> None:
    """C-S-5: as asked for, or the default."""
    chain = await client.create(seconds=seconds)
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    assert leaf.not_valid_after_utc == NOW + expected


@pytest.mark.parametrize("seconds", [90 * 86_400 + 1, 2**63 - 1])
async def test_lifetime_too_long(client: Client, seconds: int) -> None:
    """C-S-5, C-S-6."""
    code, text = await refusal_of(client.create(seconds=seconds))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("CSR signing error (the requested lifetime")


async def test_stranger(client: Client) -> None:
    """C-A-6: the caller is told nothing but that it failed."""
    assert await refusal_of(client.create(token="mallory")) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "request authenticate failure",
    )
    assert client.told.issued_to == []


async def test_strangers_message_is_not_read(client: Client) -> None:
    """A refused call ends before its large message has been taken."""
    code, _ = await refusal_of(client.raw(b"x" * (15 << 20), token="mallory"))
    assert code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("request_pem", "text"),
    [
        (b"nonsense", "not exactly one PEM block"),
        (csr(names=[BOB]), "but the caller is spiffe://cluster.local/ns/default/sa/alice"),
        (csr(rsa.generate_private_key(65_537, 1_024)), "RSA keys need 2048"),
    ],
    ids=["malformed", "foreign name", "weak key"],
)
async def test_bad_request(client: Client, request_pem: bytes, text: str) -> None:
    """C-S-6: InvalidArgument, Istio's prefix, and the reason; told to the observer."""
    code, details = await refusal_of(client.create(request_pem))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("CSR signing error (")
    assert text in details
    assert [str(each) for each in client.told.refusals] == [
        details[len("CSR signing error (") : -1]
    ]


@pytest.mark.parametrize("data", [b"\xff\xff", b"x" * 70_000], ids=["garbage", "large"])
async def test_bad_message(client: Client, data: bytes) -> None:
    assert (await refusal_of(client.raw(data)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_impersonation(client: Client) -> None:
    """C-A-9: nobody may ask in another's name."""
    assert await refusal_of(client.create(ImpersonatedIdentity=str(BOB.value))) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "request impersonation authentication failure",
    )
    assert await client.create(WorkloadName="web", CertSigner="") != []


class Broken(LocalIssuer):
    async def sign(self, *_: object) -> IssuedChain:
        raise SigningFailed("the signing process died")


async def test_broken_authority() -> None:
    """C-S-6: Internal, so that agents try again (G-9)."""
    async with serving(Broken(AUTHORITY, lambda: NOW)) as client:
        assert await refusal_of(client.create()) == (
            grpc.StatusCode.INTERNAL,
            "CSR signing error (the signing process died)",
        )


class Slow(LocalIssuer):
    """Signs when told to; counts how many it works on."""

    def __init__(self) -> None:
        super().__init__(AUTHORITY, lambda: NOW)
        self.may_go_on = asyncio.Event()
        self.at_once = 0

    async def sign(
        self, csr_pem: bytes, identity: WorkloadIdentity, ttl: timedelta | None = None
    ) -> IssuedChain:
        self.at_once += 1
        await self.may_go_on.wait()
        return await super().sign(csr_pem, identity, ttl)


async def test_a_storm_is_let_in_by_turns() -> None:
    """Few are worked on, some wait, the rest are told to come again."""
    issuer = Slow()
    # Three wait for their turn and as many to go in, whatever time gRPC takes in between.
    gate = Gate(at_once=2, max_waiting=3, interval_seconds=0)
    async with serving(issuer, gate) as client:
        asked = [asyncio.create_task(client.create()) for _ in range(20)]
        for refused in asyncio.as_completed(asked):
            code, text = await refusal_of(refused)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "try again later" in text
            if sum(each.done() for each in asked) >= 20 - (2 + 3 + 3):
                break
        assert issuer.at_once == 2
        issuer.may_go_on.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, list) for each in results) >= 2 + 3
    refused_count = sum(isinstance(each, grpc.aio.AioRpcError) for each in results)
    assert len(client.told.refusals) == refused_count


async def test_strangers_wait_for_their_turn_too() -> None:
    """To find out that nobody knows a caller costs as much as to sign; so that waits in line."""
    looked_at = 0

    async def look(context: grpc.aio.ServicerContext[bytes, bytes]) -> Caller:
        nonlocal looked_at
        looked_at += 1
        return await authenticate(context)

    precedence = Precedence(RightOfWay(longest_seconds=3_600))
    precedence.begin()
    async with serving(gate=Gate(precedence=precedence), look=look) as client:
        asked = [asyncio.create_task(client.create(token="no")) for _ in range(5)]
        while client.told.requested_count < 5:  # noqa: ASYNC110 (the service has no event for it)
            await asyncio.sleep(0.001)
        assert looked_at == 0
        precedence.end()
        for each in asked:
            assert (await refusal_of(each))[0] == grpc.StatusCode.UNAUTHENTICATED
    assert looked_at == 5
