"""
Questions to a name server and its answers, as bytes (RFC 1035), as far as addresses go.

Sans-IO. An answer comes from the network and is read as such: what is not an answer to the question
asked, or cannot be read, is no answer.
"""

import struct
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("!HHHHHH")
_AFTER_NAME: Final = struct.Struct("!HHIH")
_INTERNET: Final = 1
_RECURSION_DESIRED: Final = 0x0100
_IS_ANSWER: Final = 0x8000
_IS_TRUNCATED: Final = 0x0200
_CODE: Final = 0x000F
_NO_SUCH_NAME: Final = 3
_CODES: Final = {1: "form error", 2: "server failure", 4: "not implemented", 5: "refused"}
_MOST_RECORDS: Final = 256


class Kind(IntEnum):
    """What is asked for; the value is the record's type."""

    IPV4 = 1
    IPV6 = 28


class BadAnswer(ValueError):
    """Bytes are no answer to the question; nothing of them is used."""


class ServerFailed(Exception):
    """The server cannot tell; another may."""


class Answer(NamedTuple):
    """
    What a server knows of a name.

    `ttl_seconds` is the shortest of all records, None without any. `exists` is False if there is no
    such name at all; `is_truncated` asks for another way.
    """

    addresses: tuple[str, ...]
    ttl_seconds: int | None
    exists: bool = True
    is_truncated: bool = False


def question(number: int, name: str, kind: Kind) -> bytes:
    """
    Return the bytes of a question; `number` is 16 bits that nobody can guess.

    Raises: BadAnswer: The name cannot be asked for.
    """
    labels = name.removesuffix(".").split(".")
    if not all(label.isascii() and 0 < len(label) < 64 for label in labels) or len(name) > 253:
        raise BadAnswer(f"{name[:64]!r} is no name that can be asked for")
    asked = b"".join(bytes((len(label),)) + label.encode() for label in labels)
    head = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return head + asked + b"\0" + struct.pack("!HH", kind, _INTERNET)


def read_answer(data: bytes, asked: bytes) -> Answer:
    """
    Read the answer to a question, both as bytes.

    Raises: BadAnswer; ServerFailed.
    """
    try:
        return _read(data, asked)
    except (struct.error, IndexError) as error:
        raise BadAnswer("the answer ends too early") from error


def _read(data: bytes, asked: bytes) -> Answer:
    number, flags, questions, count, _, _ = _HEADER.unpack_from(data)
    body = asked[_HEADER.size :]
    if number != _HEADER.unpack_from(asked)[0] or not flags & _IS_ANSWER:
        raise BadAnswer("the answer is to another question")
    if questions != 1 or data[_HEADER.size :][: len(body)].lower() != body.lower():
        raise BadAnswer("the answer is to another question")
    code = flags & _CODE
    if code == _NO_SUCH_NAME:
        return Answer((), None, exists=False)
    if code:
        raise ServerFailed(f"the name server says {_CODES.get(code, f'error {code}')}")
    if flags & _IS_TRUNCATED:
        return Answer((), None, is_truncated=True)
    (wanted,) = struct.unpack_from("!H", body, len(body) - 4)
    at = _HEADER.size + len(body)
    addresses, ttls = [], []
    for _ in range(min(count, _MOST_RECORDS)):
        at = _after_name(data, at)
        kind, network, ttl, length = _AFTER_NAME.unpack_from(data, at)
        at += _AFTER_NAME.size
        content = data[at : at + length]
        at += length
        if len(content) != length:
            raise BadAnswer("the answer ends too early")
        # Aliases on the way count too: they may change before the address does.
        ttls.append(ttl if ttl < 2**31 else 0)
        if network == _INTERNET and kind == wanted:
            addresses.append(_address(content))
    return Answer(tuple(addresses), min(ttls, default=None))


def _after_name(data: bytes, at: int) -> int:
    """Return where what follows a name begins; the name itself is not needed."""
    while True:
        length = data[at]
        if length >= 0xC0:
            return at + 2
        if length >= 0x40:
            raise BadAnswer("a name in the answer cannot be read")
        at += 1 + length
        if not length:
            return at


def _address(content: bytes) -> str:
    if len(content) == 4:
        return str(IPv4Address(content))
    if len(content) == 16:
        return str(IPv6Address(content))
    raise BadAnswer("an address in the answer has an odd length")
