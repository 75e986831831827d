"""
Rows that the runtime puts and no user writes: workload certificates, and what time it is.

Values only, so that queries can rest on keys and time without doing input or output.
"""

from datetime import datetime

import msgspec


class WorkloadCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate chain of a workload and its private key, PEM; never shown by repr."""

    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "WorkloadCertificate()"


class Clock(msgspec.Struct, frozen=True):
    """A time that has passed, with its zone; moves on about once an hour."""

    at: datetime
