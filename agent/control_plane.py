"""
Calls to the control plane: certificates, and the roots of the mesh as they change.

Token and root file are read anew for every connection, so that both may be replaced at any time.
Who we are is proved by the token, and by the certificate we hold while it is good.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.agent.identity import BadAnswer, HeldIdentity, Trust
from pilothouse.errors import SourceError
from pilothouse.model.credentials import ROOTS
from pilothouse.model.resource import SDS

_CREATE: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_STREAM_SECRETS: Final = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
_STREAM_ALL: Final = (
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
)
CALL_SECONDS: Final = 30.0
"""So long a mesh of thousands waits that starts anew; who asks again is the last of the line."""


class CannotRead(SourceError):
    """A file that is needed to call the control plane cannot be read."""

    def __init__(self, path: Path, problem: str) -> None:
        """Keep the path."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"{self.path} cannot be read: {self.problem}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneAccess:
    """
    Where the control plane is (``HOST:PORT``), how it is verified, and who we say we are.

    `address` and `name` are the host's, for the node of the discovery stream.
    """

    target: str
    server_name: str
    root_file: Path
    token_file: Path
    name: str
    address: str
    domain: str = "cluster.local"


class ControlPlaneClient:
    """See the module docstring."""

    def __init__(self, access: ControlPlaneAccess) -> None:
        """Nothing is opened yet."""
        self._access = access

    async def create_certificate(
        self, csr_pem: bytes, lifetime: timedelta, held: HeldIdentity | None
    ) -> tuple[str, ...]:
        """
        Have a key certified; `held` proves who we are beside the token, None if nothing does.

        Raises: CannotRead; grpc.aio.AioRpcError: The control plane refuses or cannot be reached.
        """
        request = ca_pb2.IstioCertificateRequest(
            csr=csr_pem.decode("ascii"), validity_duration=int(lifetime.total_seconds())
        )
        async with self._channel(held) as channel:
            call = channel.unary_unary(_CREATE)
            data = await call(
                request.SerializeToString(),
                metadata=self._metadata(needs_token=held is None),
                timeout=CALL_SECONDS,
            )
        try:
            return tuple(ca_pb2.IstioCertificateResponse.FromString(data).cert_chain)
        except DecodeError as problem:
            raise BadAnswer("The authority's answer cannot be read.") from problem

    async def follow_trust(self, held: HeldIdentity) -> AsyncIterator[Trust]:
        """
        Yield the roots and revocations of the mesh, now and whenever they change.

        A bundle is acknowledged when the next is asked for, so that the control plane knows what
        is in use. Raises: CannotRead; grpc.aio.AioRpcError.
        """
        async with self._channel(held) as channel:
            call = channel.stream_stream(_STREAM_SECRETS)(
                metadata=self._metadata(needs_token=False)
            )
            request = DiscoveryRequest(type_url=SDS, resource_names=[ROOTS], node=self._node(held))
            await call.write(request.SerializeToString())
            while isinstance(data := await call.read(), bytes):
                try:
                    answer = DiscoveryResponse.FromString(data)
                    secrets = [Secret.FromString(each.value) for each in answer.resources]
                except DecodeError as problem:
                    raise BadAnswer("The roots that were sent cannot be read.") from problem
                for secret in secrets:
                    context = secret.validation_context
                    yield Trust(context.trusted_ca.inline_bytes, context.crl.inline_bytes)
                acknowledged = DiscoveryRequest(
                    type_url=SDS,
                    resource_names=[ROOTS],
                    version_info=answer.version_info,
                    response_nonce=answer.nonce,
                )
                await call.write(acknowledged.SerializeToString())

    @asynccontextmanager
    async def discovery_stream(self, held: HeldIdentity) -> AsyncIterator[Any]:
        """Open an aggregated stream whose messages are plain bytes. Raises: CannotRead."""
        async with self._channel(held) as channel:
            yield channel.stream_stream(_STREAM_ALL)(metadata=self._metadata(needs_token=False))

    @asynccontextmanager
    async def _channel(self, held: HeldIdentity | None) -> AsyncIterator[Any]:
        roots = _read(self._access.root_file)
        if held is None:
            credentials = grpc.ssl_channel_credentials(roots)
        else:
            # What we were told since then counts too: the file may be older than the mesh's roots.
            credentials = grpc.ssl_channel_credentials(
                roots + b"\n" + held.trust.roots_pem, held.key_pem, held.chain_pem
            )
        options = [
            ("grpc.ssl_target_name_override", self._access.server_name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 30_000),
        ]
        # The stubs know less than the library: serializers and grace have defaults.
        channel: Any = grpc.aio.secure_channel(self._access.target, credentials, options=options)
        try:
            yield channel
        finally:
            await channel.close()

    def _metadata(self, *, needs_token: bool) -> tuple[tuple[str, str], ...]:
        try:
            token = _read(self._access.token_file).decode("ascii", "replace").strip()
        except CannotRead:
            if needs_token:
                raise
            return ()
        return (("authorization", f"Bearer {token}"),)

    def _node(self, held: HeldIdentity) -> Node:
        access, identity = self._access, held.identity
        namespace = identity.namespace
        where = f"{access.name}.{namespace}~{namespace}.svc.{access.domain}"
        node = Node(id=f"sidecar~{access.address}~{where}")
        node.metadata.update(
            {
                "NAME": access.name,
                "NAMESPACE": namespace,
                "SERVICE_ACCOUNT": identity.service_account,
                "PILOTHOUSE_CERTIFICATES": "agent",
            }
        )
        return node


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise CannotRead(path, problem.strerror or str(problem)) from problem


def brief(error: Exception) -> str:
    """Return what went wrong in a sentence; gRPC's own text has many lines."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {(error.details() or '')[:300]}"
    return str(error)
