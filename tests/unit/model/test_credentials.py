"""Names of secrets, and what Secrets hold (security.md D-N, D-C, D-A-3)."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from key_pairs import Pair, key_pem, pair, revocation_list

from pilothouse.api.decode import decode
from pilothouse.api.kubernetes_core import Secret
from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.credentials import (
    CertificateFiles,
    CredentialName,
    CredentialSource,
    RootsFile,
    credential_of,
    invalid,
)
from pilothouse.model.inputs import CLOCK, SECRETS, THE_MESH
from pilothouse.model.issued_certificates import Clock
from pilothouse.model.names import BadName
from pilothouse.model.secret_content import (
    BadCredential,
    CredentialKey,
    has_ended,
    key_material,
    trust_material,
)

REF = ConfigRef("Secret", "shop", "s")
PAIR, OTHER = pair(), pair("other")

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5})?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kubernetes://c", CredentialName(CredentialSource.SECRET, "", "c")),
        ("kubernetes://shop/c", CredentialName(CredentialSource.SECRET, "shop", "c")),
        ("kubernetes://c-cacert", CredentialName(CredentialSource.SECRET, "", "c", True)),
        (
            "kubernetes-gateway://shop/c",
            CredentialName(CredentialSource.GATEWAY_SECRET, "shop", "c"),
        ),
        ("configmap://shop/c", CredentialName(CredentialSource.CONFIG_MAP, "shop", "c", True)),
    ],
)
def test_names_are_read_and_written(text: str, expected: CredentialName) -> None:
    """D-N-1, D-N-2, D-N-3, D-N-7."""
    assert CredentialName.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "default",
        "kubernetes:/c",
        "kubernetes://",
        "kubernetes:///c",
        "kubernetes://a/b/c",
        "kubernetes://shop/",
        "kubernetes://Shop/c",
        "kubernetes://shop/../c",
        "kubernetes://-cacert",
        "kubernetes-gateway://c",
        "configmap://c",
        "invalid://c",
        "builtin://c",
        "sds://c",
        "file-cert:a~b",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """Nobody's secret has two spellings; D-N-5: `invalid://` never resolves; D-N-6: nor `sds://`."""
    with pytest.raises(BadName):
        CredentialName.parse(text)


@given(st.sampled_from(CredentialSource), labels, names, st.booleans())
def test_written_names_are_read_back(
    source: CredentialSource, namespace: str, name: str, is_ca: bool
) -> None:
    is_ca = is_ca or source is CredentialSource.CONFIG_MAP
    made = CredentialName(source, namespace, name, is_ca)
    read = CredentialName.parse(str(made))
    # A secret whose own name ends so cannot be asked for its key: the suffix has its meaning.
    assert read == made or (name.endswith("-cacert") and read.is_ca)


def test_names_of_files_and_what_users_write() -> None:
    """D-A-3; N-65: a bare name is a Secret."""
    assert CertificateFiles.parse("file-cert:/a~/b") == ("/a", "/b")
    assert str(CertificateFiles("/a", "/b")) == "file-cert:/a~/b"
    assert RootsFile.parse(str(RootsFile("/c"))).path == "/c"
    for text in ("file-cert:/a", "file-cert:~/b", "file-cert:a~b~c", "/a~/b"):
        with pytest.raises(BadName):
            CertificateFiles.parse(text)
    assert credential_of("mine").within("shop") == CredentialName.parse("kubernetes://shop/mine")
    assert str(credential_of("mine").for_trust) == "kubernetes://mine-cacert"
    with pytest.raises(BadName):
        credential_of(invalid("mine"))


def test_generic_keys_win_over_tls_keys() -> None:
    """D-C-1."""
    both = {"cert": PAIR.chain, "key": PAIR.key, "tls.crt": OTHER.chain, "tls.key": OTHER.key}
    assert key_material(REF, both).key_pem == PAIR.key
    del both["key"]
    assert key_material(REF, both).key_pem == OTHER.key


def test_trust_has_certificates_and_revocations() -> None:
    """D-C-1, D-C-2: several certificates, and a list of those that no longer count."""
    listed = revocation_list()
    made = trust_material(REF, {"ca.crt": PAIR.chain + OTHER.chain, "ca.crl": listed})
    assert (made.roots_pem, made.crl_pem) == (PAIR.chain + OTHER.chain, listed)
    assert trust_material(REF, {"cacert": PAIR.chain, "ca.crt": b"x"}).roots_pem == PAIR.chain


def test_only_certificates_and_lists_are_shown_of_what_is_public() -> None:
    """
    D-Z-2, D-Z-4: what to trust needs no role, so a key that was pasted beside it stays here.

    Nor is it shown in dumps, which redact keys and not chains.
    """
    pasted = b"# notes: hunter2\n" + PAIR.key + PAIR.chain + OTHER.key + OTHER.chain
    made = trust_material(REF, {"ca.crt": pasted, "ca.crl": revocation_list() + OTHER.key})
    assert made.roots_pem == PAIR.chain + OTHER.chain
    assert b"PRIVATE" not in made.crl_pem
    pair_ = key_material(REF, {"tls.crt": PAIR.chain + PAIR.key, "tls.key": PAIR.key})
    assert pair_.chain_pem == PAIR.chain


def test_each_revocation_list_counts() -> None:
    """One for each authority of a chain; a broken one among them closes."""
    one, two = revocation_list(), revocation_list()
    assert trust_material(REF, {"ca.crt": PAIR.chain, "crl": one + two}).crl_pem == one + two
    broken = one + two.replace(b"M", b"!", 5)
    with pytest.raises(BadCredential):
        trust_material(REF, {"ca.crt": PAIR.chain, "crl": broken})


_RSA = pair("rsa", rsa.generate_private_key(65537, 2048))
_SMALL = pair("small", rsa.generate_private_key(65537, 1024))
_ED = pair("ed", ed25519.Ed25519PrivateKey.generate())
_P384 = pair("p384", ec.generate_private_key(ec.SECP384R1()))


@pytest.mark.parametrize("good", [PAIR, _RSA, _P384])
def test_usual_keys_are_taken(good: Pair) -> None:
    """C-S-7."""
    assert key_material(REF, {"tls.crt": good.chain, "tls.key": good.key}).chain_pem == good.chain


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no certificate with a key"),
        ({"tls.crt": PAIR.chain}, "It holds tls.crt without tls.key"),
        ({"tls.crt": PAIR.chain, "tls.key": b""}, "It holds tls.crt without tls.key"),
        ({"tls.crt": b"x", "tls.key": PAIR.key}, "tls.crt holds no certificates"),
        ({"tls.crt": PAIR.chain, "tls.key": b"x"}, "no unencrypted private key"),
        ({"tls.crt": PAIR.chain, "tls.key": OTHER.key}, "not the key of the certificate"),
        ({"cert": _SMALL.chain, "key": _SMALL.key}, "kind or size"),
        ({"cert": _ED.chain, "key": _ED.key}, "kind or size"),
        (
            {"cert": PAIR.chain, "key": key_pem(ec.generate_private_key(ec.SECP256R1()), b"p")},
            "no unencrypted private key",
        ),
    ],
)
def test_malformed_key_pairs_are_refused_without_quoting_them(
    values: dict[str, bytes], says: str
) -> None:
    """D-C-4."""
    with pytest.raises(BadCredential, match=says) as caught:
        key_material(REF, values)
    assert "BEGIN" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize(
    "values", [{}, {"cacert": b"x"}, {"cacert": PAIR.chain, "crl": b"x"}, {"ca.crt": PAIR.key}]
)
def test_malformed_trust_is_refused(values: dict[str, bytes]) -> None:
    """A broken revocation list closes, for left out it would let in whom it keeps out."""
    with pytest.raises(BadCredential):
        trust_material(REF, values)


def test_a_staple_that_is_none_is_left_out() -> None:
    values = {"tls.crt": PAIR.chain, "tls.key": PAIR.key, "tls.ocsp-staple": b"x"}
    assert key_material(REF, values).staple == b""


def test_an_ended_certificate_is_said_to_have_ended_and_stays() -> None:
    """D-C-4: the time is an input; without it nothing has ended."""
    old = pair(days=1)
    key = CredentialKey("Secret", "shop", "s", is_ca=False)
    row = Secret(
        meta=ObjectMeta(kind="Secret", name="s", namespace="shop"),
        data={"tls.crt": old.chain, "tls.key": old.key},
    )
    graph = Graph()
    graph.commit([(SECRETS, ObjectKey("shop", "s"), row)])
    assert not graph.value(has_ended, key)
    graph.commit([(CLOCK, THE_MESH, Clock(datetime(2001, 1, 1, 12, tzinfo=UTC)))])
    assert not graph.value(has_ended, key)
    graph.commit([(CLOCK, THE_MESH, Clock(datetime(2001, 1, 3, tzinfo=UTC)))])
    assert graph.value(has_ended, key)
    assert [each.code for each in graph.findings()] == ["SecretExpired"]


def _secret(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, **more}


@pytest.mark.parametrize("kind", ["helm.sh/release.v1", "kubernetes.io/service-account-token"])
def test_secrets_that_no_proxy_needs_are_not_held(kind: str) -> None:
    """D-Z-6."""
    decoded = decode(_secret(type=kind, stringData={"token": "x"}))
    assert (decoded.object, decoded.findings, decoded.is_broken) == (None, (), False)
    assert decode(_secret(type="kubernetes.io/tls")).object is not None


def test_what_is_said_of_a_broken_secret_does_not_quote_it() -> None:
    decoded = decode(_secret(data={"tls.key": "hunter2 is no base64"}))
    assert decoded.is_broken
    assert "hunter2" not in repr(decoded)
    decoded = decode(_secret(stringData={"tls.key": "hunter2"}))
    assert "hunter2" not in repr(decoded)
    decoded = decode(_secret(stringData={"tls.key": ["hunter2"]}, data={"a": 71077345}))
    assert decoded.is_broken
    assert "hunter2" not in repr(decoded)
    assert "71077345" not in repr(decoded)
