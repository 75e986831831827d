"""Documents of SPIFFE bundle endpoints (C-R-6)."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from certificates import NOW, PEM, make_ca
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from key_pairs import pair

from pilothouse.api.root_certificates import BadRoots
from pilothouse.certs.spiffe_bundle import MOST_ROOTS, read_bundle

ROOTS = [make_ca(name, NOW)[0] for name in ("one", "two")]
LEAF = x509.load_pem_x509_certificate(pair().chain)


def key(*certificates: x509.Certificate, use: str = "x509-svid") -> dict[str, Any]:
    chain = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in certificates]
    return {"use": use, "kty": "EC", "x5c": chain}


def test_roots_and_how_long_they_hold() -> None:
    """Entries for JWTs are passed over; a root that is there twice is one."""
    document = {
        "spiffe_sequence": 3,
        "spiffe_refresh_hint": 600,
        "keys": [*map(key, ROOTS), key(ROOTS[0]), {"use": "jwt-svid", "kty": "EC"}],
    }
    found = read_bundle(document)
    assert found.roots_pem == b"".join(each.public_bytes(PEM) for each in ROOTS)
    assert found.refresh == timedelta(minutes=10)


@pytest.mark.parametrize("hint", [None, 0, -1, "600", 1.5, 10**30])
def test_an_odd_hint_is_none(hint: object) -> None:
    """What is no time does not spoil the roots."""
    found = read_bundle({"keys": [key(ROOTS[0])], "spiffe_refresh_hint": hint})
    assert found.refresh is None


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"use": "jwt-svid"}],
        [key()],
        [key(*ROOTS)],
        [key(ROOTS[0]), key(LEAF)],
        [key(ROOTS[0]), {"use": "x509-svid", "x5c": ["!"]}],
        [key(ROOTS[0]), {"use": "x509-svid", "x5c": [base64.b64encode(b"x").decode()]}],
        [key(ROOTS[0])] * (MOST_ROOTS + 1),
        {"use": "x509-svid"},
    ],
    ids=[
        "none", "only for JWTs", "no certificate", "two in one", "a leaf", "no base64", "no DER",
        "too many", "no list",
    ],
)  # fmt: skip
def test_a_document_is_taken_whole_or_not(keys: Any) -> None:
    """As in Istio; what was fetched before then stays."""
    with pytest.raises(BadRoots):
        read_bundle({"keys": keys})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("use", "x5c", "keys", "kty")), inner, max_size=3)
    ),
)


@settings(deadline=None)
@given(document=st.dictionaries(st.sampled_from(("keys", "spiffe_refresh_hint")), json_values))
def test_whatever_answers_there_is_refused_or_read(document: dict[str, Any]) -> None:
    """No document of a stranger's does anything else."""
    try:
        read_bundle(document)
    except BadRoots:
        return
    raise AssertionError("there was no root in it")
