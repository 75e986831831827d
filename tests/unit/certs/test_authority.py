"""What an authority issues, checked with independent verifiers: cryptography's and spiffe's."""

import itertools
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import ALICE, NOW, csr, make_chain, verifier
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from spiffe import X509Bundle, X509Svid

from pilothouse.certs.authority import Authority, LocalIssuer
from pilothouse.certs.issued import DEFAULT_TTL, LONGEST_TTL, KeyAlgorithm, KeyPair
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.refusals import SignerEnded, TtlRefused
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.server_tls import ServingCertificate
from pilothouse.errors import InvalidConfig
from pilothouse.model.identity import WorkloadIdentity

AUTHORITY = Authority.create("cluster.local", NOW)


def leaf_of(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.chain.leaf_pem)


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048])
def test_workload_certificate_is_an_svid(algorithm: KeyAlgorithm) -> None:
    """C-S-1..4, X509-SVID: one critical URI name, no subject, both uses, a day, not a CA."""
    pair = AUTHORITY.issue_workload(ALICE, NOW, algorithm=algorithm)
    leaf = leaf_of(pair)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [x509.UniformResourceIdentifier(str(ALICE))]
    assert leaf.subject == x509.Name([])
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert usage.key_encipherment is (algorithm is KeyAlgorithm.RSA_2048)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc == NOW + DEFAULT_TTL == pair.not_after
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=2) == pair.chain.not_before
    assert f"{leaf.serial_number:x}" == pair.chain.serial
    verified = verifier(AUTHORITY.root_pem, NOW).build_client_verifier().verify(leaf, [])
    assert [str(name.value) for name in verified.subjects or ()] == [str(ALICE)]


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048])
def test_spiffe_library_takes_it(algorithm: KeyAlgorithm) -> None:
    """The SPIFFE project's own reading: SVID rules, key match, and the bundle."""
    now = datetime.now(UTC)
    authority = Authority.create("cluster.local", now)
    pair = authority.issue_workload(ALICE, now, algorithm=algorithm)
    svid = X509Svid.parse(pair.certificate_pem, pair.key_pem)
    assert str(svid.spiffe_id) == str(ALICE)
    assert svid.leaf.public_key() == svid.private_key.public_key()
    bundle = X509Bundle.parse(svid.spiffe_id.trust_domain, pair.chain.roots_pem)
    assert svid.leaf.issuer in {root.subject for root in bundle.x509_authorities}


def test_openssl_verifies_a_chain_with_intermediates(tmp_path: Path) -> None:
    """C-W-3: leaf, intermediates upwards, roots last; OpenSSL finds the way for both purposes."""
    now = datetime.now(UTC)
    pair = Authority(make_chain(now, intermediates=2)).issue_workload(ALICE, now)
    assert len(pair.chain.elements) == 4
    assert all(element.endswith(b"\n") for element in pair.chain.elements)
    for name, content in (
        ("roots", pair.chain.roots_pem),
        ("between", b"".join(pair.chain.intermediates_pem)),
        ("leaf", pair.chain.leaf_pem),
    ):
        (tmp_path / name).write_bytes(content)
    for purpose in ("sslclient", "sslserver"):
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "roots",
             "-untrusted", "between", "leaf"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout == "leaf: OK\n", done.stderr
    path = [x509.load_pem_x509_certificate(each) for each in pair.chain.elements[:-1]]
    for below, above in itertools.pairwise(path):
        below.verify_directly_issued_by(above)


def test_server_certificate_verifies_for_its_names() -> None:
    """C-R-12: DNS names and addresses, and only as a server."""
    pair = AUTHORITY.issue_server(["istiod.istio-system.svc", "127.0.0.1"], NOW)
    leaf = leaf_of(pair)
    builder = verifier(AUTHORITY.root_pem, NOW)
    builder.build_server_verifier(x509.DNSName("istiod.istio-system.svc")).verify(leaf, [])
    with pytest.raises(verification.VerificationError):
        builder.build_client_verifier().verify(leaf, [])


def test_another_root_does_not_verify() -> None:
    """A certificate of another root with the same name is worth nothing."""
    leaf = leaf_of(AUTHORITY.issue_workload(ALICE, NOW))
    other = Authority.create("cluster.local", NOW)
    with pytest.raises(verification.VerificationError):
        verifier(other.root_pem, NOW).build_client_verifier().verify(leaf, [])


@given(st.timedeltas(timedelta(days=-1), timedelta(days=4_000)), st.integers(0, 3_649))
def test_no_leaf_outlives_its_signer(ttl: timedelta, age_days: int) -> None:
    """C-S-4, C-S-5: whatever is asked for, whenever: within the policy and the signer's life."""
    now = NOW + timedelta(days=age_days)
    if ttl > LONGEST_TTL:
        with pytest.raises(TtlRefused):
            AUTHORITY.issue_workload(ALICE, now, lifetime=ttl)
        return
    pair = AUTHORITY.issue_workload(ALICE, now, lifetime=ttl)
    wanted = ttl if ttl > timedelta(0) else DEFAULT_TTL
    assert pair.not_after == min(now + wanted, AUTHORITY.not_after).replace(microsecond=0)


def test_leaf_ends_before_an_intermediate_that_ends_early() -> None:
    """C-S-4: the first certificate of the chain to end bounds the leaf, not only the signer."""
    authority = Authority(make_chain(NOW, intermediates=2, upper_lifetime=timedelta(hours=5)))
    assert authority.issue_workload(ALICE, NOW).not_after == NOW + timedelta(hours=5)


@pytest.mark.parametrize("moment", [timedelta(days=3_650), timedelta(days=-1)], ids=str)
def test_ended_or_future_signer_refuses(moment: timedelta) -> None:
    """C-S-4: who is not valid signs nothing."""
    with pytest.raises(SignerEnded):
        AUTHORITY.issue_workload(ALICE, NOW + moment)


def test_serials_are_unique() -> None:
    """C-S-2/3: random serial numbers of at least 128 bits."""
    serials = {AUTHORITY.issue_workload(ALICE, NOW).chain.serial for _ in range(100)}
    assert len(serials) == 100
    assert max(int(serial, 16) for serial in serials).bit_length() > 128


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65_537, 2_048),
    ],
    ids=["p256", "p384", "rsa2048"],
)
def test_request_is_signed_for_its_key(key: ec.EllipticCurvePrivateKey) -> None:
    """C-S-7: the kinds of keys that agents make."""
    chain = AUTHORITY.sign_csr(csr(key), ALICE, NOW)
    leaf = x509.load_pem_x509_certificate(chain.leaf_pem)
    assert leaf.public_key() == key.public_key()
    verified = verifier(AUTHORITY.root_pem, NOW).build_client_verifier().verify(leaf, [])
    assert [str(name.value) for name in verified.subjects or ()] == [str(ALICE)]


def test_common_name_is_the_identity_and_only_on_request() -> None:
    """C-S-2/3: dual use takes the caller's name, never the one in the request."""
    short = WorkloadIdentity("td", "ns", "a")
    asked = csr(common_name="admin")
    chain = AUTHORITY.sign_csr(asked, short, NOW)
    leaf = x509.load_pem_x509_certificate(chain.leaf_pem)
    common_names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [each.value for each in common_names] == [str(short)]
    long = WorkloadIdentity("cluster.local", "a-namespace-with-a-long-name", "an-account-as-long")
    leaf = x509.load_pem_x509_certificate(AUTHORITY.sign_csr(asked, long, NOW).leaf_pem)
    assert leaf.subject == x509.Name([])


def test_root_of_another_kind_signs() -> None:
    """RSA on request; P-384 signs with SHA-384."""
    for algorithm in (KeyAlgorithm.RSA_2048, KeyAlgorithm.ECDSA_P384):
        authority = Authority(make_root("cluster.local", NOW, algorithm))
        leaf = leaf_of(authority.issue_workload(ALICE, NOW))
        verifier(authority.root_pem, NOW).build_client_verifier().verify(leaf, [])


def test_policy_must_make_sense() -> None:
    with pytest.raises(InvalidConfig, match="must be positive and not longer"):
        IssuingPolicy(default_ttl=timedelta(days=91))
    with pytest.raises(InvalidConfig):
        IssuingPolicy(default_ttl=timedelta(0))


def test_keys_are_never_shown() -> None:
    """Neither an authority's nor a leaf's key is in a repr."""
    material = make_root("cluster.local", NOW)
    pair = Authority(material).issue_workload(ALICE, NOW)
    shown = f"{AUTHORITY!r} {pair!r} {material!r} {pair.chain!r}"
    assert "PRIVATE" not in shown
    for pem in (pair.key_pem, material.key_pem):
        body = pem.decode().splitlines()[1]
        assert body not in shown
    key = serialization.load_pem_private_key(pair.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)


async def test_server_certificate_is_renewed_at_half_its_life() -> None:
    """C-R-12: the port's certificate never gets near its end, and follows the authority."""
    now = NOW
    serving = ServingCertificate(LocalIssuer(AUTHORITY, lambda: now), ["localhost"], lambda: now)
    first = await serving.certificate()
    now = NOW + DEFAULT_TTL * 0.4
    assert await serving.certificate() is first
    now = NOW + DEFAULT_TTL * 0.6
    second = await serving.certificate()
    assert second.not_after == now + DEFAULT_TTL
    serving.forget()
    assert await serving.certificate() != second
