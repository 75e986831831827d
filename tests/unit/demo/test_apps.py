"""The Bookinfo programs work by themselves, without a mesh between them."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pilothouse.demo.bookinfo import app_path
from pilothouse.demo.process import ChildProcess

Start = Callable[..., Awaitable[str]]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    children: list[ChildProcess] = []

    async def start_app(app: str, version: str = "v1", **upstreams: str) -> str:
        address = free_address()
        arguments = [f"--listen={address}", f"--version={version}"]
        arguments += [f"--upstream={name}={where}" for name, where in upstreams.items()]
        child = ChildProcess(
            f"{app}-{version}",
            [sys.executable, "-B", str(app_path(app)), *arguments],
            log_dir=tmp_path,
        )
        children.append(await child.start())
        host, port = address.split(":")
        async with asyncio.timeout(20):
            while True:
                child.raise_if_ended()
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return address

    yield start_app
    for child in children:
        await child.stop()


async def get(address: str, path: str, **headers: str) -> tuple[int, Any]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(headers=sent) as session,
        session.get(f"http://{address}{path}") as response,
    ):
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def test_the_page_shows_stars_of_the_version_behind_it(start: Start) -> None:
    ratings = await start("ratings")
    details = await start("details")
    reviews = await start("reviews", "v3", ratings=ratings)
    page = await start("productpage", details=details, reviews=reviews)

    status, body = await get(page, "/productpage", accept="application/json", end_user="jason")

    assert status == 200
    assert body["user"] == "jason"
    assert body["details"]["body"]["pages"] == 200
    assert body["reviews"]["body"]["version"] == "v3"
    assert body["reviews"]["body"]["colour"] == "red"
    assert [r["stars"] for r in body["reviews"]["body"]["reviews"]] == [5, 4]

    told = 'By=spiffe://t/ns/n/sa/me;Hash=1;Subject="";URI=spiffe://t/ns/n/sa/first,'
    told += 'By=spiffe://t/ns/n/sa/me;Hash=2;Subject="O=a,b";URI=spiffe://t/ns/n/sa/last'
    _, facts = await get(details, "/details", x_forwarded_client_cert=told)
    assert facts["caller"] == "spiffe://t/ns/n/sa/last"
    assert body["details"]["body"]["caller"] == ""

    status, html = await get(page, "/productpage?u=jason")
    assert status == 200
    assert "signed in as jason" in html
    assert "color:red" in html


async def test_the_page_survives_what_it_asks(start: Start) -> None:
    nobody = free_address()
    reviews = await start("reviews", "v2", ratings=nobody)
    page = await start("productpage", details=nobody, reviews=reviews)

    status, body = await get(page, "/productpage", accept="application/json")

    assert status == 200
    assert body["details"]["status"] == 503
    assert body["reviews"]["body"]["ratings_status"] == 503


async def test_the_reader_is_handed_on(start: Start) -> None:
    """Routing by header works only if programs pass the header on."""
    received: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def ratings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line]
        received.set_result({name.lower(): value for name, value in lines})
        body = b'{"stars": {}, "caller": ""}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(ratings, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        reviews = await start("reviews", "v2", ratings=f"{host}:{port}")
        await get(reviews, "/reviews", end_user="jason", traceparent="00-1-2-01", cookie="secret")
        headers = await asyncio.wait_for(received, 20)

    assert headers["host"] == "ratings:9080"
    assert headers["end-user"] == "jason"
    assert headers["traceparent"] == "00-1-2-01"
    assert "cookie" not in headers
