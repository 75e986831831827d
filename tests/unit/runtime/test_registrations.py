"""The shell around the book of who is registered: time, commits, refusals, what is told."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from fake_proxy import node
from prometheus_client import CollectorRegistry

from pilothouse.api.decode import decode
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.runtime.commit import Change
from pilothouse.runtime.registrations import (
    MAX_REFUSALS,
    REFUSALS_KEPT_SECONDS,
    Registrations,
)
from pilothouse.runtime.registrations_file import RegistrationsFile
from pilothouse.xds.node import read_proxy
from pilothouse.xds.transport import EndReason, StreamEnded

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: shop}
spec: {template: {serviceAccount: web}}
"""
IDENTITY = WorkloadIdentity("cluster.local", "shop", "web")


class Around:
    """What the shell is given: a clock that is set, and commits that are counted."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.offered: list[Change] = []
        self.puts = 0
        self.made = Registrations(
            offer=self.offer,
            put=self.put,
            grace=timedelta(seconds=10),
            clock=lambda: self.now,
            registry=CollectorRegistry(),
            knows_callers=True,
            memory=RegistrationsFile(None),
        )
        group = decode(yaml.safe_load(GROUP)).object
        assert group is not None
        self.made.take([("WorkloadGroup", group.meta.key, group)])

    def offer(self, changes: Iterable[Change]) -> None:
        self.offered.extend(changes)

    async def put(self, changes: Iterable[Change]) -> None:
        self.offered.extend(changes)
        self.puts += 1

    def codes(self) -> list[str]:
        return [each.code for each in self.made.findings()]


@pytest.fixture
def around() -> Around:
    """Return a shell that knows one group."""
    return Around()


def proxy(number: int, identity: WorkloadIdentity | None = IDENTITY, **metadata: Any) -> Proxy:
    """Return a workload that asks to be registered."""
    node_id = f"sidecar~10.0.{number // 250}.{number % 250 + 1}~web-{number}.shop~x"
    made = read_proxy(node(node_id, {"AUTO_REGISTER_GROUP": "web", **metadata}))
    return replace(made, identity=identity)


async def test_who_comes_at_once_goes_together(around: Around) -> None:
    """Callers are not told of each workload by itself when many come back after an outage."""
    await asyncio.gather(*(around.made.prepare(proxy(number)) for number in range(50)))
    assert (around.puts, len(around.offered)) == (1, 50)
    around.now += 0.09  # less than what lies between commits
    await asyncio.gather(*(around.made.prepare(proxy(number)) for number in range(50, 100)))
    assert (around.puts, len(around.offered)) == (2, 100)


async def test_who_is_known_waits_for_nobody(around: Around) -> None:
    """A stream that comes back, or a second one, changes nothing and needs no commit."""
    await around.made.prepare(proxy(1))
    around.made.connected(proxy(1))
    await around.made.prepare(proxy(1))
    assert around.puts == 1


async def test_others_pass(around: Around) -> None:
    """Most proxies ask for nothing."""
    plain = replace(proxy(1), registration=None)
    await around.made.prepare(plain)
    around.made.connected(plain)
    around.made.reported(plain, "down")
    around.made.disconnected(plain)
    assert (around.puts, around.offered, around.made.status()) == (0, [], [])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (proxy(1, AUTO_REGISTER_GROUP="nope"), EndReason.FAILED_PRECONDITION),
        (proxy(1, AUTO_REGISTER_GROUP="", WORKLOAD_ENTRY="nope"), EndReason.FAILED_PRECONDITION),
        (proxy(1, None), EndReason.UNAUTHENTICATED),
        (
            proxy(1, WorkloadIdentity("cluster.local", "shop", "other")),
            EndReason.PERMISSION_DENIED,
        ),
        (proxy(1, NETWORK="No_Name"), EndReason.INVALID_ARGUMENT),
    ],
)
async def test_refusals_by_their_codes(around: Around, asked: Proxy, reason: EndReason) -> None:
    """WG-01, NM-19: each ends the stream, registers nothing and is told."""
    with pytest.raises(StreamEnded) as ended:
        await around.made.prepare(asked)
    assert ended.value.reason is reason
    assert (around.offered, around.codes()) == ([], ["RegistrationRefused"])
    around.now += REFUSALS_KEPT_SECONDS
    assert around.codes() == []


async def test_who_is_let_in_later_is_forgiven(around: Around) -> None:
    """What was refused for a while is no news once it is right."""
    with pytest.raises(StreamEnded):
        await around.made.prepare(proxy(1, None))
    await around.made.prepare(proxy(1))
    assert around.codes() == []


async def test_refusals_are_bounded(around: Around) -> None:
    """Whoever tries without end pushes out older ones, and fills nothing."""
    for number in range(MAX_REFUSALS + 50):
        with pytest.raises(StreamEnded):
            await around.made.prepare(proxy(number, None))
    assert len(around.codes()) == MAX_REFUSALS


async def test_a_server_that_stops_waits_for_no_commit(around: Around) -> None:
    """Commits have ended by then, and a workload that waits for one must not hold it up."""
    asked, never = asyncio.Event(), asyncio.Event()

    async def put(_changes: Iterable[Change]) -> None:
        asked.set()
        await never.wait()

    around.made._put = put  # what a stopped commit cycle does
    running = asyncio.create_task(around.made.run())
    waiting = asyncio.create_task(around.made.prepare(proxy(1)))
    await asked.wait()
    running.cancel()
    await asyncio.wait({running, waiting})
    assert waiting.cancelled()
