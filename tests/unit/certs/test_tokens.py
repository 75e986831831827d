"""Tokens of our own: bound to a workload, expiring, revocable; nothing else gets in by one."""

import base64
import hmac
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as jose
from joserfc.jwk import ECKey

from pilothouse.certs.callers import Caller, CredentialRefused, Credentials
from pilothouse.certs.token_callers import TokenAuthenticator
from pilothouse.certs.tokens import (
    KEY_FILE,
    REGISTER_FILE,
    BadTokens,
    InvalidToken,
    TokenStore,
)
from pilothouse.model.identity import WorkloadIdentity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALICE = WorkloadIdentity("cluster.local", "default", "alice")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ca"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(directory: Path, clock: Clock) -> TokenAuthenticator:
    return TokenAuthenticator(directory, clock, lambda: {"cluster.local", "old.example"})


async def ask(known: TokenAuthenticator, *tokens: str) -> Caller | None:
    """Ask who presents these tokens."""
    return await known.authenticate(Credentials(address="10.0.0.9:1", tokens=tokens))


async def refusal(known: TokenAuthenticator, token: str) -> str:
    """Return why a token is refused."""
    with pytest.raises(CredentialRefused) as caught:
        await ask(known, token)
    assert token not in str(caught.value)
    return caught.value.detail


async def test_a_token_is_its_workload(directory: Path, known: TokenAuthenticator) -> None:
    """The identity comes from the credential; its end and id come along (issue 4)."""
    assert await ask(known) is None
    token, record = TokenStore(directory).create(ALICE, NOW, ttl=timedelta(hours=1))
    caller = await ask(known, "not.a.jwt", token)
    assert caller is not None
    assert caller.identity == ALICE
    assert caller.credential == f"token:{record.id}"
    assert caller.ends_at == NOW + timedelta(hours=1)


async def test_a_token_expires(directory: Path, known: TokenAuthenticator, clock: Clock) -> None:
    """To the second: there is one clock, the server's."""
    token, record = TokenStore(directory).create(ALICE, NOW, ttl=timedelta(minutes=1))
    clock.now = NOW + timedelta(seconds=59)
    assert await ask(known, token)
    assert not known.is_void(f"token:{record.id}")
    clock.now = NOW + timedelta(seconds=60)
    assert "expired" in await refusal(known, token)
    assert known.is_void(f"token:{record.id}")


async def test_a_token_is_revoked(directory: Path, known: TokenAuthenticator) -> None:
    """By id, at once, and only that one."""
    store = TokenStore(directory)
    token, record = store.create(ALICE, NOW)
    other, _ = store.create(ALICE, NOW)
    assert await ask(known, token)
    assert store.revoke(record.id, NOW).state(NOW) == "revoked"
    assert store.revoke(record.id, NOW) == store.records()[0]
    assert "revoked" in await refusal(known, token)
    assert known.is_void(f"token:{record.id}")
    assert not known.is_void("certificate:1")
    changes = known.look()
    assert known.look() == changes
    store.revoke(record.id, NOW)
    assert known.look() == changes
    store.create(ALICE, NOW)
    assert known.look() == changes + 1
    assert await ask(known, other)
    with pytest.raises(InvalidToken, match="no token 'nope'"):
        store.revoke("nope", NOW)


@pytest.mark.parametrize("lost", [KEY_FILE, REGISTER_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{]", b'{"tokens": 3}'])
async def test_lost_and_damaged_files_let_nobody_in(
    directory: Path, known: TokenAuthenticator, lost: str, content: bytes | None
) -> None:
    """Fail closed: a revocation must not be undone by losing a file."""
    token, record = TokenStore(directory).create(ALICE, NOW)
    assert await ask(known, token)
    if content is None:
        (directory / lost).unlink()
    else:
        (directory / lost).write_bytes(content)
        with pytest.raises(BadTokens):
            TokenStore(directory).create(ALICE, NOW)
    await refusal(known, token)
    assert known.is_void(f"token:{record.id}") == (lost == REGISTER_FILE or content is not None)


async def test_a_wrong_audience_and_a_foreign_trust_domain(
    directory: Path, known: TokenAuthenticator
) -> None:
    """What is meant for others is refused; an alias of the mesh is not (C-S-8)."""
    store = TokenStore(directory)
    token, _ = store.create(ALICE, NOW, audience="somewhere-else")
    assert await refusal(known, token) == "it is for another audience"
    token, _ = store.create(WorkloadIdentity("foreign.example", "default", "alice"), NOW)
    assert "not one of this mesh" in await refusal(known, token)
    token, _ = store.create(WorkloadIdentity("old.example", "default", "alice"), NOW)
    assert await ask(known, token)


async def test_forged_tokens(directory: Path, known: TokenAuthenticator) -> None:
    """Neither another key, nor no signature, nor the public key as a secret, nor other claims."""
    token, _ = TokenStore(directory).create(ALICE, NOW)
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    own = ECKey.import_key((directory / KEY_FILE).read_bytes())
    other = ECKey.generate_key("P-256")
    to_sign = f"{encoded({'alg': 'HS256'})}.{payload}"
    mac = hmac.digest(own.as_pem(private=False), to_sign.encode(), "sha256")
    forged = {
        "another key": jose.encode({"alg": "ES256"}, claims, other),
        "none": f"{encoded({'alg': 'none'})}.{payload}.",
        "public key as secret": f"{to_sign}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}",
        "other claims": f"{header}.{encoded({**claims, 'sub': 'system:serviceaccount:a:b'})}."
        + signature,
        "extension": f"{encoded({'alg': 'ES256', 'crit': ['exp']})}.{payload}.{signature}",
        "cut": token[:-10],
        "key in header": jose.encode(
            {"alg": "ES256", "jwk": other.as_dict(private=False)}, claims, other
        ),
    }
    for how, text in forged.items():
        assert await refusal(known, text), how
    signed_for_another = jose.encode({"alg": "ES256"}, {**claims, "sub": "x"}, own)
    assert await refusal(known, signed_for_another)
    assert await refusal(known, jose.encode({"alg": "ES256"}, {**claims, "jti": "x"}, own))
    assert await refusal(known, jose.encode({"alg": "ES256"}, {**claims, "exp": None}, own))


def encoded(value: object) -> str:
    """Return a part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
async def test_garbage_is_no_token(text: str) -> None:
    """Whatever is sent, the answer is nobody or a refusal."""
    known = TokenAuthenticator(Path("/nonexistent"), Clock(), set)
    issued_by_us = f"{encoded({'alg': 'ES256'})}.{encoded({'iss': 'pilothouse'})}.{text}"
    for token in (text, f"{text}.{text}.{text}", f"{encoded({})}.{text}.x", issued_by_us):
        try:
            assert await ask(known, token) is None
        except CredentialRefused:
            assert token == issued_by_us


async def test_deep_and_large_tokens() -> None:
    """Neither recursion nor size gets anywhere."""
    known = TokenAuthenticator(Path("/nonexistent"), Clock(), set)
    deep = base64.urlsafe_b64encode(b"[" * 8_000).decode().rstrip("=")
    assert await ask(known, f"{deep}.{deep}.x") is None
    assert await ask(known, f"{encoded({})}.{'a' * 1_000_000}.x") is None


def test_files_are_their_owners_alone(directory: Path) -> None:
    """The directory is made 0700, files 0600; a directory open to others is refused."""
    TokenStore(directory).create(ALICE, NOW)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    directory.chmod(0o755)
    with pytest.raises(BadTokens, match="chmod 700"):
        TokenStore(directory).create(ALICE, NOW)


def test_the_token_itself_is_kept_nowhere(directory: Path) -> None:
    """The register names tokens; it holds none."""
    token, record = TokenStore(directory).create(ALICE, NOW)
    assert record.id in (directory / REGISTER_FILE).read_text()
    for file in directory.iterdir():
        assert token.encode() not in file.read_bytes()
        assert token.rpartition(".")[2].encode() not in file.read_bytes()


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(days=-1), timedelta(days=400)])
def test_lifetimes_are_bounded(directory: Path, ttl: timedelta) -> None:
    with pytest.raises(InvalidToken):
        TokenStore(directory).create(ALICE, NOW, ttl=ttl)


def test_long_ended_tokens_leave_the_register(directory: Path) -> None:
    """The register does not grow for ever."""
    store = TokenStore(directory)
    store.create(ALICE, NOW, ttl=timedelta(hours=1))
    store.create(ALICE, NOW + timedelta(days=29))
    assert len(store.records()) == 2
    store.create(ALICE, NOW + timedelta(days=40))
    assert len(store.records()) == 2
