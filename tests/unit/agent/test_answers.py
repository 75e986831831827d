"""Answers of an authority as the agent takes them (security.md C-W-3)."""

from datetime import UTC, datetime

import pytest

from pilothouse.agent.identity import BadAnswer, HeldIdentity
from pilothouse.agent.keys import KeyKind, SigningRequest
from pilothouse.certs.authority import Authority
from pilothouse.model.identity import WorkloadIdentity

WEB = WorkloadIdentity("cluster.local", "shop", "web")


@pytest.mark.parametrize("kind", [KeyKind.ECDSA_P256, KeyKind.RSA_2048])
def test_an_answer_for_another_key_is_none(kind: KeyKind) -> None:
    """C-W-3: Envoy would refuse it, and the agent believe that all is well until it renews."""
    now = datetime.now(UTC)
    asked, other = SigningRequest(kind), SigningRequest(kind)
    chain = Authority.create("cluster.local", now).sign_csr(asked.csr_pem, WEB, now)
    elements = tuple(each.decode() for each in chain.elements)
    assert HeldIdentity.read(elements, asked.key_pem, now).identity == WEB
    with pytest.raises(BadAnswer, match="another key"):
        HeldIdentity.read(elements, other.key_pem, now)
