"""
Who called and who was turned away, made metrics and log lines.

The names of the certificate authority's counters are istiod's (security.md 8.1). Lines about
strangers are limited in number: whoever can connect must not be able to fill a disk.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from pilothouse.certs.callers import Caller, Credentials, How
from pilothouse.certs.front.half_open import Turn
from pilothouse.runtime.few_lines import FewLines

log = structlog.get_logger()


class CallerLog:
    """The observer of the secure port and of the chain of authenticators."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float]) -> None:
        """Count into `registry`."""
        recognised = Counter(
            "pilothouse_callers_recognised",
            "Calls whose caller was recognised, by credential.",
            ["how"],
            registry=registry,
        )
        self._recognised = {how: recognised.labels(how.value) for how in How}
        self._failures = Counter(
            "citadel_server_authentication_failure_count",
            "Calls whose caller nobody knew.",
            registry=registry,
        )
        turned = Counter(
            "pilothouse_secure_port_turned_away",
            "Connections to the secure port that came to nothing, by reason.",
            ["reason"],
            registry=registry,
        )
        self._turned = {turn.value: turned.labels(turn.value) for turn in Turn}
        self.connections = Gauge(
            "pilothouse_secure_port_connections",
            "Connections open on the secure port.",
            registry=registry,
        )
        self._restarts = Counter(
            "pilothouse_secure_port_restarts",
            "Times that the process which ends TLS was replaced.",
            registry=registry,
        )
        self._key_fetches = {
            True: _fetches(registry, "success", "Fetches of token issuers' keys that succeeded."),
            False: _fetches(registry, "fail", "Fetches of token issuers' keys that failed."),
        }
        self._lines = FewLines(clock, "callers.more_refused")

    def recognised(self, caller: Caller, credentials: Credentials) -> None:
        """Count a caller that is known."""
        self._recognised[caller.how].inc()
        log.debug(
            "callers.recognised",
            identity=str(caller.identity),
            credential=caller.credential,
            peer=credentials.address,
        )

    def unknown(self, credentials: Credentials, reasons: Sequence[str]) -> None:
        """Count and log a caller that nobody knows; the caller is not told why (C-A-6)."""
        self._failures.inc()
        if self._lines.passes():
            log.warning("callers.unknown", peer=credentials.address, reasons=list(reasons))

    def keys_fetched(self, is_success: bool) -> None:  # noqa: FBT001 (a callback's one fact)
        """Count a fetch of a token issuer's keys."""
        self._key_fetches[is_success].inc()

    def turned_away(self, counts: Mapping[str, int], address: str, detail: str) -> None:
        """Count and log connections that came to nothing."""
        for reason, count in counts.items():
            if reason in self._turned:
                self._turned[reason].inc(count)
        if self._lines.passes():
            log.warning(
                "secure_port.turned_away",
                **counts,
                example_peer=address,
                example_reason=detail,
            )

    def certificate_refused(self, address: str, detail: str) -> None:
        """Log a verified certificate that names nobody here; the front counts it."""
        self._failures.inc()
        if self._lines.passes():
            log.warning("callers.certificate_refused", peer=address, reason=detail)

    def front_ended(self, exit_code: int | None) -> None:
        """Count and log that the front died."""
        self._restarts.inc()
        log.error("secure_port.front_ended", exit_code=exit_code, remedy="It is started again.")


def _fetches(registry: CollectorRegistry, how: str, text: str) -> Counter:
    return Counter(f"pilot_jwks_resolver_network_fetch_{how}", text, registry=registry)
