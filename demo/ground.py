"""
Where the programs of a demo run: on loopback addresses, or in network namespaces.

A `Ground` answers the few questions on which the two differ, so that the mesh and the story are
the same for both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from pilothouse.demo.bookinfo import LOOPBACK, BookinfoWorkload, copy_mesh
from pilothouse.demo.ports import PortNeed, check_free
from pilothouse.model.proxies import InterceptionMode


class Ground(Protocol):
    """What differs between kinds of places to run in."""

    @property
    def interception_mode(self) -> InterceptionMode:
        """How traffic reaches the Envoys."""

    @property
    def control_plane_address(self) -> str:
        """The IP address the control plane serves on."""

    @property
    def envoy_uid(self) -> int | None:
        """The user the Envoys run as; None is ours."""

    @property
    def loopback(self) -> str:
        """First two octets of the loopback addresses in the config."""

    def copy_mesh(self, target: Path) -> None:
        """Write this ground's variant of the example mesh to `target`."""

    async def open(self, workloads: Sequence[BookinfoWorkload]) -> None:
        """Make ready for `workloads`. Raises DemoError if something is in the way."""

    async def close(self) -> None:
        """Leave nothing behind. Idempotent; called even if `open` failed."""

    def control_plane_netns(self) -> Path | None:
        """The network namespace of the control plane; None is ours."""

    def netns(self, workload: BookinfoWorkload) -> Path | None:
        """The network namespace of `workload`; None is ours."""

    def connector(self) -> aiohttp.BaseConnector:
        """A connector that reaches the control plane and the workloads' addresses."""

    def visit(self, url: str) -> str:
        """What a person does to open `url`."""


class LoopbackGround:
    """Addresses of 127.0.0.0/8, no privileges. `loopback` is their first two octets."""

    interception_mode: Final = InterceptionMode.NONE
    control_plane_address: Final = "127.0.0.1"
    envoy_uid: Final = None

    def __init__(self, *, loopback: str = LOOPBACK) -> None:
        self.loopback = loopback

    def copy_mesh(self, target: Path) -> None:
        """Copy the mesh with its Sidecars."""
        copy_mesh(target, loopback=self.loopback)

    async def open(self, workloads: Sequence[BookinfoWorkload]) -> None:
        """Check that every address is free. Raises PortBusy."""
        check_free(
            PortNeed(address=address, port=port, purpose=workload.name)
            for workload in workloads
            for address, port in workload.ports
        )

    async def close(self) -> None:
        """Nothing was made."""

    def control_plane_netns(self) -> Path | None:
        """Ours."""
        return None

    def netns(self, workload: BookinfoWorkload) -> Path | None:  # noqa: ARG002 (all share ours)
        """Ours."""
        return None

    def connector(self) -> aiohttp.BaseConnector:
        """Connect plainly."""
        return aiohttp.TCPConnector()

    def visit(self, url: str) -> str:
        """Open it in a browser."""
        return url
