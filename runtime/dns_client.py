"""
Looks up the addresses of a host name, with how long they hold.

Asks the name servers of this machine as its resolver would, for the resolver itself does not tell
times to live; ``/etc/hosts`` goes first. Each question has a number and a port of its own, and only
its server may answer. Search lists are not used: a gateway's name is a whole one.
"""

import asyncio
import secrets
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from pilothouse.runtime.addresses import Address
from pilothouse.runtime.dns_messages import (
    Answer,
    BadAnswer,
    Kind,
    ServerFailed,
    question,
    read_answer,
)

RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOSTS: Final = Path("/etc/hosts")
HOSTS_TTL_SECONDS: Final = 30.0
PORT: Final = 53
_TRY_SECONDS: Final = 2.0
_TRIES: Final = 2
_MOST_BYTES: Final = 65_535
MOST_ADDRESSES: Final = 64
"""More of one name are not used: each is a gateway that every client would be told of."""


class Found(NamedTuple):
    """
    Addresses of a name, sorted, and how long they may be relied on.

    `is_partial` if only one family could be asked for.
    """

    addresses: tuple[str, ...]
    ttl_seconds: float
    is_partial: bool = False


class NotFound(Exception):
    """A name has no address now; the text says why, as the end of a sentence."""


class NameServers:
    """The name servers of this machine, or those that are given."""

    def __init__(
        self,
        servers: Sequence[Address] = (),
        *,
        resolv_conf: Path = RESOLV_CONF,
        hosts: Path = HOSTS,
        try_seconds: float = _TRY_SECONDS,
    ) -> None:
        """Ask `servers`, or those of `resolv_conf`, which is read each time as it may change."""
        self._servers = tuple(servers)
        self._resolv_conf = resolv_conf
        self._hosts = hosts
        self._try_seconds = try_seconds

    async def look_up(self, name: str) -> Found:
        """
        Return the addresses of both families.

        Raises: NotFound.
        """
        written = _in_hosts(self._hosts, name)
        if written:
            return Found(written, HOSTS_TTL_SECONDS)
        servers = self._servers or _configured(self._resolv_conf)
        if not servers:
            raise NotFound(f"{self._resolv_conf} names no name server")
        asked = (self._ask(servers, name, kind) for kind in Kind)
        told = await asyncio.gather(*asked, return_exceptions=True)
        answers = [each for each in told if isinstance(each, Answer)]
        failures = [each for each in told if isinstance(each, BaseException)]
        for failure in failures:
            if not isinstance(failure, NotFound):
                raise failure
        found = {each for answer in answers for each in answer.addresses if _is_usable(each)}
        if not found:
            if failures:
                raise failures[0]
            exists = all(answer.exists for answer in answers)
            raise NotFound("the name has no address" if exists else "there is no such name")
        ttls = [each.ttl_seconds for each in answers if each.ttl_seconds is not None]
        chosen = tuple(sorted(found)[:MOST_ADDRESSES])
        return Found(chosen, float(min(ttls)), is_partial=bool(failures))

    async def _ask(self, servers: Sequence[Address], name: str, kind: Kind) -> Answer:
        """
        Return the answer of the first server that gives one.

        Raises: NotFound.
        """
        reason = "no name server answers"
        for server in tuple(servers) * _TRIES:
            try:
                asked = question(secrets.randbelow(2**16), name, kind)
                async with asyncio.timeout(self._try_seconds):
                    answer = await _by_datagram(server, asked)
                    if answer.is_truncated:
                        answer = await _by_stream(server, asked)
                    return answer
            except (BadAnswer, ServerFailed) as problem:
                reason = str(problem)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        raise NotFound(reason)


class _Question(asyncio.DatagramProtocol):
    """Waits for the datagram that answers, and passes over all others."""

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if self.answer.done():
            return
        try:
            self.answer.set_result(read_answer(data, self._asked))
        except BadAnswer:
            return
        except ServerFailed as failure:
            self.answer.set_exception(failure)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _by_datagram(server: Address, asked: bytes) -> Answer:
    loop = asyncio.get_running_loop()
    # Connected: the kernel drops what comes from anywhere else.
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Question(asked), remote_addr=(server.host, server.port)
    )
    try:
        transport.sendto(asked)
        return await waiting.answer
    finally:
        transport.close()


async def _by_stream(server: Address, asked: bytes) -> Answer:
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=_MOST_BYTES)
    try:
        writer.write(len(asked).to_bytes(2, "big") + asked)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return read_answer(await reader.readexactly(length), asked)
    finally:
        writer.close()


def _is_usable(address: str) -> bool:
    found = ip_address(address)
    return not (found.is_unspecified or found.is_multicast)


def _configured(path: Path) -> tuple[Address, ...]:
    words = (line.split() for line in _lines(path))
    hosts = [each[1].partition("%")[0] for each in words if each[0] == "nameserver" and each[1:]]
    return tuple(Address(host, PORT) for host in hosts if _is_address(host))


def _in_hosts(path: Path, name: str) -> tuple[str, ...]:
    words = (line.partition("#")[0].split() for line in _lines(path))
    found = {each[0] for each in words if name in map(str.lower, each[1:])}
    return tuple(sorted(filter(_is_address, found)))


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
