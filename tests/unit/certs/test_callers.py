"""The chain of authenticators, and what is read from headers and certificates."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from certificates import ALICE, NOW, PEM, make_ca
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pilothouse.certs.callers import (
    OPAQUE,
    Caller,
    Callers,
    CertificateAuthenticator,
    ClientCertificate,
    CredentialRefused,
    Credentials,
    How,
    NotAuthenticated,
    bearer_tokens,
    cluster_name,
    refuse_everybody,
)
from pilothouse.certs.client_certificates import ClientCertificates
from pilothouse.certs.front.peers import CallerFinder, Peer, Peers


class Seen:
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.recognised_: list[Caller] = []
        self.reasons: list[str] = []

    def recognised(self, caller: Caller, credentials: Credentials) -> None:
        self.recognised_.append(caller)

    def unknown(self, credentials: Credentials, reasons: Sequence[str]) -> None:
        self.reasons.extend(reasons)


class Says:
    """An authenticator that knows what it is told to."""

    def __init__(self, how: How, answer: Caller | str | None) -> None:
        self.how = how
        self._answer = answer

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        if isinstance(self._answer, str):
            raise CredentialRefused(self._answer)
        return self._answer


class Stumbles:
    """An authenticator with a fault, whose text quotes what it was given."""

    how = How.OIDC

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        raise OverflowError(credentials.tokens)


A = Caller(identity=ALICE, how=How.TOKEN)
B = Caller(identity=ALICE, how=How.OIDC)
NOTHING = Credentials(address="10.0.0.9:1")
DOMAINS = {ALICE.trust_domain}


async def test_the_first_success_wins() -> None:
    """C-A-6: a refusal by one does not keep the next from knowing."""
    seen = Seen()
    chain = [Says(How.CERTIFICATE, None), Says(How.TOKEN, "bad"), Says(How.OIDC, B), Says(
        How.KUBERNETES, A
    )]  # fmt: skip
    assert await Callers(chain, seen).authenticate(NOTHING) is B
    assert seen.recognised_ == [B]
    assert seen.reasons == []


async def test_all_fail() -> None:
    """C-A-6: the caller is told nothing, the observer why."""
    seen = Seen()
    chain = [Says(How.CERTIFICATE, None), Says(How.TOKEN, "it has ended")]
    with pytest.raises(NotAuthenticated) as caught:
        await Callers(chain, seen).authenticate(NOTHING)
    assert str(caught.value) == OPAQUE == "request authenticate failure"
    assert seen.reasons == ["token: it has ended"]
    seen = Seen()
    with pytest.raises(NotAuthenticated):
        await Callers([], seen).authenticate(NOTHING)
    assert seen.reasons == ["no usable credential was presented"]


async def test_a_fault_of_an_authenticator_lets_nobody_in() -> None:
    """C-A-6: what it stumbles over is refused like the rest, and not quoted in a log."""
    seen = Seen()
    odd = Credentials(address="x", tokens=("sesame",))
    with pytest.raises(NotAuthenticated):
        await Callers([Stumbles()], seen).authenticate(odd)
    assert seen.reasons == ["oidc: it cannot be read (OverflowError)"]
    assert await Callers([Stumbles(), Says(How.TOKEN, A)], Seen()).authenticate(odd) is A


async def test_a_certificate_ends_while_its_connection_lives() -> None:
    """C-A-1; a connection may outlive what it was opened with."""
    known = CertificateAuthenticator(lambda: NOW, lambda: DOMAINS)
    for ends_in, is_known in ((1, True), (0, False)):
        certificate = ClientCertificate(
            identity=ALICE, serial="ab", ends_at=NOW + timedelta(seconds=ends_in)
        )
        credentials = Credentials(address="x", certificate=certificate)
        if is_known:
            caller = await known.authenticate(credentials)
            assert caller is not None
            assert caller.credential == "certificate:ab"
        else:
            with pytest.raises(CredentialRefused, match="has ended"):
                await known.authenticate(credentials)
    assert await known.authenticate(NOTHING) is None


async def test_who_comes_by_an_alias_is_known_by_the_trust_domain() -> None:
    """C-S-8: so that certificates are of the new trust domain once they are renewed."""
    domains = ["new.example", "cluster.local"]
    known = CertificateAuthenticator(lambda: NOW, lambda: domains)
    certificate = ClientCertificate(identity=ALICE, serial="ab", ends_at=NOW + timedelta(seconds=1))
    seen = Seen()
    callers = Callers([known], seen, lambda: domains[0])
    found = await callers.authenticate(Credentials(address="x", certificate=certificate))
    assert found.identity == replace(ALICE, trust_domain="new.example")
    assert found.credential == "certificate:ab"
    domains.remove("cluster.local")
    with pytest.raises(NotAuthenticated):
        await callers.authenticate(Credentials(address="x", certificate=certificate))


async def test_a_trust_domain_is_given_up_while_a_connection_lives() -> None:
    """C-R-13: what is no alias any more has no say, however long ago it came in."""
    domains = {"cluster.local"}
    known = CertificateAuthenticator(lambda: NOW, lambda: domains)
    certificate = ClientCertificate(identity=ALICE, serial="ab", ends_at=NOW + timedelta(seconds=1))
    credentials = Credentials(address="x", certificate=certificate)
    assert await known.authenticate(credentials)
    domains.clear()
    with pytest.raises(CredentialRefused, match="not one of this mesh any more"):
        await known.authenticate(credentials)


def test_bearer_tokens() -> None:
    """C-W-5: two schemes, any case; nothing else; never shown."""
    headers = [
        ("authorization", "Bearer a.b.c"),
        ("authorization", "istio d.e.f"),
        ("authorization", "Basic dXNlcjpwYXNz"),
        ("authorization", "Bearer " + "x" * 20_000),
        ("x-other", "Bearer g.h.i"),
        ("authorization-bin", b"Bearer j"),
        ("clusterid", "east"),
    ]
    assert bearer_tokens(headers) == ("a.b.c", "d.e.f")
    assert cluster_name(headers) == "east"
    assert bearer_tokens(None) == ()
    assert "a.b.c" not in repr(Credentials(address="x", tokens=("a.b.c",)))


class Context:
    """A gRPC call."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("authorization", "Bearer a.b.c")]


async def test_a_call_that_came_round_the_front_is_nobodys() -> None:
    """Fail closed: only connections that the front told of have credentials."""
    peers = Peers()
    find = CallerFinder(peers, Callers([Says(How.TOKEN, A)], Seen()))
    peers.add(Peer(name="0a", address="10.0.0.9:1", certificate=None, opened_at=1.0))
    assert list(peers.strangers(opened_before=2.0)) == ["0a"]
    assert await find(Context("unix-abstract:0a")) is A
    assert list(peers.strangers(opened_before=2.0)) == []
    assert peers.address("unix-abstract:0a") == "10.0.0.9:1"
    peers.discard("0a")
    for peer in ("unix-abstract:0a", "unix:", "unix:/x", "ipv4:127.0.0.1:1", ""):
        with pytest.raises(NotAuthenticated):
            await find(Context(peer))


async def test_the_plaintext_port_knows_nobody() -> None:
    """C-A-7: a token is not looked at there."""
    with pytest.raises(NotAuthenticated):
        await refuse_everybody(Context("ipv4:127.0.0.1:1"))


# -- verified certificates ----------------------------------------------------------------------


def leaf(*names: x509.GeneralName, is_authority: bool = False) -> bytes:
    """Return a certificate with those names, DER; who signed it does not matter here."""
    certificate, key = make_ca("Root", NOW)
    own = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(certificate.subject)
        .public_key(own.public_key())
        .serial_number(0xABC)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    made = builder.sign(key, hashes.SHA256())
    assert made.public_bytes(PEM)
    return made.public_bytes(PEM.DER)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def test_a_workloads_certificate() -> None:
    """C-R-13: one URI name of a known trust domain; names of other kinds do not count."""
    read = ClientCertificates(lambda: {"cluster.local"}).read
    found = read(leaf(uri(str(ALICE)), x509.DNSName("bob.example")))
    assert found.identity == ALICE
    assert found.serial == "abc"
    assert found.ends_at == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("der", "why"),
    [
        (leaf(), "0 URI names"),
        (leaf(x509.DNSName("istiod.istio-system.svc")), "0 URI names"),
        (leaf(uri(str(ALICE)), uri(str(ALICE))), "2 URI names"),
        (leaf(uri("spiffe://cluster.local/x")), "not an identity"),
        (leaf(uri("https://alice.example")), "not an identity"),
        (leaf(uri("spiffe://foreign.example/ns/a/sa/b")), "not one of this mesh"),
        (leaf(uri(str(ALICE)), is_authority=True), "authority"),
        (b"garbage", "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=itertools.count(),
)
def test_no_single_identity_is_nobody(der: bytes, why: str) -> None:
    """C-R-13: fail closed."""
    with pytest.raises(CredentialRefused, match=why):
        ClientCertificates(lambda: {"cluster.local"}).read(der)
