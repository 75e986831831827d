"""
What the server and its signing process say to each other, and how it is framed.

A frame is its length as four bytes, big-endian, and a msgpack value. Each request is answered by
one message with its number, in order. Keys cross here and nowhere else: never a command line, an
environment or a file.
"""

import struct
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pilothouse.certs.issued import IssuedChain, KeyAlgorithm, KeyPair
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.material import CaMaterial
from pilothouse.certs.refusals import (
    CsrProblem,
    CsrRefused,
    Refusal,
    RefusalCode,
    SignerEnded,
    SigningFailed,
    TtlRefused,
)

LENGTH: Final = struct.Struct(">I")
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024


class Load(msgspec.Struct, frozen=True, tag=True):
    """Sign with this from now on."""

    number: int
    material: CaMaterial
    policy: IssuingPolicy


class SignRequest(msgspec.Struct, frozen=True, tag=True):
    """Certify the key of a request."""

    number: int
    csr_pem: bytes
    identity: str
    ttl: timedelta | None
    now: datetime


class IssueWorkload(msgspec.Struct, frozen=True, tag=True):
    """Make a key for a workload and certify it."""

    number: int
    identity: str
    ttl: timedelta | None
    algorithm: KeyAlgorithm
    now: datetime


class IssueServer(msgspec.Struct, frozen=True, tag=True):
    """Make a key for a server and certify it."""

    number: int
    names: tuple[str, ...]
    ttl: timedelta | None
    now: datetime


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """What was to be loaded is."""

    number: int


class Signed(msgspec.Struct, frozen=True, tag=True):
    """The answer to a request that was signed."""

    number: int
    chain: IssuedChain


class Made(msgspec.Struct, frozen=True, tag=True):
    """The answer with a key that was made."""

    number: int
    pair: KeyPair


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The answer that there is no certificate, and why."""

    number: int
    code: RefusalCode
    text: str
    problem: CsrProblem | None = None
    wanted: timedelta | None = None
    longest: timedelta | None = None

    @staticmethod
    def of(number: int, refusal: Refusal) -> "Refused":
        """Describe a refusal."""
        return Refused(
            number,
            refusal.code,
            str(refusal),
            problem=refusal.problem if isinstance(refusal, CsrRefused) else None,
            wanted=refusal.wanted if isinstance(refusal, TtlRefused) else None,
            longest=refusal.longest if isinstance(refusal, TtlRefused) else None,
        )

    def error(self) -> Refusal:
        """Return the refusal again."""
        if self.problem is not None:
            return CsrRefused(self.problem, self.text)
        if self.wanted is not None and self.longest is not None:
            return TtlRefused(self.wanted, self.longest)
        if self.code is RefusalCode.NOT_READY:
            return SignerEnded(self.text)
        return SigningFailed(self.text)


Request = Load | SignRequest | IssueWorkload | IssueServer
Answer = Loaded | Signed | Made | Refused


def _plain(value: object) -> object:
    """Make the plain type of a subclass, which the encoder does not take."""
    if isinstance(value, timedelta):
        return timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
    raise TypeError(f"{type(value)} does not cross to the signing process")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def frame(message: Request | Answer) -> bytes:
    """Encode a message with its length in front."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_request(body: bytes) -> Request:
    """Decode the body of a request's frame. Raises: msgspec.DecodeError."""
    return _requests.decode(body)


def read_answer(body: bytes) -> Answer:
    """Decode the body of an answer's frame. Raises: msgspec.DecodeError."""
    return _answers.decode(body)
