"""``pilothouse secret`` with a whole server and a real Envoy: both tell of the same certificate."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from workplace import CLOSED, eventually, guarded, handshake, workplace

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("identity"),
]
ADDRESS = "127.0.0.1"
WEB = "spiffe://cluster.local/ns/default/sa/web"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("s", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def test_what_the_server_sent_is_what_the_envoy_has(folder: Path) -> None:
    """D-A-7: by node, and by the Envoy's own admin; serial numbers agree with the handshake's."""
    with socket.create_server((ADDRESS, 0)) as probe:
        port = int(probe.getsockname()[1])
    async with workplace(folder, CLOSED, guarded("web", ADDRESS, port)) as place:
        await place.write_token("web")
        await place.write_token("client")
        client = await place.client_context("client")
        async with place.envoy("web") as envoy:
            await envoy.wait_ready()
            leaf = await eventually(lambda: handshake(client, ADDRESS, port))
            server = ("--server", f"http://{place.server.ports.monitoring}")
            admin = f"unix:{folder}/web/admin"
            told = json.loads(await place.run("secret", "web-1.default", *server, "-o", "json"))
            has = json.loads(await place.run("secret", "--admin", admin, "-o", "json"))
            for found in (told, has):
                by_name = {each["name"]: each for each in found}
                (own,) = by_name["default"]["certificates"]
                assert own["serial"] == f"{leaf.serial_number:x}"
                assert own["spiffeId"] == WEB
                assert by_name["default"]["hasKey"] is True
                (root,) = by_name["ROOTCA"]["certificates"]
                assert root["isAuthority"] is True
                assert (root["subject"], own["issuer"]) == ("O=cluster.local", "O=cluster.local")
            for arguments in (("web-1.default", *server), ("--admin", admin)):
                table = await place.run("secret", *arguments)
                assert f"{leaf.serial_number:x}" in table
                assert "redacted" not in table
