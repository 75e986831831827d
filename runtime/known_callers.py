"""
Whom this server knows: the chain of authenticators, and the end of what they accepted.

A stream lives long, its credential may not: streams of a revoked token end within seconds, and
each ends with the life of its credential (`pilothouse.xds.streams` sees to that).
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from pilothouse.certs.callers import Authenticator, Callers, CertificateAuthenticator
from pilothouse.certs.oidc import OidcAuthenticator
from pilothouse.certs.oidc_issuers import Issuer
from pilothouse.certs.token_callers import TokenAuthenticator
from pilothouse.runtime.caller_log import CallerLog
from pilothouse.xds.streams import Streams

_LOOK_SECONDS: Final = 1.0
REVOKED: Final = "the credential was revoked"

log = structlog.get_logger()


class KnownCallers:
    """The chain of a server."""

    def __init__(
        self,
        *,
        ca_dir: Path | None,
        oidc_issuers: Sequence[Issuer],
        trust_domains: Callable[[], Sequence[str]],
        caller_log: CallerLog,
        wall_clock: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        """
        Know certificates, tokens of `ca_dir` if there is one, and tokens of `oidc_issuers`.

        `trust_domains` are the mesh's own and then its aliases.
        """
        self._tokens = (
            TokenAuthenticator(ca_dir, wall_clock, trust_domains) if ca_dir is not None else None
        )
        chain: list[Authenticator] = [CertificateAuthenticator(wall_clock, trust_domains)]
        if self._tokens is not None:
            chain.append(self._tokens)
        if oidc_issuers:
            chain.append(
                OidcAuthenticator(
                    oidc_issuers,
                    trust_domain=lambda: trust_domains()[0],
                    wall_clock=wall_clock,
                    clock=clock,
                    fetched=caller_log.keys_fetched,
                )
            )
        self.chain = Callers(chain, caller_log, lambda: trust_domains()[0])

    async def end_revoked(self, streams: Streams) -> None:
        """End streams whose token is revoked, soon after it is, until cancelled."""
        if self._tokens is None:
            return
        seen = self._tokens.look()
        streams.end(self._tokens.is_void, REVOKED)  # what was revoked since they were let in
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            changes = self._tokens.look()
            if changes == seen:
                continue
            seen = changes
            ended = streams.end(self._tokens.is_void, REVOKED)
            if ended:
                log.info("callers.revoked", streams_ended=ended)
