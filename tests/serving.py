"""A whole server in this process, on free ports, over a temporary directory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from pilothouse.runtime.addresses import Address
from pilothouse.runtime.control_plane import ControlPlane
from pilothouse.runtime.ports import BoundPorts
from pilothouse.runtime.settings import Settings

ANY = Address("127.0.0.1", 0)

MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.1.0.1
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
"""

ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
  - timeout: 3s
    route:
    - destination: {host: web}
"""


class Serving:
    """A running server and a client of its monitoring port."""

    def __init__(self, plane: ControlPlane, ports: BoundPorts, http: aiohttp.ClientSession) -> None:
        """Keep the parts."""
        self.plane = plane
        self.ports = ports
        self._http = http

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and text."""
        async with self._http.get(f"http://{self.ports.monitoring}{path}") as answer:
            return answer.status, await answer.text()

    async def json(self, path: str) -> Any:
        """Return decoded JSON."""
        async with self._http.get(f"http://{self.ports.monitoring}{path}") as answer:
            return await answer.json()

    async def post(self, path: str) -> tuple[int, str]:
        """Post nothing; return status and text."""
        async with self._http.post(f"http://{self.ports.monitoring}{path}") as answer:
            return answer.status, await answer.text()

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Ask until the JSON answer satisfies `holds`; return it."""
        async with asyncio.timeout(10):
            while not holds(found := await self.json(path)):  # noqa: ASYNC110 (nothing to wait on)
                await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Serving]:
    """Run a server; at the end it must have stopped cleanly."""
    plane = ControlPlane(settings)
    stop = asyncio.Event()
    ready: asyncio.Future[BoundPorts] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(plane.run(stop, ready.set_result))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    async with aiohttp.ClientSession() as http:
        try:
            yield Serving(plane, ready.result(), http)
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task


def replace_file(file: Path, text: str) -> None:
    """Replace a file by renaming over it, as editors do."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text)
    draft.replace(file)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds of a part that cannot tell."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.01)
