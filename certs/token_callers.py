"""
Recognising callers by tokens of our own.

Files are read again when they have changed, so that a token made or revoked on the command line
counts at once. A mesh that starts anew presents thousands of tokens in a second, and each again a
little later: so signatures are checked without a library for all kinds of tokens, and tokens that
were good are remembered, by their hash, while the files stay the same.
"""

import binascii
import os
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from pilothouse.certs import jwt
from pilothouse.certs.callers import Caller, CredentialRefused, Credentials, How
from pilothouse.certs.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    KEY_FILE,
    REGISTER_FILE,
    BadTokens,
    TokenRecord,
    read_key,
    read_register,
)
from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity

PREFIX: Final = "token:"
_Stamp = tuple[tuple[int, int, int] | None, ...]
_ES256: Final = ec.ECDSA(hashes.SHA256())
_HALF_BYTES: Final = 32
_MAX_REMEMBERED: Final = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Good:
    """Whose a token is, and until when by its own word."""

    caller: Caller
    record: TokenRecord
    ends_at: datetime


class TokenAuthenticator:
    """Knows the tokens of one directory."""

    how: Final = How.TOKEN

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], datetime],
        trust_domains: Callable[[], Collection[str]],
        audience: str = AUDIENCE,
    ) -> None:
        """
        Read the key and the register in `directory`, which need not be there yet.

        `trust_domains` are the mesh's, asked anew each time.
        """
        self._directory = directory
        self._clock = clock
        self._trust_domains = trust_domains
        self._audience = audience
        self._stamp: _Stamp | None = None
        self._changes = 0
        self._key: ec.EllipticCurvePublicKey | None = None
        self._records: dict[str, TokenRecord] = {}
        self._good: dict[bytes, _Good] = {}
        self._files = [os.fspath(directory / name) for name in (KEY_FILE, REGISTER_FILE)]

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return whose token of ours was presented, None if there was none."""
        for text in credentials.tokens:
            self._refresh()
            digest = sha256(text.encode(errors="surrogatepass")).digest()
            good = self._good.get(digest)
            if good is None:
                token = jwt.peek(text)
                if token is None or token.issuer != ISSUER:
                    continue
                good = self._look_at(token)
                if len(self._good) >= _MAX_REMEMBERED:
                    self._good.clear()
                self._good[digest] = good
            return self._caller(good)
        return None

    def look(self) -> int:
        """Read the files again if they have changed; return how often they have."""
        self._refresh()
        return self._changes

    def is_void(self, credential: str) -> bool:
        """Tell whether a caller's credential is one of our tokens and, when last looked, void."""
        if not credential.startswith(PREFIX):
            return False
        record = self._records.get(credential.removeprefix(PREFIX))
        return record is None or record.state(self._clock()) != "active"

    def _caller(self, good: _Good) -> Caller:
        """Return whose token it is, as of now. Raises: CredentialRefused."""
        now, record = self._clock(), good.record
        state = record.state(now)
        if state != "active":
            raise CredentialRefused(f"token {record.id} is {state}")
        if now - jwt.SKEW >= good.ends_at:
            raise CredentialRefused(f"token {record.id} has ended")
        if good.caller.identity.trust_domain not in self._trust_domains():
            identity = good.caller.identity
            raise CredentialRefused(f"the trust domain of {identity} is not one of this mesh")
        return good.caller

    def _look_at(self, token: jwt.Unverified) -> _Good:
        """Return whose token it is, as long as the files stay. Raises: CredentialRefused."""
        if self._key is None:
            raise CredentialRefused("there is no key to check it with; is --ca-dir the right one?")
        _verify(token, self._key)
        record = self._records.get(str(token.claims.get("jti")))
        if record is None:
            raise CredentialRefused("it is not in the register")
        ends_at = jwt.check_times(token, self._clock())
        jwt.check_audience(token, (self._audience,))
        try:
            identity = WorkloadIdentity.parse(record.identity)
        except InvalidIdentity:
            raise CredentialRefused(f"token {record.id} is damaged in the register") from None
        if identity != jwt.subject_identity(token.claims.get("sub"), identity.trust_domain):
            raise CredentialRefused(f"token {record.id} is another's in the register")
        caller = Caller(
            identity=identity,
            how=self.how,
            credential=PREFIX + record.id,
            ends_at=record.expires_at,
        )
        return _Good(caller, record, ends_at)

    def _refresh(self) -> None:
        stamp = self._now_on_disk()
        if stamp == self._stamp:
            return
        try:
            key = read_key(self._directory)
            records = {record.id: record for record in read_register(self._directory).tokens}
        except BadTokens as failure:  # nobody gets in by tokens until it is mended
            log.warning("callers.token_files_damaged", reason=str(failure))
            key, records = None, {}
        self._key = key.public_key() if key is not None else None
        self._records = records
        self._good = {}
        self._stamp = stamp
        self._changes += 1

    def _now_on_disk(self) -> _Stamp:
        stamps: list[tuple[int, int, int] | None] = []
        for file in self._files:
            try:
                found = os.stat(file)  # noqa: PTH116 (for each call: a Path takes longer than this)
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(stamps)


def _verify(token: jwt.Unverified, key: ec.EllipticCurvePublicKey) -> None:
    """Check the signature, ES256 and nothing else. Raises: CredentialRefused."""
    if token.header.get("alg") != ALGORITHM:
        raise CredentialRefused("it is signed with an algorithm that is not accepted")
    if "crit" in token.header or "b64" in token.header:
        raise CredentialRefused("its header asks for extensions")
    signed, _, signature = token.text.rpartition(".")
    try:
        # Two numbers of 32 bytes each (RFC 7518, 3.4).
        raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        if len(raw) != 2 * _HALF_BYTES:
            raise CredentialRefused("its signature is not good")
        numbers = (int.from_bytes(raw[:_HALF_BYTES]), int.from_bytes(raw[_HALF_BYTES:]))
        key.verify(encode_dss_signature(*numbers), signed.encode("ascii"), _ES256)
    except (InvalidSignature, ValueError, binascii.Error) as error:
        raise CredentialRefused("its signature is not good") from error
