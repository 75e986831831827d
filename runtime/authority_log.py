"""
What the certificate authority does, made metrics and log lines.

Names are istiod's (security.md 8.1). Lines about refusals are limited in number, and hold the
caller's identity and what was wrong, never the request.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from pilothouse.certs.callers import Caller
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.refusals import CsrProblem, CsrRefused, Refusal, RefusalCode
from pilothouse.certs.rotation import Phase
from pilothouse.runtime.few_lines import FewLines

_UNREADABLE = frozenset({CsrProblem.MALFORMED, CsrProblem.TOO_LARGE})

log = structlog.get_logger()


class AuthorityLog:
    """The observer of the certificate service, and of the authority's own certificates."""

    def __init__(
        self,
        registry: CollectorRegistry,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        """Count into `registry`."""
        self._clock = clock
        self._requests = Counter(
            "citadel_server_csr_count", "Requests for certificates.", registry=registry
        )
        self._issued = Counter(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued on request.",
            registry=registry,
        )
        self._unreadable = Counter(
            "citadel_server_csr_parsing_err_count",
            "Requests for certificates that could not be read.",
            registry=registry,
        )
        refused = Counter(
            "citadel_server_csr_sign_err_count",
            "Requests of known callers that were refused, by Istio's kinds of errors.",
            ["error"],
            registry=registry,
        )
        self._refused = {code: refused.labels(code.value) for code in RefusalCode}
        problems = Counter(
            "pilothouse_csr_refused",
            "Signing requests that were refused, by what is wrong with them.",
            ["problem"],
            registry=registry,
        )
        self._problems = {problem: problems.labels(problem.value) for problem in CsrProblem}
        self._ends: dict[str, datetime] = {}
        for name, which in (("root_cert", "root"), ("cert_chain", "chain")):
            Gauge(
                f"citadel_server_{name}_expiry_timestamp",
                f"When the {which}'s first certificate ends, epoch time.",
                registry=registry,
            ).set_function(partial(self._epoch, which))
            Gauge(
                f"citadel_server_{name}_expiry_seconds",
                f"Seconds until the {which}'s first certificate ends.",
                registry=registry,
            ).set_function(partial(self._seconds, which))
        self._phase = Gauge(
            "pilothouse_root_rotation_phase",
            "1 for the phase that the rotation of the root is in.",
            ["phase"],
            registry=registry,
        )
        self._changes_refused = Counter(
            "pilothouse_authority_changes_refused",
            "Changes of the plugged-in authority's files that were not used.",
            registry=registry,
        )
        self._lines = FewLines(monotonic, "authority.more_refused")

    def _seconds(self, which: str) -> float:
        return self._epoch(which) - self._clock().timestamp()

    def _epoch(self, which: str) -> float:
        ends = self._ends.get(which)
        return ends.timestamp() if ends is not None else 0.0

    def ends(self, root: datetime, chain: datetime) -> None:
        """Note when the first root of the bundle and the first certificate of the chain end."""
        self._ends = {"root": root, "chain": chain}

    def phase(self, phase: Phase) -> None:
        """Note where a rotation is."""
        for each in Phase:
            self._phase.labels(each.value).set(each is phase)

    def change_refused(self) -> None:
        """Count a change of the plugged-in files that was not used."""
        self._changes_refused.inc()

    def requested(self) -> None:
        """Count a request."""
        self._requests.inc()

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        """Count and log a certificate."""
        self._issued.inc()
        log.debug(
            "certificates.signed",
            identity=str(caller.identity),
            credential=caller.credential,
            serial=chain.serial,
            not_after=chain.not_after.isoformat(),
        )

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        """Count and log a refusal."""
        self._refused[refusal.code].inc()
        problem = refusal.problem if isinstance(refusal, CsrRefused) else None
        if problem is not None:
            self._problems[problem].inc()
            if problem in _UNREADABLE:
                self._unreadable.inc()
        if self._lines.passes():
            log.warning(
                "certificates.refused",
                identity=str(caller.identity) if caller is not None else "not looked at",
                credential=caller.credential if caller is not None else "",
                problem=problem.value if problem is not None else refusal.code.value,
                reason=str(refusal),
            )
