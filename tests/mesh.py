"""
A whole control plane in this process, fed by text: graph, publisher, server, no files and no child.

    async with Mesh() as mesh:
        await mesh.apply(YAML)
        async with mesh.proxy() as proxy: ...
"""

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from fake_proxy import NODE_ID, FakeProxy, node

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import Finding
from pilothouse.model.inputs import TABLES
from pilothouse.providers.directory_state import Change, DirectoryState
from pilothouse.translators.envoy import roots
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.server import DiscoveryServer
from pilothouse.xds.streams import Streams


class Mesh:
    """
    A control plane at `address`; use as an async context manager.

    `serving` replaces what answers for resources, for tests that serve something odd on purpose.
    """

    def __init__(self, address: str = "127.0.0.1:0", *, serving: Any = roots) -> None:
        self.graph = Graph()
        self._state = DirectoryState()
        self._publisher = Publisher(self.graph, serving, time.monotonic)
        self.streams = Streams(self._publisher)
        self._server = DiscoveryServer(self.streams)
        self._wanted = address
        self.address = ""

    async def __aenter__(self) -> Self:
        port = await self._server.start(self._wanted)
        host, colon, _ = self._wanted.rpartition(":")
        self.address = self._wanted if host == "unix" else f"{host}{colon}{port}"
        self.streams.set_ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(0)

    async def apply(self, text: str, file: str = "mesh.yaml") -> int:
        """Replace a file of the mesh's config and push; return how many proxies are concerned."""
        return await self.take(self._state.update(file, text))

    async def delete(self, file: str = "mesh.yaml") -> int:
        """Remove a file of the mesh's config and push."""
        return await self.take(self._state.update(file, None))

    async def take(self, changes: Iterable[Change]) -> int:
        """Commit objects that were read elsewhere and push."""
        self.graph.commit(
            (TABLES[change.kind], change.key, change.row)
            for change in changes
            if change.kind in TABLES
        )
        return await self._publisher.publish()

    def proxy(
        self,
        node_id: str = NODE_ID,
        metadata: Mapping[str, Any] | None = None,
        *,
        delta: bool = True,
        made: Node | None = None,
        **options: Any,
    ) -> FakeProxy:
        """Return a simulated proxy of this mesh, not yet connected."""
        introduced = made if made is not None else node(node_id, metadata)
        return FakeProxy(self.address, delta=delta, node=introduced, **options)

    def findings(self) -> list[Finding]:
        """Return what reading and translating have to say at present."""
        return sorted({*self._state.findings(), *self.graph.findings()})

    def rejected(self) -> list[RejectedResource]:
        """Return what connected proxies refuse at present."""
        return [each for _, each in self.streams.rejected()]
