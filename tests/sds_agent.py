"""
An agent as one stands beside a proxy: secret discovery on a Unix socket, for two names.

Answers `default` with a workload's certificate and `ROOTCA` with the roots; `show` replaces them
while proxies listen. Certificates are made by our own authority.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc.aio

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilothouse.certs.authority import KeyPair

METHOD = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
SDS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
METADATA = {"PILOTHOUSE_CERTIFICATES": "agent"}
"""Metadata of a proxy with an agent."""


def agent_cluster(path: Path) -> dict[str, Any]:
    """Return the cluster by which a bootstrap leads to the agent."""
    address = {"pipe": {"path": str(path)}}
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": "sds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "sds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            kind: {
                "@type": f"type.googleapis.com/{kind}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


class Agent:
    """Serves secrets on a socket at `path`; use as an async context manager."""

    def __init__(self, path: Path, shown: KeyPair, roots_pem: bytes) -> None:
        self.path = path
        self._server = grpc.aio.server()
        self._version = 1
        self._changed = asyncio.Event()
        self._shown, self._roots_pem = shown, roots_pem

    async def __aenter__(self) -> Self:
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
        )
        service, name = METHOD.strip("/").split("/")
        generic = grpc.method_handlers_generic_handler(service, {name: handler})
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(f"unix:{self.path}")
        await self._server.start()
        self.path.chmod(0o777)  # Envoy runs as another user
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(0)

    def show(self, shown: KeyPair, roots_pem: bytes) -> None:
        """Replace the certificate and the roots on every stream."""
        self._shown, self._roots_pem = shown, roots_pem
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _stream(
        self, requests: AsyncIterator[DiscoveryRequest], _context: Any
    ) -> AsyncIterator[DiscoveryResponse]:
        first = await anext(requests)
        names = list(first.resource_names)
        while True:
            changed = self._changed
            yield self._answer(names)
            await changed.wait()

    def _answer(self, names: list[str]) -> DiscoveryResponse:
        version = str(self._version)
        answer = DiscoveryResponse(type_url=SDS, version_info=version, nonce=version)
        for name in names:
            secret = Secret(name=name)
            if name == "ROOTCA":
                secret.validation_context.trusted_ca.inline_bytes = self._roots_pem
            else:
                own = secret.tls_certificate
                own.certificate_chain.inline_bytes = self._shown.certificate_pem
                own.private_key.inline_bytes = self._shown.key_pem
            packed = answer.resources.add(type_url=SDS)
            packed.value = secret.SerializeToString()
        return answer
