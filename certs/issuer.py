"""
The seam between who needs certificates and who makes them.

`pilothouse.certs.signing.SigningPool` is the real one (its own process);
`pilothouse.certs.authority.LocalIssuer` signs in this process, for tests and small tools. Both
decide how a certificate looks, never who may have one: identities come from verified credentials.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from pilothouse.certs.issued import IssuedChain, KeyAlgorithm, KeyPair
from pilothouse.model.identity import WorkloadIdentity


class Issuer(Protocol):
    """
    Somebody who issues certificates; `ttl` None or not positive is the default lifetime.

    All methods raise `pilothouse.certs.refusals.Refusal`.
    """

    async def sign(
        self, csr_pem: bytes, identity: WorkloadIdentity, ttl: timedelta | None = None
    ) -> IssuedChain:
        """Certify the key of a signing request for an identity; its names must not be others."""
        ...

    async def issue(
        self,
        identity: WorkloadIdentity,
        ttl: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    ) -> KeyPair:
        """Make a key and certify it for a workload."""
        ...

    async def issue_server(self, names: Sequence[str], ttl: timedelta | None = None) -> KeyPair:
        """Make a key and certify it for a server of these DNS names and IP addresses."""
        ...
