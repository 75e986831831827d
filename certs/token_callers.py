"""
Recognising callers by tokens of our own.

Files are read again when they have changed, so that a token made or revoked on the command line
counts at once.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

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

log = structlog.get_logger()


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
        self._key: ECKey | None = None
        self._records: dict[str, TokenRecord] = {}

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return whose token of ours was presented, None if there was none."""
        for text in credentials.tokens:
            token = jwt.peek(text)
            if token is not None and token.issuer == ISSUER:
                return self._caller(token)
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

    def _caller(self, token: jwt.Unverified) -> Caller:
        self._refresh()
        if self._key is None:
            raise CredentialRefused("there is no key to check it with; is --ca-dir the right one?")
        jwt.verify(token, self._key, (ALGORITHM,))
        now = self._clock()
        record = self._records.get(str(token.claims.get("jti")))
        if record is None:
            raise CredentialRefused("it is not in the register")
        state = record.state(now)
        if state != "active":
            raise CredentialRefused(f"token {record.id} is {state}")
        jwt.check_times(token, now)
        jwt.check_audience(token, (self._audience,))
        try:
            identity = WorkloadIdentity.parse(record.identity)
        except InvalidIdentity:
            raise CredentialRefused(f"token {record.id} is damaged in the register") from None
        if identity != jwt.subject_identity(token.claims.get("sub"), identity.trust_domain):
            raise CredentialRefused(f"token {record.id} is another's in the register")
        if identity.trust_domain not in self._trust_domains():
            raise CredentialRefused(f"the trust domain of {identity} is not one of this mesh")
        return Caller(
            identity=identity,
            how=self.how,
            credential=PREFIX + record.id,
            ends_at=record.expires_at,
        )

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
        self._key = ECKey.import_key(_public_pem(key)) if key is not None else None
        self._records = records
        self._stamp = stamp
        self._changes += 1

    def _now_on_disk(self) -> _Stamp:
        stamps: list[tuple[int, int, int] | None] = []
        for name in (KEY_FILE, REGISTER_FILE):
            try:
                found = (self._directory / name).stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(stamps)


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
