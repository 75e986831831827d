"""What a signing request may not be (C-S-1, C-S-2/3, C-S-6, C-S-7)."""

import pytest
from certificates import ALICE, KEY, NOW, PEM, csr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.certs.authority import Authority
from pilothouse.certs.csr import MAX_CSR_BYTES, read_csr
from pilothouse.certs.refusals import CsrProblem, CsrRefused, RefusalCode

URI = x509.UniformResourceIdentifier
OWN = URI(str(ALICE))
BOB = URI("spiffe://cluster.local/ns/default/sa/bob")


def refused(request: bytes, *aliases: str) -> CsrRefused:
    with pytest.raises(CsrRefused) as caught:
        read_csr(request, ALICE, aliases)
    assert caught.value.code is RefusalCode.CSR
    return caught.value


@pytest.mark.parametrize("names", [[], [OWN], [OWN, OWN]], ids=["none", "own", "twice"])
def test_own_name_or_none(names: list[x509.GeneralName]) -> None:
    """A request repeats the caller's identity, as istio-agent's do, or has no names."""
    assert read_csr(csr(names=names), ALICE).public_key == KEY.public_key()


@pytest.mark.parametrize(
    "name",
    [
        BOB,
        URI("spiffe://cluster.local/ns/other/sa/alice"),
        URI("spiffe://other.domain/ns/default/sa/alice"),
        URI("spiffe://cluster.local/ns/default/sa/alice/more"),
        URI("https://example.com"),
        x509.DNSName("alice.default.svc"),
        x509.RFC822Name("alice@example.com"),
        x509.DirectoryName(x509.Name([])),
    ],
    ids=lambda name: str(name.value)[:40],
)
@pytest.mark.parametrize("beside", [[], [OWN]], ids=["alone", "beside its own"])
def test_foreign_name(name: x509.GeneralName, beside: list[x509.GeneralName]) -> None:
    """Who asks to be somebody else is told no, and what was asked."""
    error = refused(csr(names=[*beside, name]))
    assert error.problem is CsrProblem.FOREIGN_NAME
    assert str(ALICE) in str(error)


def test_trust_domain_alias_is_own() -> None:
    """A workload configured before the trust domain's name changed is still itself (C-S-8)."""
    old = csr(names=[URI("spiffe://old.example/ns/default/sa/alice")])
    read_csr(old, ALICE, ["old.example"])
    assert refused(old, "other.example").problem is CsrProblem.FOREIGN_NAME
    stranger = csr(names=[URI("spiffe://old.example/ns/default/sa/bob")])
    assert refused(stranger, "old.example").problem is CsrProblem.FOREIGN_NAME


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65_537, 1_024),
        rsa.generate_private_key(3, 2_048),
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa1024", "rsa exponent 3", "p224", "k256", "p521", "ed25519"],
)
def test_weak_or_strange_key(key: ec.EllipticCurvePrivateKey) -> None:
    assert refused(csr(key)).problem is CsrProblem.WEAK_KEY


def test_signature_of_another_key() -> None:
    """The request proves that the caller has the key."""
    der = bytearray(x509.load_pem_x509_csr(csr()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(PEM)
    assert refused(forged).problem is CsrProblem.BAD_SIGNATURE


def test_weak_hash() -> None:
    weak = csr(hash_algorithm=hashes.SHA224())
    assert refused(weak).problem is CsrProblem.BAD_SIGNATURE


def test_asking_to_be_an_authority() -> None:
    request = csr(KEY, (), "", None, x509.BasicConstraints(ca=True, path_length=None))
    assert refused(request).problem is CsrProblem.ASKS_FOR_CA


@pytest.mark.parametrize(
    "request_pem",
    [
        b"",
        b"nonsense",
        csr() + csr(),
        csr()[:-40],
        csr().replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"),
        b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
    ],
    ids=["empty", "text", "two", "cut", "another label", "empty sequence"],
)
def test_malformed(request_pem: bytes) -> None:
    assert refused(request_pem).problem is CsrProblem.MALFORMED


def test_too_large() -> None:
    """Size is looked at before anything is parsed."""
    error = refused(csr() + b"\n" * MAX_CSR_BYTES)
    assert error.problem is CsrProblem.TOO_LARGE


def test_errors_quote_nothing_unbounded_or_unprintable() -> None:
    name = URI("spiffe://x/" + "a" * 5_000)
    assert len(str(refused(csr(names=[name])))) < 400


DER = x509.load_pem_x509_csr(csr(names=[OWN])).public_bytes(serialization.Encoding.DER)
AUTHORITY = Authority.create("cluster.local", NOW)


@given(st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), max_size=8))
def test_damaged_requests_are_refused_or_certify_their_key_for_the_caller(
    damage: list[tuple[int, int]],
) -> None:
    """C-S-1: whatever a request holds, the only name that comes out is the caller's."""
    damaged = bytearray(DER)
    for place, value in damage:
        damaged[place] = value
    import base64  # noqa: PLC0415

    body = base64.encodebytes(bytes(damaged))
    request = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    )
    try:
        chain = AUTHORITY.sign_csr(request, ALICE, NOW)
    except CsrRefused:
        assert bytes(damaged) != DER
        return
    leaf = x509.load_pem_x509_certificate(chain.leaf_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [OWN]
