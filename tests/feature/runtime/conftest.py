"""A server over a temporary directory with one service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serving import ANY, MESH, Serving, serving

from pilothouse.runtime.settings import Settings


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """Return a directory with one service."""
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "web.yaml").write_text(MESH)
    return folder


@pytest.fixture
async def server(mesh: Path) -> AsyncIterator[Serving]:
    """Return a server over that directory, without TLS."""
    settings = Settings(config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=None, monitoring_addr=ANY)
    async with serving(settings) as running:
        yield running
