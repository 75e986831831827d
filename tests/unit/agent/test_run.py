"""The agent's process: the program beside it, and providers of secrets that were there first."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.agent.control_plane import ControlPlaneAccess
from pilothouse.agent.run import AgentOptions, run
from pilothouse.agent.sds_server import CannotServe


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket."""
    folder = tmp_path_factory.mktemp("g")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def options(folder: Path, *command: str) -> AgentOptions:
    access = ControlPlaneAccess(
        target="127.0.0.1:1",
        server_name="istiod.istio-system.svc",
        root_file=folder / "absent",
        token_file=folder / "absent",
        name="web",
        address="127.0.0.1",
    )
    return AgentOptions(access=access, socket=folder / "s", command=command)


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -TERM $$", 143)])
async def test_the_agent_ends_as_its_program_does(folder: Path, script: str, code: int) -> None:
    """Also while the control plane is away, and with no file at hand."""
    async with asyncio.timeout(20):
        assert await run(options(folder, "sh", "-c", script)) == code


async def test_who_was_there_first_serves(folder: Path) -> None:
    """D-A-1: the socket of another provider is left alone."""
    said: list[bytes] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read())
        writer.close()

    async with await asyncio.start_unix_server(other, folder / "s"), asyncio.timeout(20):
        assert await run(options(folder, "true")) == 0
        reader, writer = await asyncio.open_unix_connection(folder / "s")
        writer.write(b"still there")
        writer.write_eof()
        await reader.read()
        writer.close()
    assert said[-1] == b"still there"


async def test_a_socket_that_cannot_be_is_said(folder: Path) -> None:
    (folder / "file").touch()
    made = AgentOptions(access=options(folder).access, socket=folder / "file" / "s")
    with pytest.raises(CannotServe, match="Cannot listen on"):
        await run(made)
