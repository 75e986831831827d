"""The watch for secrets would find them."""

from datetime import UTC, datetime
from pathlib import Path

from certificates import ALICE
from secret_watch import SecretWatch

from pilothouse.certs.authority import Authority
from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.tokens import TokenStore


def test_it_finds_what_it_looks_for(tmp_path: Path) -> None:
    """Unknown keys and tokens by their looks, known ones by any part; other text is left alone."""
    now = datetime.now(UTC)
    token, _ = TokenStore(tmp_path / "ca").create(ALICE, now)
    authority = Authority.create("cluster.local", now)
    for algorithm in (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048):
        pair = authority.issue_workload(ALICE, now, algorithm=algorithm)
        inside = b"".join(pair.key_pem.splitlines()[1:-1])
        assert list(SecretWatch().seen_in(pair.key_pem))
        assert list(SecretWatch().seen_in(b"x" + inside))
        assert list(SecretWatch([pair.key_pem]).seen_in(pair.key_pem.splitlines()[2]))
        assert not list(SecretWatch([pair.key_pem]).seen_in(pair.certificate_pem))
    assert list(SecretWatch().seen_in(f"refused Bearer {token}"))
    assert list(SecretWatch([token]).seen_in(token.rpartition(".")[2]))
    assert not list(SecretWatch([token]).seen_in("eyJ.a.b and 10.0.0.1, request authenticate"))
    (tmp_path / "log").write_text(token)
    assert set(SecretWatch([token]).seen_under(tmp_path, "token-key.pem")) == {
        str(tmp_path / "log")
    }
