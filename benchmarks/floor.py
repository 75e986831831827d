"""
The floor: what grpc.aio itself needs to send given bytes to given streams.

A server without any control plane in it, on the same event loop and with the same options as ours.
It writes one recorded message to all streams at once and reads what they answer, and does nothing
else: no graph, no session, no framing. Driven by JSON lines, like `swarm.py`.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import uvloop

from pilothouse.xds.server import OPTIONS


class Floor:
    """The commands of `run.py`."""

    def __init__(self) -> None:
        self._contexts: list[Any] = []
        self._messages: dict[str, bytes] = {}
        self._server: Any = None

    async def start(self) -> int:
        """Listen; answer with the port."""
        self._server = grpc.aio.server(options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((_Any(handler),))
        port: int = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def _stream(self, _requests: AsyncIterator[bytes], context: Any) -> None:
        self._contexts.append(context)
        while await context.read() is not grpc.aio.EOF:
            pass

    async def streams(self) -> int:
        return len(self._contexts)

    async def record(self, name: str, data: str) -> None:
        self._messages[name] = base64.b64decode(data)

    async def push(self, name: str) -> float:
        """Send to all; answer with the moment it began."""
        data = self._messages[name]
        began = time.monotonic()
        await asyncio.gather(*(context.write(data) for context in self._contexts))
        return began


class _Any(grpc.GenericRpcHandler):
    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: Any) -> Any:  # noqa: ARG002 (grpc names it)
        return self._handler


async def main() -> None:
    floor = Floor()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer = await getattr(floor, command.pop("do"))(**command)
        print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
