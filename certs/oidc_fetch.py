"""
Fetching keys and discovery documents of token issuers, and bundles of roots, and nothing else.

What an issuer's document names is not the operator's word, so it must not lead this server to
places that only it can reach: link-local and metadata addresses never, this machine only if the
operator named it. Addresses are checked as they are connected to, so that a name cannot change its
mind in between. Redirects are not followed, sizes and times are bounded.
"""

import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from pilothouse.certs.oidc_issuers import is_loopback, url_problem

MAX_BYTES: Final = 256 * 1024
_SECONDS: Final = 5.0
_METADATA: Final = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Metadata services of clouds that are not link-local."""


class FetchFailed(Exception):
    """A document could not be had; the text says why, for the log."""


def may_connect(address: str, *, to_loopback: bool) -> bool:
    """Tell whether an address is one that an issuer may be at."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    if found.is_loopback:
        return to_loopback
    return not (
        found.is_link_local
        or found.is_multicast
        or found.is_unspecified
        or found.is_reserved
        or found in _METADATA
    )


class _Guarded(AbstractResolver):
    """Resolves names to the addresses that may be connected to."""

    def __init__(self, *, to_loopback: bool) -> None:
        self._inner = ThreadedResolver()
        self._to_loopback = to_loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [
            each for each in found if may_connect(each["host"], to_loopback=self._to_loopback)
        ]
        if not allowed:
            raise OSError(f"{host} is at an address that may not be asked")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


async def fetch_json(
    url: str, *, to_loopback: bool, tls: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """
    Return the JSON object at a URL; `to_loopback` allows this machine.

    `tls` verifies who answers; None trusts what this machine does.

    Raises: FetchFailed.
    """
    if problem := url_problem(url):
        raise FetchFailed(problem)
    host = urlsplit(url).hostname or ""
    if _is_address(host) and not may_connect(host, to_loopback=to_loopback):
        raise FetchFailed(f"{host} is an address that may not be asked")
    if is_loopback(host) and not to_loopback:
        raise FetchFailed(f"{host} is this machine, which the operator did not name")
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_Guarded(to_loopback=to_loopback), use_dns_cache=False
                ),
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                auto_decompress=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as session,
            session.get(url, allow_redirects=False, ssl=True if tls is None else tls) as answer,
        ):
            if answer.status != 200:
                raise FetchFailed(f"{url} answered {answer.status}")
            content = bytearray()
            async for piece in answer.content.iter_chunked(16 * 1024):
                content += piece
                if len(content) > MAX_BYTES:
                    raise FetchFailed(f"{url} answered with more than {MAX_BYTES} bytes")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise FetchFailed(f"{url} cannot be read: {_reason(error)}") from error
    try:
        decoded = msgspec.json.decode(bytes(content))
    except (ValueError, RecursionError):
        raise FetchFailed(f"{url} did not answer with JSON") from None
    if not isinstance(decoded, dict):
        raise FetchFailed(f"{url} did not answer with a JSON object")
    return decoded


def _reason(error: Exception) -> str:
    """Say what is wrong, in words that are the same each time."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted here, {error.verify_message}"
    return str(error) or type(error).__name__


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
