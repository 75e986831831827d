"""
A simulated proxy that lives by its identity: gets its certificate and the roots by SDS over ADS.

Connects to the secure port with a token, acknowledges all it is sent, comes back when the server
goes away, and verifies the server by the roots it was sent last, as an Envoy would.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import grpc
import grpc.aio
from cryptography import x509
from fake_proxy import ADS, node

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.credentials import ROOTS, WORKLOAD
from pilothouse.model.resource import CDS, SDS

_BACK_SECONDS = 0.1


@dataclass
class Held:
    """What it lives by: the bundle it trusts, and its own leaf."""

    roots_pem: bytes
    leaf_pem: bytes = b""


class IdentityFollower:
    """One proxy; use as an async context manager. `connects` counts its streams."""

    def __init__(
        self, address: str, number: int, token: str, roots_pem: bytes, account: str = "follower"
    ) -> None:
        self.held = Held(roots_pem)
        self.connects = 0
        self._address = address
        self._token = token
        self._node = node(
            f"sidecar~10.9.{number // 250}.{number % 250 + 1}~f-{number}.default"
            "~default.svc.cluster.local",
            {
                "NAMESPACE": "default",
                "SERVICE_ACCOUNT": account,
                "PILOTHOUSE_CERTIFICATES": "ads",
            },
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def trusts(self, leaf_pem: bytes) -> bool:
        """Tell whether it would accept a certificate at this moment."""
        leaf = x509.load_pem_x509_certificate(leaf_pem)
        for root in x509.load_pem_x509_certificates(self.held.roots_pem):
            try:
                leaf.verify_directly_issued_by(root)
            except Exception:  # noqa: BLE001 (whatever is wrong with it, it is not this root)
                continue
            return True
        return False

    async def _follow(self) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._stream()
            await asyncio.sleep(_BACK_SECONDS)

    async def _stream(self) -> None:
        credentials = grpc.ssl_channel_credentials(self.held.roots_pem)
        options = [
            ("grpc.ssl_target_name_override", "istiod.istio-system.svc"),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            call = channel.stream_stream(ADS + "DeltaAggregatedResources")(
                metadata=[("authorization", f"Bearer {self._token}")]
            )
            first = pb.DeltaDiscoveryRequest(type_url=CDS, node=self._node)
            await call.write(first.SerializeToString())
            wanted = pb.DeltaDiscoveryRequest(
                type_url=SDS, resource_names_subscribe=[WORKLOAD, ROOTS]
            )
            await call.write(wanted.SerializeToString())
            self.connects += 1
            while (data := await call.read()) is not grpc.aio.EOF:
                answer = pb.DeltaDiscoveryResponse.FromString(data)
                if answer.type_url == SDS:
                    self._take(answer)
                seen = pb.DeltaDiscoveryRequest(
                    type_url=answer.type_url, response_nonce=answer.nonce
                )
                await call.write(seen.SerializeToString())

    def _take(self, answer: pb.DeltaDiscoveryResponse) -> None:
        for resource in answer.resources:
            secret = Secret.FromString(resource.resource.value)
            if secret.name == ROOTS:
                self.held.roots_pem = secret.validation_context.trusted_ca.inline_bytes
            elif secret.name == WORKLOAD:
                self.held.leaf_pem = secret.tls_certificate.certificate_chain.inline_bytes
