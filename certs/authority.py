"""
An authority in this process: the rules of issuing with a loaded signer.

For tests and small tools; a server signs in a process of its own (`pilothouse.certs.signing`),
because signing holds the interpreter lock. The clock is passed in.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pilothouse.certs.issued import IssuedChain, KeyAlgorithm, KeyPair
from pilothouse.certs.issuing import (
    IssuingPolicy,
    Signer,
    issue_server,
    issue_workload,
    sign_csr,
)
from pilothouse.certs.material import CaMaterial
from pilothouse.certs.root_store import RootStore
from pilothouse.certs.self_signed import make_root
from pilothouse.model.identity import WorkloadIdentity

_DEFAULT_POLICY = IssuingPolicy()


class Authority:
    """What signs, and by which policy. Synchronous."""

    def __init__(self, material: CaMaterial, policy: IssuingPolicy = _DEFAULT_POLICY) -> None:
        """Sign with checked material. Raises: BadMaterial."""
        self._signer = Signer.load(material)
        self._policy = policy
        self.root_pem = material.roots_pem

    def __repr__(self) -> str:
        """Show the signer's serial number, never its key."""
        return f"Authority({self._signer!r})"

    @property
    def not_after(self) -> datetime:
        """When the first certificate of the signer's chain ends."""
        return self._signer.not_after

    @staticmethod
    def create(trust_domain: str, now: datetime) -> "Authority":
        """Make a new root for a trust domain; the key stays in memory."""
        return Authority(make_root(trust_domain, now))

    @staticmethod
    def open(directory: Path, trust_domain: str, now: datetime) -> "Authority":
        """Sign with the root in a directory; make one if it has none. Raises: BadRoot."""
        return Authority(RootStore.open(directory, trust_domain, now).material(now))

    def sign_csr(
        self,
        csr_pem: bytes,
        identity: WorkloadIdentity,
        now: datetime,
        *,
        lifetime: timedelta | None = None,
    ) -> IssuedChain:
        """Certify the key of a signing request. Raises: Refusal."""
        return sign_csr(self._signer, self._policy, csr_pem, identity, lifetime, now)

    def issue_workload(
        self,
        identity: WorkloadIdentity,
        now: datetime,
        *,
        lifetime: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    ) -> KeyPair:
        """Make a key and certify it for a workload (X509-SVID). Raises: Refusal."""
        return issue_workload(self._signer, self._policy, identity, lifetime, algorithm, now)

    def issue_server(
        self, names: Sequence[str], now: datetime, *, lifetime: timedelta | None = None
    ) -> KeyPair:
        """Make a key and certify it for DNS names and IP addresses. Raises: Refusal."""
        return issue_server(self._signer, self._policy, names, lifetime, now)


class LocalIssuer:
    """An `Issuer` that signs right here, on the caller's event loop."""

    def __init__(self, authority: Authority, clock: Callable[[], datetime]) -> None:
        """Issue by `authority` at the time that `clock` gives, with a zone."""
        self._authority = authority
        self._clock = clock

    async def sign(
        self, csr_pem: bytes, identity: WorkloadIdentity, ttl: timedelta | None = None
    ) -> IssuedChain:
        """Certify the key of a signing request."""
        return self._authority.sign_csr(csr_pem, identity, self._clock(), lifetime=ttl)

    async def issue(
        self,
        identity: WorkloadIdentity,
        ttl: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    ) -> KeyPair:
        """Make a key and certify it for a workload."""
        return self._authority.issue_workload(
            identity, self._clock(), lifetime=ttl, algorithm=algorithm
        )

    async def issue_server(self, names: Sequence[str], ttl: timedelta | None = None) -> KeyPair:
        """Make a key and certify it for a server."""
        return self._authority.issue_server(names, self._clock(), lifetime=ttl)
