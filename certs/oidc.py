"""
Recognising callers by tokens of issuers that the operator trusts (OIDC, security.md C-A-2).

Keys are fetched when first needed and again from time to time; a token signed with a key that is
not known has them fetched at once, but not more often than every half minute, whatever strangers
send. While an issuer cannot be reached its last keys are good for a day.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from pilothouse.certs import jwt
from pilothouse.certs.callers import Caller, CredentialRefused, Credentials, How
from pilothouse.certs.oidc_fetch import FetchFailed, fetch_json
from pilothouse.certs.oidc_issuers import Issuer, is_loopback, url_problem

REFRESH_SECONDS: Final = 1_200.0
UNKNOWN_KEY_SECONDS: Final = 30.0
STALE_SECONDS: Final = 86_400.0
_MAX_KEYS: Final = 100
_MOST_TRIED: Final = 10
"""Keys tried for a token that does not say which it is signed with."""
_SMALLEST_RSA_BITS: Final = 2_048
_BITS_PER_CHARACTER: Final = 6  # base64
_DISCOVERY: Final = "/.well-known/openid-configuration"
_KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})
"""Never ``oct``: a shared secret would let everybody who can check a token make one."""

log = structlog.get_logger()

Fetched = Callable[[bool], None]
"""Told of each fetch whether it succeeded, for metrics."""


class IssuerKeys:
    """The public keys of one issuer."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float], fetched: Fetched) -> None:
        """`clock` is seconds that never go back."""
        self._issuer = issuer
        self._clock = clock
        self._fetched = fetched
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._got_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def candidates(self, key_id: str) -> Sequence[Key]:
        """
        Return the keys a token may be signed with; all of them if it names none.

        Raises: CredentialRefused: There are none, or the issuer cannot be reached.
        """
        is_coming = self._lock.locked() and key_id not in self._keys
        if is_coming or self._needs_fetch(key_id):
            async with self._lock:  # who waited here finds it done
                if self._needs_fetch(key_id):
                    await self._fetch()
        if not self._issuer.jwks and self._clock() - self._got_at > STALE_SECONDS:
            raise CredentialRefused(f"the keys of {self._issuer.issuer} cannot be had")
        found = (
            self._keys.get(key_id, ())
            if key_id
            else [key for keys in self._keys.values() for key in keys][:_MOST_TRIED]
        )
        if not found:
            raise CredentialRefused(f"{self._issuer.issuer} has no such key")
        return found

    def _needs_fetch(self, key_id: str) -> bool:
        now = self._clock()
        if self._issuer.jwks:
            return self._got_at == float("-inf")
        if now - self._tried_at < UNKNOWN_KEY_SECONDS:
            return False
        is_unknown = bool(key_id) and key_id not in self._keys
        return is_unknown or not self._keys or now - self._got_at > REFRESH_SECONDS

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            document = await self._document()
        except FetchFailed as failure:
            self._fetched(False)
            log.warning("callers.keys_not_fetched", issuer=self._issuer.issuer, reason=str(failure))
            return
        self._fetched(True)
        self._keys = read_keys(document)
        self._got_at = self._clock()

    async def _document(self) -> Mapping[str, Any]:
        issuer = self._issuer
        if issuer.jwks:
            return _decoded(issuer.jwks)
        to_loopback = is_loopback(urlsplit(issuer.keys_from).hostname or "")
        uri = issuer.jwks_uri
        if not uri:
            found = await fetch_json(
                issuer.issuer.rstrip("/") + _DISCOVERY, to_loopback=to_loopback
            )
            if found.get("issuer") != issuer.issuer:
                raise FetchFailed("its discovery document is another issuer's")
            uri = str(found.get("jwks_uri", ""))
            if problem := url_problem(uri):
                raise FetchFailed(f"its discovery document names no place of keys: {problem}")
        return await fetch_json(uri, to_loopback=to_loopback)


def _decoded(text: str) -> Mapping[str, Any]:
    try:
        decoded = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise FetchFailed("`jwks` is not JSON") from None
    if not isinstance(decoded, dict):
        raise FetchFailed("`jwks` is not a JSON object")
    return decoded


def read_keys(document: Mapping[str, Any]) -> dict[str, tuple[Key, ...]]:
    """Return the public signing keys of a key set by id; what is not one is passed over."""
    listed = document.get("keys")
    found: dict[str, tuple[Key, ...]] = {}
    for each in (listed if isinstance(listed, list) else [])[:_MAX_KEYS]:
        if not isinstance(each, dict) or each.get("kty") not in _KEY_TYPES:
            continue
        if each.get("use", "sig") != "sig" or _is_weak(each):
            continue
        try:
            key = JWKRegistry.import_key(each)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        key_id = each.get("kid")
        name = key_id if isinstance(key_id, str) else ""
        found[name] = (*found.get(name, ()), key)
    return found


def _is_weak(key: Mapping[str, Any]) -> bool:
    modulus = key.get("n")
    return key["kty"] == "RSA" and (
        not isinstance(modulus, str) or len(modulus) * _BITS_PER_CHARACTER < _SMALLEST_RSA_BITS
    )


class OidcAuthenticator:
    """Knows tokens of the issuers that an operator trusts."""

    how: Final = How.OIDC

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        trust_domain: Callable[[], str],
        wall_clock: Callable[[], datetime],
        clock: Callable[[], float],
        fetched: Fetched,
    ) -> None:
        """`trust_domain` is the mesh's, asked anew each time: tokens do not say it."""
        self._issuers = {each.issuer: (each, IssuerKeys(each, clock, fetched)) for each in issuers}
        self._trust_domain = trust_domain
        self._wall_clock = wall_clock

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return whose token was presented, None if it is of no issuer known here."""
        for text in credentials.tokens:
            token = jwt.peek(text)
            found = self._issuers.get(token.issuer) if token is not None else None
            if token is not None and found is not None:
                return await self._caller(token, *found)
        return None

    async def _caller(self, token: jwt.Unverified, issuer: Issuer, keys: IssuerKeys) -> Caller:
        # What costs nothing is checked first; none of it is believed before the signature is.
        ends_at = jwt.check_times(token, self._wall_clock())
        jwt.check_audience(token, issuer.audiences)
        _verify_with_any(token, await keys.candidates(token.key_id))
        return Caller(
            identity=issuer.identity(token.claims, self._trust_domain()),
            how=self.how,
            credential=f"oidc:{sha256(token.text.encode()).hexdigest()[:16]}",
            ends_at=ends_at,
        )


def _verify_with_any(token: jwt.Unverified, keys: Sequence[Key]) -> None:
    refusal = CredentialRefused("its signature is not good")
    for key in keys:
        try:
            jwt.verify(token, key)
        except CredentialRefused as refused:
            refusal = refused
        else:
            return
    raise refusal
