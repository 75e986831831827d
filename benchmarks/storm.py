"""
A storm of requests for certificates, as when every workload of a mesh starts anew.

Calls CreateCertificate over the secure port, `count` at once over a few connections, again and
again until told to stop. Driven by JSON lines, like `swarm.py`. It leaves the processors to the
others (nice 19), as its part is played by other machines in reality.
"""

import asyncio
import json
import os
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
        self._asked = 0
        self._answered = 0
        self._refused: dict[str, int] = {}
        self._seconds = 0.0
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
        """Blow until `end`; returns once each of `count` has asked."""
        self._asked, self._is_over, self._began = 0, False, time.monotonic()
        request = ca_pb2.IstioCertificateRequest(csr=make_request(KeyAlgorithm.ECDSA_P256).decode())
        self._running = asyncio.create_task(self._blow(count, request.SerializeToString()))
        while self._asked < count:
            await asyncio.sleep(0.01)

    async def _blow(self, count: int, message: bytes) -> None:
        async def ask_again(channel: Any) -> None:
            ask = channel.unary_unary(f"/{SERVICE}/{METHOD}")
            while True:
                try:
                    call = ask(message, metadata=self._headers, timeout=60)
                    self._asked += 1
                    await call
                    self._answered += 1
                except grpc.aio.AioRpcError as refused:
                    if self._is_over:
                        return
                    name = f"{refused.code().name} {refused.details() or ''}"[:60]
                    self._refused[name] = self._refused.get(name, 0) + 1
                    await asyncio.sleep(1)

        channels = self._channels
        await asyncio.gather(*(ask_again(channels[n % len(channels)]) for n in range(count)))

    async def end(self) -> None:
        """Take back what is under way."""
        self._seconds += time.monotonic() - self._began
        self._is_over = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def told(self) -> dict[str, Any]:
        """Answer with how many were answered and refused, and for how long it blew in all."""
        return {
            "answered": self._answered, "refused": self._refused, "seconds": self._seconds
        }  # fmt: skip


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
    # Before gRPC starts threads, which inherit it.
    os.nice(19)
    uvloop.run(main())
