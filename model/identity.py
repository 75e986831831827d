"""
SPIFFE identities as Istio writes them: ``spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT``.

Strict both ways: what is not exactly of this form is not an identity, because a lenient reader is
how one workload becomes another. Source: security.md C-S-8; the SPIFFE ID specification.
"""

import re
from dataclasses import dataclass
from typing import Final

from pilothouse.errors import InvalidConfig

_MAX_CHARACTERS: Final = 2_048
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9])?")
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?")
_FORM: Final = re.compile(r"spiffe://([^/]+)/ns/([^/]+)/sa/([^/]+)")


class InvalidIdentity(InvalidConfig):
    """A text is not a SPIFFE identity of a workload."""

    def __init__(self, text: str) -> None:
        """Keep the text."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Show the expected form."""
        return f"{self.text[:200]!r} is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/NAME."


@dataclass(frozen=True, slots=True, order=True)
class WorkloadIdentity:
    """
    Who a workload is: its trust domain, namespace and service account.

    Raises: InvalidIdentity: A part has characters that the form does not allow.
    """

    trust_domain: str
    namespace: str
    service_account: str

    def __post_init__(self) -> None:
        """Check the parts, so that formatting and reading are each other's inverse."""
        if not (
            _TRUST_DOMAIN.fullmatch(self.trust_domain)
            and _SEGMENT.fullmatch(self.namespace)
            and _SEGMENT.fullmatch(self.service_account)
        ):
            raise InvalidIdentity(str(self))

    def __str__(self) -> str:
        """Format the identity."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @staticmethod
    def parse(text: str) -> "WorkloadIdentity":
        """Read an identity. Raises: InvalidIdentity."""
        form = _FORM.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
        if form is None:
            raise InvalidIdentity(text)
        return WorkloadIdentity(*form.groups())
