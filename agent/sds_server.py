"""
Secret discovery on a Unix socket, as Envoys ask their agent for it.

State of the world only, one stream per secret as a rule; other methods are unimplemented (D-A-2).
The socket is its owner's and group's: whoever can connect can have the key.
"""

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import structlog

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DiscoveryRequest,
    DiscoveryResponse,
)
from pilothouse.agent.secrets import LOOK_AT_FILES_SECONDS, AgentSecrets, Asked, is_in_files
from pilothouse.errors import SourceError
from pilothouse.model.resource import SDS, content_version

SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_SOCKET_UMASK: Final = 0o117
_MAX_NAMES: Final = 64

Context = grpc.aio.ServicerContext[bytes, bytes]

log = structlog.get_logger()


class CannotServe(SourceError):
    """The socket cannot be listened on."""

    def __init__(self, path: Path, problem: str) -> None:
        """Keep the path."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"Cannot listen on {self.path}: {self.problem}."


def somebody_listens(path: Path) -> bool:
    """Tell whether another provider of secrets (SPIRE, say) serves the socket (D-A-1)."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class SdsServer:
    """Serves `secrets` on a socket."""

    def __init__(self, secrets: AgentSecrets, path: Path) -> None:
        """Nothing is opened yet."""
        self._secrets = secrets
        self._path = path
        self._server = grpc.aio.server()
        method: Any = grpc.stream_stream_rpc_method_handler(self._stream)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"StreamSecrets": method})
        self._server.add_generic_rpc_handlers((handler,))

    async def start(self) -> None:
        """Listen. Raises: CannotServe."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError as problem:
            raise CannotServe(self._path, str(problem)) from problem
        # From here on: folders of such modes could not be entered.
        umask = os.umask(_SOCKET_UMASK)
        try:
            with suppress(FileNotFoundError):
                self._path.unlink()  # left by an agent that was killed
            self._server.add_insecure_port(f"unix:{self._path}")
            await self._server.start()
        except (OSError, RuntimeError) as problem:
            raise CannotServe(self._path, str(problem)) from problem
        finally:
            os.umask(umask)

    async def stop(self) -> None:
        """End every stream."""
        await self._server.stop(0)

    async def _stream(self, _requests: object, context: Context) -> None:
        asked = Asked()
        self._secrets.streams.add(asked)
        reader = asyncio.create_task(self._read(context, asked))
        writer = asyncio.create_task(self._write(context, asked))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._secrets.streams.discard(asked)
            async with self._secrets.changed:
                self._secrets.changed.notify_all()
        if asked.fault:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, asked.fault)

    async def _read(self, context: Context, asked: Asked) -> None:
        while isinstance(data := await context.read(), bytes):
            request = DiscoveryRequest.FromString(data)
            if request.type_url != SDS or len(request.resource_names) > _MAX_NAMES:
                asked.fault = "a few secrets are served here and nothing else"
                return
            if request.HasField("error_detail"):
                log.warning(
                    "sds.refused_by_proxy",
                    names=list(request.resource_names),
                    error=request.error_detail.message[:300],
                )
            elif asked.nonce and request.response_nonce == asked.nonce:
                asked.accepted = dict(asked.sent)
            names = tuple(dict.fromkeys(request.resource_names))
            is_news = names != asked.names or asked.accepted == asked.sent
            asked.names = names
            if is_news:
                async with self._secrets.changed:
                    self._secrets.changed.notify_all()

    async def _write(self, context: Context, asked: Asked) -> None:
        number = 0
        while True:
            # Between the look and the wait nothing else runs, so that no change is missed.
            async with self._secrets.changed:
                found = {name: self._secrets.get(name) for name in asked.names}
                versions = {name: each.version for name, each in found.items() if each}
                if not versions or versions == asked.sent:
                    await self._wait(any(map(is_in_files, asked.names)))
                    continue
            number += 1
            answer = DiscoveryResponse(
                type_url=SDS,
                nonce=str(number),
                version_info=content_version("".join(versions.values()).encode()),
            )
            for each in found.values():
                if each is not None:
                    answer.resources.add(type_url=SDS, value=each.data)
            asked.sent, asked.nonce = versions, answer.nonce
            await context.write(answer.SerializeToString())
            log.info("sds.sent", names=list(versions), peer_count=1)

    async def _wait(self, looks_at_files: bool) -> None:  # noqa: FBT001
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AT_FILES_SECONDS if looks_at_files else None):
                await self._secrets.changed.wait()
