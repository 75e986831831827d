"""Whatever users write, a real Envoy refuses nothing of what it is served, and keeps running."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import isolation
import nasty_inputs
import pytest
import pytest_asyncio
from mesh import Mesh

from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.translators.envoy.bootstrap import PipeAddress, Workload, bootstrap

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("nasty"),
]
SECONDS = 20
CLIENT = Workload(name="client", namespace="default", addresses=("10.0.0.9",), labels={})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A control plane with one Envoy, and the service that the inputs are about."""
    folder = Path(tmp_path_factory.mktemp("n"))
    async with Mesh(f"unix:{folder}/x") as mesh:
        await mesh.apply(nasty_inputs.BASE, "base.yaml")
        made = bootstrap(
            CLIENT,
            control_plane=PipeAddress(path=f"{folder}/x"),
            admin=PipeAddress(path=f"{folder}/a"),
        )
        with isolation.lonely_namespace() as netns:
            async with EnvoyProcess(made, folder / "envoy", netns=netns) as envoy:
                await envoy.wait_ready(timeout_seconds=SECONDS)
                yield mesh
                envoy.child.raise_if_ended()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", nasty_inputs.INPUTS)
async def test_envoy_refuses_nothing(mesh: Mesh, name: str) -> None:
    await mesh.apply(nasty_inputs.INPUTS[name], "nasty.yaml")
    try:
        async with asyncio.timeout(SECONDS):
            while not is_settled(mesh):  # noqa: ASYNC110 (nothing to wait on)
                await asyncio.sleep(0.01)
        assert mesh.rejected() == []
        assert [each for each in mesh.findings() if each.code == "InternalError"] == []
    finally:
        await mesh.delete("nasty.yaml")


def is_settled(mesh: Mesh) -> bool:
    """Tell whether Envoy has answered everything it was sent."""
    (stream,) = mesh.streams.status()
    return {each.state for each in stream.types} <= {"SYNCED", "ERROR"}
