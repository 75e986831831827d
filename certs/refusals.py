"""
Why a certificate is not issued, as types with one sentence for people and a code for machines.

No text here may quote what a caller sent beyond a bounded, printable part, and none ever holds key
material. Codes and status names are Istio's (security.md C-S-6).
"""

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from pilothouse.errors import IssueRefused


class RefusalCode(StrEnum):
    """Istio's error types: the values of the label `error` of citadel_server_csr_sign_err_count."""

    CSR = "CSR_ERROR"
    TTL = "TTL_ERROR"
    NOT_READY = "CA_NOT_READY"
    GENERATION = "CERT_GEN_ERROR"


class CsrProblem(StrEnum):
    """What is wrong with a certificate signing request."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    BAD_SIGNATURE = "bad-signature"
    WEAK_KEY = "weak-key"
    FOREIGN_NAME = "foreign-name"
    ASKS_FOR_CA = "asks-for-ca"


class Refusal(IssueRefused):
    """No certificate for this request; `code` says which kind, the text what to do."""

    code: ClassVar[RefusalCode]

    def __init__(self, text: str) -> None:
        """Keep the sentence."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """One sentence for people."""
        return self.text


class CsrRefused(Refusal):
    """The signing request cannot be accepted; `problem` says why."""

    code = RefusalCode.CSR

    def __init__(self, problem: CsrProblem, text: str) -> None:
        """Keep what is wrong."""
        super().__init__(text)
        self.problem = problem


class TtlRefused(Refusal):
    """The wanted lifetime is longer than the longest allowed (C-S-5)."""

    code = RefusalCode.TTL

    def __init__(self, wanted: timedelta, longest: timedelta) -> None:
        """Keep both."""
        super().__init__(
            f"the requested lifetime of {wanted} is longer than the longest allowed, {longest}"
        )
        self.wanted = wanted
        self.longest = longest


class SignerEnded(Refusal):
    """The authority's own certificate has ended or not begun (C-S-4)."""

    code = RefusalCode.NOT_READY


class SigningFailed(Refusal):
    """The signing itself failed, or the process that does it has died."""

    code = RefusalCode.GENERATION


class SigningOverloaded(Refusal):
    """Too many requests wait already; the caller should come again (RESOURCE_EXHAUSTED)."""

    code = RefusalCode.NOT_READY
