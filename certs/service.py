"""
``istio.v1.auth.IstioCertificateService/CreateCertificate``: how agents get their certificates.

Who is calling is settled before the message is read, so a stranger's message costs nothing however
large it is. The identity that is certified is the caller's, whatever the request says. Answers,
codes and texts are Istio's (security.md C-W-1 to C-W-5, C-A-6, C-A-9, C-S-6).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.callers import OPAQUE, Caller, NotAuthenticated
from pilothouse.certs.gate import Gate
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.issuer import Issuer
from pilothouse.certs.refusals import (
    CsrProblem,
    CsrRefused,
    Refusal,
    RefusalCode,
    SigningOverloaded,
)

SERVICE: Final = "istio.v1.auth.IstioCertificateService"
METHOD: Final = "CreateCertificate"

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""A request is 2 KB, with hints for node agents some more."""

NO_AUTHORITY: Final = (
    "this server has no certificate authority; ask the one that issues for the mesh (CA_ADDR)"
)
_NO_IMPERSONATION: Final = "request impersonation authentication failure"
_MESSAGE_SECONDS: Final = 10.0
"""How long a caller that is known may take to say what it wants."""
_KNOWN_SECONDS: Final = 1.0
"""How long it is taken for granted that a credential still counts."""
_LONGEST_SECONDS: Final = 10**9
"""Any longer lifetime is as wrong as this one, and fits a timedelta."""

_STATUS: Final = {
    RefusalCode.CSR: grpc.StatusCode.INVALID_ARGUMENT,
    RefusalCode.TTL: grpc.StatusCode.INVALID_ARGUMENT,
    RefusalCode.NOT_READY: grpc.StatusCode.INTERNAL,
    RefusalCode.GENERATION: grpc.StatusCode.INTERNAL,
}

Context = grpc.aio.ServicerContext[bytes, bytes]
AuthenticateContext = Callable[[Context], Awaitable[Caller]]
Arrived = Callable[[Context], str]
"""Take note of a call; return the address it comes from, as addresses take turns."""


class CertificateObserver(Protocol):
    """Somebody who counts and logs requests for certificates."""

    def requested(self) -> None:
        """A request came."""
        ...

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        """A caller got a certificate."""
        ...

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        """A caller got none; None if it was sent away before anybody asked who it is."""
        ...


class CertificateService:
    """Answers CreateCertificate with what an issuer makes."""

    def __init__(
        self,
        issuer: Issuer,
        authenticate: AuthenticateContext,
        observer: CertificateObserver,
        gate: Gate | None = None,
        arrived: Arrived = grpc.aio.ServicerContext.peer,
    ) -> None:
        """Ask `authenticate` who calls (it raises NotAuthenticated), and `issuer` to sign."""
        self._issuer = issuer
        self._arrived = arrived
        self._authenticate = authenticate
        self._observer = observer
        self._gate = gate or Gate()
        self.message_seconds = _MESSAGE_SECONDS
        self.known_seconds = _KNOWN_SECONDS

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return what a `grpc.aio` server mounts."""
        # Unary on the wire; as a stream it is read only once the caller is known.
        method: Any = grpc.stream_unary_rpc_method_handler(self.create_certificate)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})

    async def create_certificate(self, _requests: object, context: Context) -> bytes:
        """Answer one call."""
        self._observer.requested()
        try:
            # To know a caller costs as much as the rest, so that has its turn too.
            await self._gate.turn(self._arrived(context))
            caller = await self._authenticate(context)
        except NotAuthenticated as unknown:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(unknown))
            raise
        except SigningOverloaded as overloaded:
            self._observer.refused(None, overloaded)
            await context.abort(_status(overloaded), f"CSR signing error ({overloaded})")
            raise
        answer = await self._answer(caller, context)
        if isinstance(answer, bytes):
            return answer
        await context.abort(*answer)
        raise AssertionError(answer)  # abort has raised

    async def _answer(
        self, caller: Caller, context: Context
    ) -> bytes | tuple[grpc.StatusCode, str]:
        """
        Read the message and return the answer, or how the call ends.

        An abort keeps all frames that it passes through until the garbage collector comes by, so
        it must not pass through one that holds a message of many megabytes.
        """
        known_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self.message_seconds):
                data: object = await context.read()
        except TimeoutError:
            return grpc.StatusCode.DEADLINE_EXCEEDED, "no request for a certificate came"
        try:
            # Decoded before it is let in: what cannot be read takes nobody's place.
            request = _decode(data)
            if request.metadata.fields["ImpersonatedIdentity"].string_value:
                # For node agents, whom no rule here knows.
                return grpc.StatusCode.UNAUTHENTICATED, _NO_IMPERSONATION
            async with self._gate:
                if asyncio.get_running_loop().time() - known_at > self.known_seconds:
                    # What was revoked or has ended meanwhile must not be changed into a
                    # certificate that lives for weeks.
                    caller = await self._authenticate(context)
                chain = await self._issuer.sign(
                    request.csr.encode(),
                    caller.identity,
                    timedelta(seconds=min(max(request.validity_duration, 0), _LONGEST_SECONDS)),
                )
        except NotAuthenticated as unknown:
            return grpc.StatusCode.UNAUTHENTICATED, str(unknown)
        except Refusal as refusal:
            self._observer.refused(caller, refusal)
            return _status(refusal), f"CSR signing error ({refusal})"
        self._observer.issued(caller, chain)
        answer = ca_pb2.IstioCertificateResponse(
            cert_chain=[element.decode("ascii") for element in chain.elements]
        )
        return answer.SerializeToString()


def send_elsewhere() -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the service for a server without an authority (C-R-11): unimplemented, and why."""

    async def refuse(_requests: object, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NO_AUTHORITY)
        raise AssertionError  # abort has raised

    method: Any = grpc.stream_unary_rpc_method_handler(refuse)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})


def refuse_all() -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the service for a port where nobody can be known (C-A-7)."""

    async def refuse(_requests: object, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, OPAQUE)
        raise NotAuthenticated

    method: Any = grpc.stream_unary_rpc_method_handler(refuse)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})


def _decode(data: object) -> ca_pb2.IstioCertificateRequest:
    if not isinstance(data, bytes):
        raise CsrRefused(CsrProblem.MALFORMED, "the call brought no message")
    if len(data) > MAX_MESSAGE_BYTES:
        raise CsrRefused(
            CsrProblem.TOO_LARGE,
            f"the message has {len(data)} bytes, more than the {MAX_MESSAGE_BYTES} allowed",
        )
    try:
        return ca_pb2.IstioCertificateRequest.FromString(data)
    except DecodeError:
        raise CsrRefused(
            CsrProblem.MALFORMED, "the message is not an IstioCertificateRequest"
        ) from None


def _status(refusal: Refusal) -> grpc.StatusCode:
    if isinstance(refusal, SigningOverloaded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return _STATUS[refusal.code]
