"""
Tokens of our own: credentials for one workload, made by ``pilothouse token create``.

    token-key.pem   what tokens are signed with (ECDSA P-256)
    tokens.json     the register: every token by id, whose it is, when it ends, whether revoked

Both are in the authority's directory, its owner's alone. The tokens themselves are kept nowhere.
Who has the register and the key checks them: a token that is not in the register is not good, so
that a lost register lets nobody in.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pilothouse.certs.private_files import NotPrivate, make_private_directory, write_private
from pilothouse.errors import InvalidConfig, SourceError
from pilothouse.model.identity import WorkloadIdentity

KEY_FILE: Final = "token-key.pem"
REGISTER_FILE: Final = "tokens.json"
LOCK_FILE: Final = "tokens.lock"
ISSUER: Final = "pilothouse"
AUDIENCE: Final = "istio-ca"
"""What Istio's agents and its token review call it (C-A-3)."""
ALGORITHM: Final = "ES256"
DEFAULT_TTL: Final = timedelta(hours=24)
LONGEST_TTL: Final = timedelta(days=366)
_KEEP_ENDED: Final = timedelta(days=30)
_ID_BYTES: Final = 8


class BadTokens(SourceError):
    """The files of tokens cannot be used; `problem` says why."""

    def __init__(self, directory: Path, problem: str) -> None:
        """Keep where and what."""
        super().__init__(directory, problem)
        self.directory = directory
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The tokens in {self.directory} cannot be used: {self.problem}"


class InvalidToken(InvalidConfig):
    """A token cannot be made, or not revoked, as asked."""

    def __init__(self, problem: str) -> None:
        """Keep the sentence."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """Say what is wrong."""
        return self.problem


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One token in the register; never the token itself."""

    id: str
    identity: str
    audience: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """The file of all tokens."""

    version: int = 1
    tokens: tuple[TokenRecord, ...] = ()


class TokenStore:
    """The tokens in one directory; for the command line, and tests."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, made private when first written."""
        self._directory = directory

    def records(self) -> tuple[TokenRecord, ...]:
        """Return all that are in the register. Raises: BadTokens."""
        return read_register(self._directory).tokens

    def create(
        self,
        identity: WorkloadIdentity,
        now: datetime,
        *,
        ttl: timedelta = DEFAULT_TTL,
        audience: str = AUDIENCE,
    ) -> tuple[str, TokenRecord]:
        """
        Make a token for a workload and enter it.

        Raises: InvalidToken: The lifetime is not allowed. BadTokens: The files cannot be used.
        """
        if not timedelta(seconds=1) <= ttl <= LONGEST_TTL:
            raise InvalidToken(
                f"a token lives from one second to {LONGEST_TTL.days} days, not {ttl}"
            )
        moment = now.replace(microsecond=0)
        record = TokenRecord(
            id=secrets.token_hex(_ID_BYTES),
            identity=str(identity),
            audience=audience,
            issued_at=moment,
            expires_at=moment + ttl,
        )
        with self._changing() as register:
            token = _signed(record, identity, self._key())
            kept = (each for each in register.tokens if now - each.expires_at < _KEEP_ENDED)
            self._write(Register(tokens=(*kept, record)))
        return token, record

    def revoke(self, token_id: str, now: datetime) -> TokenRecord:
        """
        Take a token back; doing so twice changes nothing.

        Raises: InvalidToken: There is none of that id. BadTokens: The files cannot be used.
        """
        with self._changing() as register:
            found = {record.id: record for record in register.tokens}
            record = found.get(token_id)
            if record is None:
                raise InvalidToken(f"there is no token {token_id[:64]!r} in {self._directory}")
            if record.revoked_at is None:
                moment = now.replace(microsecond=0)
                record = found[token_id] = msgspec.structs.replace(record, revoked_at=moment)
                self._write(Register(tokens=tuple(found.values())))
        return record

    @contextmanager
    def _changing(self) -> Iterator[Register]:
        try:
            make_private_directory(self._directory)
            lock = os.open(
                self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield read_register(self._directory)
            finally:
                os.close(lock)
        except NotPrivate as failure:
            raise BadTokens(self._directory, failure.problem) from failure
        except OSError as failure:
            raise BadTokens(self._directory, f"{failure.strerror or failure}.") from failure

    def _key(self) -> ec.EllipticCurvePrivateKey:
        found = read_key(self._directory)
        if found is not None:
            return found
        made = ec.generate_private_key(ec.SECP256R1())
        write_private(self._directory / KEY_FILE, _pem(made))
        return made

    def _write(self, register: Register) -> None:
        content = msgspec.json.format(msgspec.json.encode(register))
        write_private(self._directory / REGISTER_FILE, content)


def read_register(directory: Path) -> Register:
    """Return the register in a directory, an empty one if there is none. Raises: BadTokens."""
    try:
        return msgspec.json.decode((directory / REGISTER_FILE).read_bytes(), type=Register)
    except FileNotFoundError:
        return Register()
    except OSError as failure:
        raise BadTokens(directory, f"{failure.strerror or failure}.") from failure
    except (msgspec.DecodeError, ValueError) as failure:
        raise BadTokens(directory, f"{REGISTER_FILE} is damaged.") from failure


def read_key(directory: Path) -> ec.EllipticCurvePrivateKey | None:
    """Return the key in a directory, None if there is none. Raises: BadTokens."""
    try:
        key = serialization.load_pem_private_key((directory / KEY_FILE).read_bytes(), None)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise BadTokens(directory, f"{failure.strerror or failure}.") from failure
    except (ValueError, TypeError) as failure:
        raise BadTokens(directory, f"{KEY_FILE} is damaged.") from failure
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadTokens(directory, f"{KEY_FILE} is not an ECDSA P-256 key.")
    return key


def _signed(
    record: TokenRecord, identity: WorkloadIdentity, key: ec.EllipticCurvePrivateKey
) -> str:
    from joserfc import jwt  # noqa: PLC0415 (listing and revoking need none of it)
    from joserfc.jwk import ECKey  # noqa: PLC0415

    claims = {
        "iss": ISSUER,
        "aud": [record.audience],
        "sub": f"system:serviceaccount:{identity.namespace}:{identity.service_account}",
        "trust_domain": identity.trust_domain,
        "jti": record.id,
        "iat": int(record.issued_at.timestamp()),
        "exp": int(record.expires_at.timestamp()),
    }
    return jwt.encode({"alg": ALGORITHM}, claims, ECKey.import_key(_pem(key)))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
