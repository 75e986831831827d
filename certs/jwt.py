"""
Reading bearer tokens (JWTs) before and while they are believed.

What a stranger sends is bounded before it is parsed, and no error quotes it. Signatures are
joserfc's business; which algorithms count is decided here, and that list has neither ``none`` nor
shared secrets in it.
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key

from pilothouse.certs.callers import MAX_TOKEN_CHARACTERS, CredentialRefused
from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity

ALGORITHMS: Final = (
    "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
)  # fmt: skip
SKEW: Final = timedelta(seconds=60)
"""How far the clocks of token issuers may be off."""
_SUBJECT_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True, repr=False)
class Unverified:
    """What a token says of itself; to be believed only after `verify`."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        """Who says to have issued it, "" if nobody."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else ""

    @property
    def key_id(self) -> str:
        """Which key it says to be signed with, "" if it does not."""
        key_id = self.header.get("kid")
        return key_id if isinstance(key_id, str) else ""


def peek(text: str) -> Unverified | None:
    """Read a token without believing it; None if it is not a signed JWT."""
    parts = text.split(".")
    if len(text) > MAX_TOKEN_CHARACTERS or len(parts) != 3 or not text.isascii():
        return None
    header, claims = _json(parts[0]), _json(parts[1])
    return Unverified(text, header, claims) if header is not None and claims is not None else None


def _json(part: str) -> Mapping[str, Any] | None:
    try:
        decoded = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None


def verify(token: Unverified, key: Key, algorithms: Sequence[str] = ALGORITHMS) -> None:
    """
    Check the signature with a key, whose kind must be the algorithm's.

    Raises: CredentialRefused: It is not good.
    """
    algorithm = token.header.get("alg")
    if algorithm not in algorithms:
        raise CredentialRefused("it is signed with an algorithm that is not accepted")
    if "crit" in token.header or "b64" in token.header:
        raise CredentialRefused("its header asks for extensions")
    try:
        jws.deserialize_compact(token.text, key, algorithms=[str(algorithm)])
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise CredentialRefused("its signature is not good") from error


def check_times(token: Unverified, now: datetime, skew: timedelta = SKEW) -> datetime:
    """
    Return when a token ends.

    Raises: CredentialRefused: It has ended, has not begun, or never ends.
    """
    ends_at = _moment(token, "exp")
    if ends_at is None:
        raise CredentialRefused("it does not say when it ends")
    if now - skew >= ends_at:  # added to the other side, the last day of all times overflows
        raise CredentialRefused(f"it has ended, {ends_at:%Y-%m-%d %H:%M:%S} UTC")
    for claim in ("nbf", "iat"):
        begins_at = _moment(token, claim)
        if begins_at is not None and now + skew < begins_at:
            raise CredentialRefused(f"it begins later, {begins_at:%Y-%m-%d %H:%M:%S} UTC")
    return ends_at


def _moment(token: Unverified, claim: str) -> datetime | None:
    value = token.claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialRefused(f"its {claim} is not a time")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise CredentialRefused(f"its {claim} is not a time") from None


def check_audience(token: Unverified, accepted: Sequence[str]) -> None:
    """
    See that a token is meant for one of `accepted`.

    Raises: CredentialRefused: It is for others, or for anybody.
    """
    audience = token.claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or not set(accepted).intersection(
        each for each in named if isinstance(each, str)
    ):
        raise CredentialRefused("it is for another audience")


def subject_identity(subject: object, trust_domain: str) -> WorkloadIdentity:
    """
    Return the identity of ``system:serviceaccount:NAMESPACE:NAME`` (C-A-2).

    Raises: CredentialRefused: It is of another form.
    """
    if isinstance(subject, str) and subject.startswith(_SUBJECT_PREFIX):
        namespace, colon, name = subject.removeprefix(_SUBJECT_PREFIX).partition(":")
        if colon:
            return identity(trust_domain, namespace, name)
    raise CredentialRefused("its subject is not of the form system:serviceaccount:NAMESPACE:NAME")


def identity(trust_domain: str, namespace: str, name: str) -> WorkloadIdentity:
    """Return an identity. Raises: CredentialRefused: A part is malformed."""
    try:
        return WorkloadIdentity(trust_domain, namespace, name)
    except InvalidIdentity:
        raise CredentialRefused("its namespace or service account is malformed") from None
