"""Pushes go before certificates (issue 4): by counts, in a whole server with a storm at work."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from certificates import csr
from fake_proxy import FakeProxy, node
from serving import ANY, MESH, replace_file, serving

from pilothouse._pb.istio.v1.auth import ca_pb2
from pilothouse.certs.precedence import RightOfWay
from pilothouse.certs.root_store import certificate_file, read_state
from pilothouse.certs.service import METHOD, SERVICE
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import EDS
from pilothouse.runtime.settings import Settings

WEB = WorkloadIdentity("cluster.local", "default", "web")
PROXIES = 10
CHANGES = 12
STORM = 60


async def ask_again(address: str, roots: bytes, token: str) -> None:
    """Ask for certificates, one after the other."""
    message = ca_pb2.IstioCertificateRequest(csr=csr().decode()).SerializeToString()
    credentials = grpc.ssl_channel_credentials(roots)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}")

        async def ask() -> None:
            while True:
                await call(message, metadata=(("authorization", f"Bearer {token}"),))

        await asyncio.gather(*(ask() for _ in range(STORM // 4)))


async def test_no_request_enters_while_a_wave_is_pushed(tmp_path: Path, mesh: Path) -> None:
    """From the commit to the last write nobody is recognised, and nothing more is answered."""
    settings = Settings(
        config_dir=mesh, grpc_addr=ANY, secure_grpc_addr=ANY, monitoring_addr=ANY,
        ca_dir=tmp_path / "ca",
    )  # fmt: skip
    during: Counter[str] = Counter()
    in_all: Counter[str] = Counter()
    async with serving(settings) as server, AsyncExitStack() as stack:
        plane = server.plane
        assert plane.identities.authority is not None
        # However busy the machine, no wave here is so long that it must leave a break.
        plane.pushes_first.precedence._way = RightOfWay(longest_seconds=3_600)
        proxies = [
            await stack.enter_async_context(
                FakeProxy(
                    str(server.ports.grpc),
                    node=node(
                        f"sidecar~10.0.1.{number}~p-{number}.default~default.svc.cluster.local"
                    ),
                )
            )
            for number in range(PROXIES)
        ]
        for proxy in proxies:
            await proxy.until(lambda p: p.is_complete)

        def watch(owner: Any, name: str) -> None:
            """Count the calls of a method, and those while a wave is pushed."""
            method = getattr(owner, name)

            def counted(*arguments: Any) -> Any:
                in_all[name] += 1
                if plane.streams.is_writing:
                    during[name] += 1
                    during["not closed"] += not plane.pushes_first.precedence.is_closed
                return method(*arguments)

            setattr(owner, name, counted)

        watch(plane.identities.caller_log, "recognised")
        watch(plane.identities.authority._log, "issued")
        watch(plane.streams._observer, "pushed")
        state = read_state(tmp_path / "ca")
        assert state is not None
        roots = (tmp_path / "ca" / certificate_file(state.current)).read_bytes()
        token, _ = TokenStore(tmp_path / "ca").create(WEB, datetime.now(UTC))
        storm = [
            asyncio.create_task(ask_again(str(server.ports.secure_grpc), roots, token))
            for _ in range(4)
        ]
        try:
            for change in range(1, CHANGES + 1):
                before = in_all["issued"]
                await _until(lambda before=before: in_all["issued"] > before)  # type: ignore[misc]
                counts = [proxy.messages[EDS] for proxy in proxies]
                replace_file(mesh / "web.yaml", MESH.replace("10.0.0.1]", f"10.0.0.{change + 1}]"))
                await _until(
                    lambda counts=counts: all(  # type: ignore[misc]
                        proxy.messages[EDS] > count
                        for proxy, count in zip(proxies, counts, strict=True)
                    )
                )
        finally:
            for task in storm:
                task.cancel()
            await asyncio.gather(*storm, return_exceptions=True)
    assert during["pushed"] >= CHANGES * PROXIES
    assert during["recognised"] == during["not closed"] == 0
    assert during["issued"] <= CHANGES, "more than one answer that was on its way"
    assert in_all["issued"] >= CHANGES


async def _until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (nothing to wait on)
            await asyncio.sleep(0.005)
