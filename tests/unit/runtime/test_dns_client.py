"""Names are looked up at name servers, whose answers are not trusted further than they must be."""

import asyncio
from pathlib import Path

import pytest
from dns_server import SERVER_FAILURE, DnsServer
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.runtime.addresses import Address
from pilothouse.runtime.dns_client import MOST_ADDRESSES, Found, NameServers, NotFound
from pilothouse.runtime.dns_messages import (
    BadAnswer,
    Kind,
    ServerFailed,
    question,
    read_answer,
)

NOWHERE = Path("/nonexistent")
NAME = "gw.example.com"


def client(*servers: DnsServer, seconds: float = 5.0) -> NameServers:
    """A client of these servers, without the files of this machine."""
    return NameServers(
        [each.address for each in servers],
        resolv_conf=NOWHERE,
        hosts=NOWHERE,
        try_seconds=seconds,
    )


async def test_addresses_of_both_families_with_their_time() -> None:
    """MN-03: A and AAAA records, sorted, for as long as the shortest time to live."""
    async with DnsServer({NAME: ["203.0.113.2", "203.0.113.1", "2001:db8::1"]}) as server:
        server.ttl_seconds = 77
        found = await client(server).look_up(NAME)
    assert found == Found(("2001:db8::1", "203.0.113.1", "203.0.113.2"), 77.0)
    assert sorted(server.asked) == [(NAME, Kind.IPV4), (NAME, Kind.IPV6)]


async def test_an_alias_leads_on() -> None:
    records = {NAME: ["b.elb.example"], "b.elb.example": ["203.0.113.1"]}
    async with DnsServer(records) as server:
        assert (await client(server).look_up(NAME)).addresses == ("203.0.113.1",)


async def test_a_name_nobody_knows() -> None:
    async with DnsServer({"empty.example": []}) as server:
        with pytest.raises(NotFound, match="no such name"):
            await client(server).look_up(NAME)
        with pytest.raises(NotFound, match="has no address"):
            await client(server).look_up("empty.example")


async def test_the_next_server_is_asked_where_one_fails_or_is_silent() -> None:
    async with DnsServer() as silent, DnsServer() as failing, DnsServer({NAME: ["::2"]}) as good:
        silent.is_silent = True
        failing.codes = {0: SERVER_FAILURE}
        found = await client(silent, failing, good, seconds=1.0).look_up(NAME)
        assert found.addresses == ("::2",)
        with pytest.raises(NotFound, match="server failure"):
            await client(failing).look_up(NAME)
        with pytest.raises(NotFound, match="no name server answers"):
            await client(silent, seconds=0.05).look_up(NAME)


async def test_one_family_may_fail() -> None:
    """What the other is known to have is then not forgotten (`is_partial`)."""
    async with DnsServer({NAME: ["203.0.113.1", "2001:db8::1"]}) as server:
        server.codes = {Kind.IPV6: SERVER_FAILURE}
        found = await client(server).look_up(NAME)
    assert (found.addresses, found.is_partial) == (("203.0.113.1",), True)


async def test_a_long_answer_comes_over_a_stream() -> None:
    async with DnsServer({NAME: [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(100)]}) as server:
        server.truncates = True
        found = await client(server).look_up(NAME)
    assert len(found.addresses) == MOST_ADDRESSES


async def test_a_forged_answer_is_passed_over() -> None:
    """An answer under another number is not the one that was asked for."""
    async with DnsServer({NAME: ["203.0.113.1"]}) as server:
        server.says_other_numbers = True
        assert (await client(server).look_up(NAME)).addresses == ("203.0.113.1",)


async def test_addresses_that_are_nobodys_are_left_out() -> None:
    async with DnsServer({NAME: ["0.0.0.0", "224.0.0.1", "ff02::1"]}) as server:
        with pytest.raises(NotFound, match="has no address"):
            await client(server).look_up(NAME)


@pytest.mark.parametrize("name", ["gw..example", "x" * 64 + ".example", "gäste.example", ""])
async def test_a_name_that_cannot_be_asked_for(name: str) -> None:
    async with DnsServer() as server:
        with pytest.raises(NotFound, match="can be asked for"):
            await client(server).look_up(name)
    assert server.asked == []


async def test_the_files_of_the_machine(tmp_path: Path) -> None:
    """Its hosts go first; its name servers are read each time."""
    hosts, resolv_conf = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("203.0.113.9 other GW.example.com # ours\n::9 gw.example.com\nnonsense\n")
    asked = NameServers(resolv_conf=resolv_conf, hosts=hosts)
    assert (await asked.look_up(NAME)).addresses == ("203.0.113.9", "::9")
    with pytest.raises(NotFound, match="names no name server"):
        await asked.look_up("else.example")
    resolv_conf.write_text("# nameserver 10.0.0.1\nnameserver not-an-address\nsearch x\n")
    with pytest.raises(NotFound, match="names no name server"):
        await asked.look_up("else.example")


async def test_a_server_that_is_not_there() -> None:
    """Nobody listens on the port: the kernel says so at once."""
    async with asyncio.timeout(5):
        asked = NameServers([Address("127.0.0.1", 1)], resolv_conf=NOWHERE, hosts=NOWHERE)
        with pytest.raises(NotFound, match="no name server answers"):
            await asked.look_up(NAME)


@given(st.binary(max_size=80), st.integers(0, 90))
def test_no_bytes_break_the_reader(noise: bytes, at: int) -> None:
    """An answer with a part overwritten is read, refused, or a failure of the server."""
    asked = question(7, NAME, Kind.IPV4)
    whole = DnsServer({NAME: ["203.0.113.1", "203.0.113.2"]}).answer(asked)
    for data in (noise, asked + noise, whole[:at] + noise + whole[at + len(noise) :], whole[:at]):
        try:
            answer = read_answer(data, asked)
        except (BadAnswer, ServerFailed):
            continue
        assert all("." in each for each in answer.addresses)


def test_the_whole_answer_is_read() -> None:
    asked = question(7, NAME, Kind.IPV4)
    whole = DnsServer({NAME: ["203.0.113.1", "203.0.113.2"]}).answer(asked)
    assert read_answer(whole, asked).addresses == ("203.0.113.1", "203.0.113.2")
