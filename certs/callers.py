"""
Who is calling: the chain that turns what a caller presented into a verified identity.

The same chain serves discovery and the certificate service (security.md 3.2). The first
authenticator that knows the caller wins; if none does, the caller learns only that it failed
(C-A-6), and why is told to the observer, for the log. What a caller presents is never in a repr,
an error or a log line.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from pilothouse.errors import ProtocolError
from pilothouse.model.identity import WorkloadIdentity

OPAQUE: Final = "request authenticate failure"
"""All that a caller is told (C-A-6); istiod's words, as agents' logs are searched for them."""

MAX_TOKEN_CHARACTERS: Final = 16 * 1024
_SCHEMES: Final = ("bearer ", "istio ")


class How(StrEnum):
    """By what a caller was recognised; the values are labels of metrics."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 (a name)
    OIDC = "oidc"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """The leaf of a verified chain: its one identity, its serial number in hex, its end."""

    identity: WorkloadIdentity
    serial: str
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """
    What a caller presented with one call.

    `certificate` was verified in the handshake. `tokens` are bearer tokens as they came, unchecked
    and never shown. `address` is where the connection came from, ``ADDRESS:PORT``, for the log.
    `cluster` is the caller's word for the cluster to ask about a Kubernetes token (C-W-5).
    """

    address: str
    certificate: ClientCertificate | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)
    cluster: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    A verified caller.

    `credential` names what it presented without giving it away (``certificate:SERIAL``,
    ``token:ID``), so that it can be revoked; `ends_at` is when that ends.
    """

    identity: WorkloadIdentity
    how: How
    credential: str = ""
    ends_at: datetime | None = None


class NotAuthenticated(ProtocolError):
    """Nobody knows the caller; ends the call with UNAUTHENTICATED. The text is opaque (C-A-6)."""

    def __str__(self) -> str:
        """Tell nothing."""
        return OPAQUE


class CredentialRefused(ProtocolError):
    """A credential is of a kind that an authenticator knows, but not good; for the log only."""

    def __init__(self, detail: str) -> None:
        """Say why, without quoting the credential."""
        super().__init__(detail)
        self.detail = detail


class Authenticator(Protocol):
    """One way to recognise callers."""

    @property
    def how(self) -> How:
        """What this is called in logs and metrics."""
        ...

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """
        Return the caller, or None if nothing of this kind was presented.

        Raises: CredentialRefused: Something of this kind was, and is not good.
        """
        ...


class TokenReview(Protocol):
    """Kubernetes' word about a token (C-A-3, C-A-4); comes with the Kubernetes provider."""

    async def review(
        self, token: str, audiences: Sequence[str], cluster: str
    ) -> WorkloadIdentity | None:
        """Return whose service account token this is in that cluster, None if nobody's."""
        ...


class CallerObserver(Protocol):
    """Somebody who counts and logs who was recognised and who was not."""

    def recognised(self, caller: Caller, credentials: Credentials) -> None:
        """A caller is known."""
        ...

    def unknown(self, credentials: Credentials, reasons: Sequence[str]) -> None:
        """Nobody knows a caller; `reasons` are sentences without secrets."""
        ...


class CertificateAuthenticator:
    """Recognises the certificate of the connection, which the handshake has verified (C-A-1)."""

    how: Final = How.CERTIFICATE

    def __init__(
        self, clock: Callable[[], datetime], trust_domains: Callable[[], Collection[str]]
    ) -> None:
        """
        `clock` gives the time with a zone, `trust_domains` the mesh's, asked anew each time.

        Connections may outlive both their certificates and their trust domain.
        """
        self._clock = clock
        self._trust_domains = trust_domains

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the certificate's identity."""
        certificate = credentials.certificate
        if certificate is None:
            return None
        if certificate.ends_at <= self._clock():
            raise CredentialRefused(f"certificate {certificate.serial} has ended")
        if certificate.identity.trust_domain not in self._trust_domains():
            raise CredentialRefused(
                f"the trust domain of {certificate.identity} is not one of this mesh any more"
            )
        return Caller(
            identity=certificate.identity,
            how=self.how,
            credential=f"certificate:{certificate.serial}",
            ends_at=certificate.ends_at,
        )


class Callers:
    """The chain: the first authenticator that knows the caller wins (C-A-6)."""

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        observer: CallerObserver,
        trust_domain: Callable[[], str] | None = None,
    ) -> None:
        """
        Ask `authenticators` in their order.

        `trust_domain` is the mesh's, asked anew each time (None: identities stay as they are). An
        alias is another name of the same workloads: who comes by it is known by the mesh's own from
        then on, and so are the certificates it gets (C-S-8).
        """
        self._authenticators = tuple(authenticators)
        self._observer = observer
        self._trust_domain = trust_domain

    async def authenticate(self, credentials: Credentials) -> Caller:
        """
        Return who is calling.

        Raises: NotAuthenticated: Nobody knows; the observer was told why.
        """
        reasons: list[str] = []
        for authenticator in self._authenticators:
            try:
                caller = await authenticator.authenticate(credentials)
            except CredentialRefused as refused:
                reasons.append(f"{authenticator.how}: {refused.detail}")
                continue
            except Exception as fault:  # noqa: BLE001 (an odd credential is no way in, nor a crash)
                # Its text might quote the credential.
                reasons.append(f"{authenticator.how}: it cannot be read ({type(fault).__name__})")
                continue
            if caller is not None:
                if self._trust_domain is not None:
                    identity = replace(caller.identity, trust_domain=self._trust_domain())
                    caller = replace(caller, identity=identity)
                self._observer.recognised(caller, credentials)
                return caller
        self._observer.unknown(credentials, reasons or ["no usable credential was presented"])
        raise NotAuthenticated


class CallContext(Protocol):
    """What is needed of a gRPC call (`grpc.aio.ServicerContext` has it)."""

    def peer(self) -> str:
        """Name the other end of the connection."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the headers of the call."""
        ...


AuthenticateCall = Callable[[CallContext], Awaitable[Caller]]
"""
Who makes a gRPC call, asked before its message is read. Raises: NotAuthenticated.

A unary method served by a ``stream_unary`` handler that asks this first and reads its one message
afterwards costs nothing for strangers, however large a message they send; on the wire it is unary.
"""


async def refuse_everybody(_context: CallContext) -> Caller:
    """Know nobody: for the plaintext port, where a credential would be overheard (C-A-7)."""
    raise NotAuthenticated


def bearer_tokens(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, ...]:
    """Return the tokens of ``authorization: Bearer TOKEN`` headers, ``Istio TOKEN`` too (C-W-5)."""
    return tuple(
        value[len(scheme) :].strip()
        for name, value in metadata or ()
        if name == "authorization" and isinstance(value, str)
        for scheme in _SCHEMES
        if value[: len(scheme)].lower() == scheme and len(value) <= MAX_TOKEN_CHARACTERS
    )


def cluster_name(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the caller's ``clusterid`` header, "" if there is none (C-W-5)."""
    for name, value in metadata or ():
        if name == "clusterid" and isinstance(value, str):
            return value[:253]
    return ""
