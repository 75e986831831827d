"""
A storm of requests for certificates, as when every workload of a mesh starts anew.

Calls CreateCertificate over the secure port, `count` at once over a few connections, again and
again until told to stop. Driven by JSON lines, like `swarm.py`.
"""

import asyncio
import json
import sys
import time
from typing import Any

import grpc
import grpc.aio
import uvloop
from signing import make_request

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.service import METHOD, SERVICE

CONNECTIONS = 250


class Storm:
    """The commands of `run.py`."""

    def __init__(self) -> None:
        self._channels: list[Any] = []
        self._headers: tuple[tuple[str, str], ...] = ()
        self._running: asyncio.Task[None] | None = None
        self._answered = 0
        self._refused: dict[str, int] = {}
        self._began = 0.0
        self._is_over = False

    async def prepare(self, port: int, roots: str, token: str) -> int:
        """Connect; answer with the number of connections."""
        credentials = grpc.ssl_channel_credentials(roots.encode())
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)
            for _ in range(CONNECTIONS)
        ]
        self._headers = (("authorization", f"Bearer {token}"),)
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        return len(self._channels)

    async def begin(self, count: int) -> None:
        self._answered, self._refused, self._began = 0, {}, time.monotonic()
        request = ca_pb2.IstioCertificateRequest(csr=make_request(KeyAlgorithm.ECDSA_P256).decode())
        self._running = asyncio.create_task(self._blow(count, request.SerializeToString()))

    async def _blow(self, count: int, message: bytes) -> None:
        async def ask_again(channel: Any) -> None:
            call = channel.unary_unary(f"/{SERVICE}/{METHOD}")
            while True:
                try:
                    await call(message, metadata=self._headers, timeout=60)
                    self._answered += 1
                except grpc.aio.AioRpcError as refused:
                    if self._is_over:
                        return
                    name = f"{refused.code().name} {refused.details() or ''}"[:60]
                    self._refused[name] = self._refused.get(name, 0) + 1
                    await asyncio.sleep(1)

        channels = self._channels
        await asyncio.gather(*(ask_again(channels[n % len(channels)]) for n in range(count)))

    async def end(self) -> dict[str, Any]:
        """Stop; answer with how many were answered and refused, and for how long it blew."""
        seconds, self._is_over = time.monotonic() - self._began, True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        return {"answered": self._answered, "refused": self._refused, "seconds": seconds}


async def main() -> None:
    storm = Storm()
    reader = asyncio.StreamReader(limit=1 << 24)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        try:
            answer = await getattr(storm, command.pop("do"))(**command)
            print(json.dumps({"answer": answer}), flush=True)
        except Exception as error:  # noqa: BLE001 (told to who asked)
            print(json.dumps({"error": repr(error)}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
