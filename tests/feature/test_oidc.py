"""Tokens of an OIDC issuer, checked against a real little one (C-A-2)."""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt as jose
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from pilothouse.certs.callers import Caller, CredentialRefused, Credentials
from pilothouse.certs.oidc import UNKNOWN_KEY_SECONDS, OidcAuthenticator
from pilothouse.certs.oidc_fetch import MAX_BYTES, FetchFailed, fetch_json, may_connect
from pilothouse.certs.oidc_issuers import IdentityClaims, InvalidIssuers, Issuer, read_issuers

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RSA, EC = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
SERVICE_ACCOUNT = "system:serviceaccount:payments:ledger"
_LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


class Provider:
    """An issuer of tokens on loopback, which may be told to misbehave."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Key] = {"rsa": RSA, "ec": EC}
        self.fetches = 0
        self.discovery: dict[str, Any] = {}
        self.answer: Callable[[], web.StreamResponse] | None = None

    def token(self, key_id: str = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
        """Return a token signed with one of its keys."""
        all_claims = {
            "iss": self.url, "aud": "istio-ca", "sub": SERVICE_ACCOUNT,
            "iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 600, **claims,
        }  # fmt: skip
        header = {"alg": algorithm, **({"kid": key_id} if key_id else {})}
        key = self.keys[key_id or "rsa"]
        return jose.encode(header, all_claims, key, algorithms=[algorithm])

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery}
        )

    async def _keys(self, _request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        if self.answer is not None:
            return self.answer()
        listed = [{**key.as_dict(private=False), "kid": name} for name, key in self.keys.items()]
        return web.json_response({"keys": listed})

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        return app


@asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    """Run a provider on a free port."""
    provider = Provider()
    runner = web.AppRunner(provider.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as running:
        yield running


class Known:
    """An authenticator of one issuer, with clocks that a test moves."""

    def __init__(self, provider: Provider, **options: Any) -> None:
        options = {"issuer": provider.url, "audiences": ("istio-ca",), **options}
        issuer = Issuer(**options)
        assert issuer.problem() == ""
        self.seconds = 1_000.0
        self.fetched: list[bool] = []
        self._known = OidcAuthenticator(
            [issuer],
            trust_domain=lambda: "cluster.local",
            wall_clock=lambda: NOW,
            clock=lambda: self.seconds,
            fetched=self.fetched.append,
        )

    async def ask(self, token: str) -> Caller | None:
        return await self._known.authenticate(Credentials(address="x", tokens=(token,)))

    async def refusal(self, token: str) -> str:
        with pytest.raises(CredentialRefused) as caught:
            await self.ask(token)
        assert token not in str(caught.value)
        return caught.value.detail


@pytest.mark.parametrize(
    ("key_id", "algorithm"),
    [("rsa", "RS256"), ("rsa", "PS256"), ("rsa", "RS512"), ("ec", "ES256"), ("", "RS256")],
)
async def test_a_service_account(provider: Provider, key_id: str, algorithm: str) -> None:
    """By discovery; RSA and ECDSA; with a key id and without."""
    known = Known(provider)
    caller = await known.ask(provider.token(key_id, algorithm))
    assert caller is not None
    assert str(caller.identity) == "spiffe://cluster.local/ns/payments/sa/ledger"
    assert caller.ends_at is not None
    assert (caller.ends_at - NOW).total_seconds() == 600
    assert caller.credential.startswith("oidc:")
    await known.ask(provider.token(key_id, algorithm))
    assert known.fetched == [True]


async def test_keys_by_address_and_in_the_file(provider: Provider) -> None:
    """No discovery document is needed where the operator names the keys."""
    assert await Known(provider, jwks_uri=f"{provider.url}/keys").ask(provider.token())
    keys = json.dumps({"keys": [RSA.as_dict(private=False)]})
    known = Known(provider, jwks=keys)
    fetches = provider.fetches
    assert await known.ask(provider.token(""))
    assert provider.fetches == fetches
    assert await known.refusal(provider.token("ec", "ES256"))


async def test_claims_of_other_issuers(provider: Provider) -> None:
    """Okta, Auth0, Keycloak: claims, or a table of subjects, name the workload."""
    by_claims = Known(provider, claims=IdentityClaims(namespace="ns", service_account="azp"))
    caller = await by_claims.ask(provider.token(sub="whoever", ns="payments", azp="ledger"))
    assert caller is not None
    assert caller.identity.service_account == "ledger"
    assert "not a text" in await by_claims.refusal(provider.token(ns=["payments"], azp="ledger"))
    assert "malformed" in await by_claims.refusal(provider.token(ns="a/../b", azp="ledger"))
    by_subject = Known(provider, subjects={"mT9k@clients": "payments/ledger"})
    assert await by_subject.ask(provider.token(sub="mT9k@clients"))
    assert "subjects" in await by_subject.refusal(provider.token())


async def test_what_is_wrong_with_a_token(provider: Provider) -> None:
    """Audience, times, subject: each refused, none of them fetching keys for nothing."""
    known = Known(provider)
    now = int(NOW.timestamp())
    assert "audience" in await known.refusal(provider.token(aud=["other"]))
    assert "audience" in await known.refusal(provider.token(aud=[]))
    assert "has ended" in await known.refusal(provider.token(exp=now - 61))
    assert "when it ends" in await known.refusal(provider.token(exp=None))
    assert "not a time" in await known.refusal(provider.token(exp="tomorrow"))
    assert "not a time" in await known.refusal(provider.token(exp=1e300))
    assert "audience" in await known.refusal(provider.token(exp=_LAST_SECOND, aud=["other"]))
    assert "begins later" in await known.refusal(provider.token(nbf=now + 61))
    assert provider.fetches == 0
    assert await known.ask(provider.token(exp=now - 59, aud=["a", "istio-ca"], nbf=now + 59))
    for subject in ("alice", "system:serviceaccount:a", "system:serviceaccount:a:b:c", 7, None):
        why = await known.refusal(provider.token(sub=subject))
        assert "subject" in why or "malformed" in why
    assert await known.ask(provider.token(iss="https://other.example")) is None


async def test_forged_tokens(provider: Provider) -> None:
    """Keys of others, symmetric signatures, none at all, small keys."""
    known = Known(provider)
    claims = {"iss": provider.url, "aud": "istio-ca", "sub": SERVICE_ACCOUNT,
              "exp": int(NOW.timestamp()) + 600}  # fmt: skip
    stranger = ECKey.generate_key("P-256")
    assert "signature" in await known.refusal(
        jose.encode({"alg": "ES256", "kid": "ec"}, claims, stranger)
    )
    assert "signature" in await known.refusal(
        jose.encode({"alg": "ES256", "kid": "rsa"}, claims, stranger)
    )
    secret = OctKey.generate_key(256)
    provider.keys = {**provider.keys, "shared": secret}
    known.seconds += UNKNOWN_KEY_SECONDS
    assert await known.refusal(
        jose.encode({"alg": "HS256", "kid": "shared"}, claims, secret, algorithms=["HS256"])
    )
    with warnings.catch_warnings(category=SecurityWarning, action="ignore"):
        provider.keys = {**provider.keys, "small": RSAKey.generate_key(1024)}
        token = provider.token("small")
    known.seconds += UNKNOWN_KEY_SECONDS
    assert "no such key" in await known.refusal(token)


async def test_keys_are_rotated(provider: Provider) -> None:
    """An unknown key id has the keys fetched at once, but strangers cannot have it done often."""
    known = Known(provider)
    assert await known.ask(provider.token())
    provider.keys = {**provider.keys, "new": ECKey.generate_key("P-256")}
    fresh = provider.token("new", "ES256")
    assert "no such key" in await known.refusal(fresh)
    assert provider.fetches == 1
    known.seconds += UNKNOWN_KEY_SECONDS
    results = await asyncio.gather(*(known.ask(fresh) for _ in range(20)))
    assert all(results)
    assert provider.fetches == 2
    del provider.keys["rsa"]
    stale = provider.token("ec", "ES256")
    for number in range(50):
        with pytest.raises(CredentialRefused):
            await known.ask(jose.encode({"alg": "ES256", "kid": f"k{number}"}, {
                "iss": provider.url, "aud": "istio-ca", "exp": NOW.timestamp() + 60,
            }, EC))  # fmt: skip
    assert provider.fetches == 2
    assert await known.ask(stale)


async def test_an_issuer_that_is_away(provider: Provider) -> None:
    """Its last keys are good for a day, then nobody is known by it; it is not asked too often."""
    known = Known(provider)
    token = provider.token()
    assert await known.ask(token)
    provider.answer = lambda: web.Response(status=503)
    known.seconds += 80_000
    assert await known.ask(token)
    assert await known.ask(token)
    assert known.fetched == [True, False]
    known.seconds += 10_000
    assert "cannot be had" in await known.refusal(token)
    provider.answer = None
    known.seconds += UNKNOWN_KEY_SECONDS
    assert await known.ask(token)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="no json"),
        lambda: web.Response(text="[" * 100_000),
        lambda: web.json_response([]),
        lambda: web.json_response({"keys": "none"}),
        lambda: web.json_response({"keys": [7, {"kty": "oct", "k": "AA"}, {"kty": "RSA"}, {}]}),
        lambda: web.Response(body=b" " * (MAX_BYTES + 1)),
        lambda: web.HTTPFound("http://127.0.0.1:1/keys"),
        lambda: web.Response(status=404),
    ],
    ids=["text", "deep", "list", "no list", "odd keys", "large", "redirect", "404"],
)
async def test_odd_answers(provider: Provider, answer: Callable[[], web.Response]) -> None:
    """Whatever an issuer answers, its tokens are refused and nothing breaks."""
    provider.answer = answer
    assert await Known(provider).refusal(provider.token())


async def test_discovery_leads_to_its_own_kind_of_place_only(provider: Provider) -> None:
    """Neither another issuer's document nor a metadata service is believed or asked."""
    provider.discovery = {"issuer": "https://other.example"}
    assert await Known(provider).refusal(provider.token())
    for uri in ("http://169.254.169.254/latest", "https://169.254.169.254/", "file:///etc/passwd",
                "https://[fe80::1]/", "gopher://x", "", 7):  # fmt: skip
        provider.discovery = {"jwks_uri": uri}
        assert await Known(provider).refusal(provider.token())
    assert provider.fetches == 0


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "2002:a9fe:a9fe::1", "0.0.0.0", "::",
     "224.0.0.1", "100.100.100.200", "fd00:ec2::254", "127.0.0.1", "::1", "x"],
)  # fmt: skip
def test_addresses_that_issuers_may_not_be_at(address: str) -> None:
    assert not may_connect(address, to_loopback=False)


def test_addresses_that_they_may_be_at() -> None:
    """A Keycloak in the same network is the usual case; loopback if the operator said so."""
    for address in ("10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800::1"):
        assert may_connect(address, to_loopback=False)
    assert may_connect("127.0.0.1", to_loopback=True)
    assert not may_connect("169.254.169.254", to_loopback=True)


async def test_a_name_that_resolves_to_this_machine(provider: Provider) -> None:
    """The address is looked at, not the name: a name of somebody else's may lead anywhere."""
    port = provider.url.rpartition(":")[2]
    with pytest.raises(FetchFailed, match="did not name"):
        await fetch_json(f"http://localhost:{port}/keys", to_loopback=False)
    with pytest.raises(FetchFailed):
        await fetch_json(f"https://ip6-localhost:{port}/keys", to_loopback=False)
    assert provider.fetches == 0
    assert await fetch_json(f"http://localhost:{port}/keys", to_loopback=True)


def test_the_file_of_issuers(tmp_path: Path) -> None:
    """A list or one; Istio's names; what is wrong is said in a sentence."""
    file = tmp_path / "issuers.yaml"
    file.write_text("issuer: https://a.example\naudiences: [istio-ca]\n")
    (one,) = read_issuers(file)
    assert one.keys_from == "https://a.example"
    file.write_text(
        "- {issuer: https://a.example, audiences: [x], jwksUri: 'https://a.example/keys'}\n"
        "- {issuer: b, audiences: [x], jwks: '{}', claims: {namespace: n, serviceAccount: s}}\n"
    )
    assert len(read_issuers(file)) == 2
    for text, why in (
        ("issuer: http://a.example\naudiences: [x]", "must begin with https://"),
        ("issuer: https://a.example", "audiences"),
        ("issuer: https://a.example\naudiences: []", "audiences"),
        ("issuer: https://u:p@a.example\naudiences: [x]", "password"),
        ("{issuer: https://a, audiences: [x], jwks: a, jwksUri: b}", "give one"),
        ("[{issuer: https://a, audiences: [x]}, {issuer: https://a, audiences: [y]}]", "twice"),
        ("{issuer: https://a, audiences: [x], jwks_uri: b}", "unknown field"),
        ("[", "cannot be used"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidIssuers, match=why) as caught:
            read_issuers(file)
        assert "\n" not in str(caught.value) or text == "["
    with pytest.raises(InvalidIssuers, match=r"[Nn]o such file"):
        read_issuers(tmp_path / "none")
