"""
The ground where each workload has a network namespace and its traffic is intercepted, as in a pod.

Programs call the services' virtual addresses and know nothing of a sidecar. The control plane runs
in the hub's namespace, on the bridge that only this mesh can reach.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp

from pilothouse.demo.bookinfo import LOOPBACK, BookinfoWorkload, copy_mesh
from pilothouse.demo.interception import PROXY_UID
from pilothouse.demo.netns import NetworkNamespace, NetworkNamespaces
from pilothouse.model.proxies import InterceptionMode


class NamespaceGround:
    """Network namespaces on a bridge (see netns.py). Needs root."""

    interception_mode: Final = InterceptionMode.REDIRECT
    envoy_uid: Final = PROXY_UID
    loopback: Final = LOOPBACK

    def __init__(self) -> None:
        self._namespaces = NetworkNamespaces()
        self._by_workload: dict[str, NetworkNamespace] = {}

    @property
    def control_plane_address(self) -> str:
        """The bridge's address."""
        return self._namespaces.hub.address

    def copy_mesh(self, target: Path) -> None:
        """Copy the mesh without Sidecars, with virtual addresses."""
        copy_mesh(target, transparent=True)

    async def open(self, workloads: Sequence[BookinfoWorkload]) -> None:
        """Make the namespaces. Raises NamespaceError."""
        await asyncio.to_thread(self._open, workloads)

    async def close(self) -> None:
        """Remove the namespaces."""
        await asyncio.to_thread(self._namespaces.close)

    def control_plane_netns(self) -> Path | None:
        """The hub."""
        return self._namespaces.hub.path

    def netns(self, workload: BookinfoWorkload) -> Path | None:
        """The workload's own."""
        return self._by_workload[workload.name].path

    def connector(self) -> aiohttp.BaseConnector:
        """Connect from the hub, where no sidecar is: a visitor from outside the mesh."""
        return self._namespaces.hub.connector()

    def visit(self, url: str) -> str:
        """Fetch from inside the hub."""
        return f"ip netns exec {self._namespaces.hub.name} curl -s {url}"

    def _open(self, workloads: Sequence[BookinfoWorkload]) -> None:
        self._namespaces.create()
        for workload in workloads:
            namespace = self._namespaces.add(workload.name, workload.address)
            namespace.intercept()
            self._by_workload[workload.name] = namespace
