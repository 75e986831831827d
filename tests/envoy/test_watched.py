"""What a proxy's own ports tell those who watch it: readiness and statistics (N-30)."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.demo.errors import NotReady
from pilothouse.translators.envoy.bootstrap import PipeAddress, SocketAddress, Workload, bootstrap

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]

WORKLOAD = Workload(name="web-1", namespace="default", addresses=("10.0.0.1",), labels={})
NOWHERE = SocketAddress(address="127.0.0.1", port=9)
# Two test runs on one machine do not meet.
HERE = f"127.{64 + os.getpid() % 190}.30.1"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, open to the user Envoys run as."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def watched(folder: Path) -> dict[str, Any]:
    """A bootstrap whose listeners are on an address of this test run."""
    admin = PipeAddress(path=str(folder / "admin.sock"))
    made = bootstrap(WORKLOAD, control_plane=NOWHERE, admin=admin, is_watched=True)
    text = json.dumps(made).replace('"address": "0.0.0.0"', f'"address": "{HERE}"')
    moved: dict[str, Any] = json.loads(text)
    return moved


async def ask(path: str, port: int) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{HERE}:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_a_ready_proxy_says_so_and_shows_its_statistics(short_path: Path) -> None:
    """N-13, N-30: and nothing else of what the admin interface can do."""
    made = watched(short_path)
    del made["dynamic_resources"]  # without a control plane it is ready at once
    async with EnvoyProcess(made, short_path) as envoy:
        await envoy.wait_ready()
        assert await ask("/healthz/ready", 15021) == (200, "LIVE\n")
        status, text = await ask("/stats/prometheus?usedonly", 15090)
        assert status == 200
        assert "envoy_server_live" in text
        for port in (15021, 15090):
            for path in ("/", "/config_dump", "/quitquitquit", "/stats/prometheus/../../ready"):
                assert (await ask(path, port))[0] == 404
        assert envoy.child.is_running
        assert "warning" not in envoy.log()


async def test_a_proxy_that_waits_for_its_config_is_not_ready(short_path: Path) -> None:
    """N-30: it takes no connection before it knows what to do with them."""
    async with EnvoyProcess(watched(short_path), short_path) as envoy:
        with pytest.raises(NotReady, match="INITIALIZING"):
            await envoy.wait_ready(timeout_seconds=1)
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask("/healthz/ready", 15021)
