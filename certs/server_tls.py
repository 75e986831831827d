"""The server's own certificate, issued anew once half its life is over or another root signs."""

from collections.abc import Callable, Sequence
from datetime import datetime

from pilothouse.certs.issued import KeyPair
from pilothouse.certs.issuer import Issuer


class ServingCertificate:
    """What the secure port shows (security.md C-R-12)."""

    def __init__(self, issuer: Issuer, names: Sequence[str], clock: Callable[[], datetime]) -> None:
        """Serve as `names` (DNS names and IP addresses); `clock` gives the time with a zone."""
        self._issuer = issuer
        self._names = tuple(names)
        self._clock = clock
        self._current: KeyPair | None = None

    async def certificate(self) -> KeyPair:
        """Return a certificate with at least half its life left. Raises: Refusal."""
        current = self._current
        if current is not None:
            life = current.not_after - current.chain.not_before
            if current.not_after - self._clock() >= life / 2:
                return current
        self._current = await self._issuer.issue_server(self._names)
        return self._current

    def forget(self) -> None:
        """Have it issued anew when it is next asked for: the authority has changed."""
        self._current = None
