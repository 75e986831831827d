"""Namespaces reach each other and nothing else, and go away with their maker."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pilothouse.demo import guard
from pilothouse.demo.interception import INBOUND_PORT, OUTBOUND_PORT, iptables_rules, nft_rules
from pilothouse.demo.netns import NetworkNamespace, NetworkNamespaces

pytestmark = [
    pytest.mark.root,
    # One process: each run removes what the dead have left, which these tests make.
    pytest.mark.xdist_group("demo"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and the program ip"
    ),
]
TIMEOUT_SECONDS = 20


@pytest.fixture
def namespaces() -> Iterator[NetworkNamespaces]:
    with NetworkNamespaces() as made:
        yield made


def listen(namespace: NetworkNamespace, port: int, address: str = "0.0.0.0") -> socket.socket:
    server = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    server.listen()
    return server


async def connect(source: NetworkNamespace, address: str, port: int) -> socket.socket:
    client = source.socket(socket.AF_INET, socket.SOCK_STREAM)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await asyncio.get_running_loop().sock_connect(client, (address, port))
    return client


async def accept(server: socket.socket) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        connection, _ = await asyncio.get_running_loop().sock_accept(server)
    connection.close()


async def test_workloads_reach_each_other_over_the_bridge(namespaces: NetworkNamespaces) -> None:
    a = namespaces.add("a", "10.244.77.11")
    b = namespaces.add("b", "10.244.77.12")

    with listen(b, 9080) as server, await connect(a, b.address, 9080):
        await accept(server)
    with listen(b, 9080) as server, await connect(namespaces.hub, b.address, 9080):
        await accept(server)


def test_this_machine_has_no_way_in(namespaces: NetworkNamespaces) -> None:
    namespaces.add("a", "10.244.77.11")

    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout

    assert "10.244.77." not in routes


@pytest.mark.parametrize("tool", ["iptables", "nft"])
async def test_traffic_is_intercepted_on_both_sides(
    namespaces: NetworkNamespaces, tool: str
) -> None:
    """LS-12: what a program sends arrives at 15001, what others send it at 15006."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    a = namespaces.add("a", "10.244.77.11")
    b = namespaces.add("b", "10.244.77.12")
    if tool == "iptables":
        a.run("iptables-restore", "--noflush", text_in=iptables_rules())
    else:
        a.run("nft", "-f", "-", text_in=nft_rules())

    with (
        listen(a, OUTBOUND_PORT) as outbound,
        listen(a, INBOUND_PORT) as inbound,
        listen(a, 9080, "127.0.0.1") as own,
    ):
        # a virtual address that no machine has
        with await connect(a, "10.244.78.1", 9080):
            await accept(outbound)
        with await connect(b, a.address, 9080):
            await accept(inbound)
        # a program talking to itself is left alone
        with await connect(a, "127.0.0.1", 9080):
            await accept(own)


def test_closing_removes_every_namespace(namespaces: NetworkNamespaces) -> None:
    made = namespaces.add("a", "10.244.77.11")
    sleep = ["ip", "netns", "exec", made.name, "sh", "-c", "echo in; exec sleep 1000"]
    with subprocess.Popen(sleep, stdout=subprocess.PIPE) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline() == b"in\n"

        namespaces.close()

        assert inside.wait(TIMEOUT_SECONDS) != 0
    assert not made.path.exists()
    assert not namespaces.hub.path.exists()


async def test_a_killed_maker_leaves_nothing() -> None:
    """The guard removes the namespaces of a maker that got SIGKILL."""
    text = (
        "import os; from pilothouse.demo.netns import NetworkNamespaces\n"
        "n = NetworkNamespaces().create(); n.add('a', '10.244.77.11')\n"
        "print(n.hub.path, flush=True); os.kill(os.getpid(), 9)"
    )
    maker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await maker.communicate()
    hub = said.decode().strip()
    owner = hub.removeprefix(f"/run/netns/{guard.PREFIX}").removesuffix("-hub")
    assert owner.startswith(f"{maker.pid}.")

    async with asyncio.timeout(TIMEOUT_SECONDS):
        while guard.namespaces_of(owner):  # noqa: ASYNC110 (nobody announces the removal)
            await asyncio.sleep(0.02)


def test_only_namespaces_of_the_dead_are_leftovers(namespaces: NetworkNamespaces) -> None:
    dead = f"{guard.PREFIX}{os.getpid()}.1-old"  # our number, but of an earlier process
    subprocess.run(["ip", "netns", "add", dead], check=True)
    try:
        left = guard.leftovers()
        assert dead in left
        assert namespaces.hub.name not in left
    finally:
        guard.remove([dead])
    assert dead not in guard.leftovers()
