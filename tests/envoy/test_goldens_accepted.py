"""
A real Envoy takes every golden story: nothing is refused, everything becomes active, as sent.

The story's mesh is served by our own server over a Unix socket to one Envoy per proxy, which runs
in a network namespace of its own because its ports are fixed.
"""

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import isolation
import pytest
import story
from google.protobuf import json_format
from independent_decoder import ours
from mesh import Mesh
from sds_agent import Agent, agent_cluster

from pilothouse._pb._pool import POOL, message_class
from pilothouse.certs.authority import Authority
from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.translators.envoy.bootstrap import PipeAddress, Workload, bootstrap

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
]
ANYBODY = Workload(name="x", namespace="default", addresses=("127.0.0.1",), labels={})
SECONDS = 45
POLL_SECONDS = 0.05

#: Stories whose Envoy needs what a test machine does not have, and why. None so far.
CANNOT_RUN: dict[str, str] = {
    "certificate_files": "its files are on nobody's disk; see test_certificate_files",
}

SECTIONS = {
    CDS: ("dynamic_active_clusters", "", "cluster"),
    LDS: ("dynamic_listeners", "active_state", "listener"),
    RDS: ("dynamic_route_configs", "", "route_config"),
    EDS: ("dynamic_endpoint_configs", "", "endpoint_config"),
}
"""Where a dump of Envoy has the resources of a type."""


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path leaves room for the name of a Unix socket."""
    path = tmp_path_factory.mktemp("g", numbered=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
@pytest.mark.parametrize("name", story.names())
async def test_envoy_takes_the_whole_story(name: str, delta: bool, short_path: Path) -> None:
    if name in CANNOT_RUN:
        pytest.skip(CANNOT_RUN[name])
    told = story.load(name)
    async with Mesh(f"unix:{short_path}/xds") as mesh:
        await mesh.take(told.changes)
        for proxy, node in told.proxies.items():
            made = bootstrap(
                ANYBODY,
                control_plane=PipeAddress(path=f"{short_path}/xds"),
                admin=PipeAddress(path=f"{short_path}/{proxy}/a"),
                delta=delta,
            )
            said = json_format.MessageToDict(node, preserving_proto_field_name=True)
            if any(each["name"] == "istio.alpn" for each in said.pop("extensions", [])):
                continue  # that profile is for another build of Envoy, which a stock one refuses
            made["node"] = {**said, "cluster": "golden"}
            made["static_resources"]["clusters"].append(agent_cluster(short_path / "sds"))
            with isolation.lonely_namespace() as netns:
                envoy = EnvoyProcess(made, short_path / proxy, netns=netns)
                async with agent(short_path / "sds"), envoy:
                    await envoy.wait_ready(timeout_seconds=SECONDS)
                    await compare(envoy, mesh, told.served(proxy))


def agent(path: Path) -> Agent:
    """Return an agent beside the proxies, for those that ask it for certificates."""
    now = datetime.now(UTC)
    authority = Authority.create("cluster.local", now)
    identity = WorkloadIdentity("cluster.local", "default", "golden")
    return Agent(path, authority.issue_workload(identity, now), authority.root_pem)


async def compare(envoy: EnvoyProcess, mesh: Mesh, served: story.Served) -> None:
    """Wait until Envoy has all that was served; its dump must then be the same messages."""
    wanted = {
        (each.type_url, each.name): message_class(each.type_url.rpartition("/")[2]).FromString(
            each.data
        )
        for group in served.values()
        for each in group
    }
    waiting: list[str] = ["everything"]
    active: dict[tuple[str, str], Any] = {}
    try:
        async with asyncio.timeout(SECONDS):
            while waiting:
                await asyncio.sleep(POLL_SECONDS)
                assert mesh.rejected() == []
                dump = await envoy.config_dump()
                active = dict(in_dump(dump))
                waiting = [*map(str, wanted.keys() - active.keys()), *not_active(dump)]
    except TimeoutError:
        pytest.fail(f"still waiting for {waiting}\n{envoy.log()}")
    for key, message in wanted.items():
        dumped = active.pop(key)
        if key[0] == EDS:  # Envoy shows hosts, not the message
            assert sorted(hosts(dumped)) == sorted(hosts(message)), key
        else:
            # Read as data: an Any in the dump was packed anew, perhaps in another order.
            assert decoded(key[0], dumped) == decoded(key[0], message), key
    # Envoy lists the hosts of all its clusters among the endpoints, not only those of EDS.
    assert [key for key in active if key[0] != EDS] == []
    refused = await envoy.stats("update_rejected|update_failure|init_fetch_timeout")
    assert {name: count for name, count in refused.items() if count} == {}


def decoded(type_url: str, message: Any) -> dict[str, Any]:
    """Return a message as data, every Any opened."""
    return ours(type_url, message.SerializeToString())


DRAINING = 3


def hosts(assignment: Any) -> Iterator[tuple[Any, ...]]:
    """Yield where requests may go, with health, weight and locality."""
    for group in assignment.endpoints:
        locality = group.locality
        for each in group.lb_endpoints:
            yield (
                str(each.endpoint.address),
                # Envoy shows two kinds of health; what drains is not healthy.
                2 if each.health_status == DRAINING else each.health_status,
                each.load_balancing_weight.value,
                (locality.region, locality.zone, locality.sub_zone),
            )


def not_active(dump: dict[str, Any]) -> Iterator[str]:
    """Yield what is warming, or has failed to become active."""
    for section in dump["configs"]:
        for cluster in section.get("dynamic_warming_clusters", ()):
            yield f"cluster {cluster['cluster']['name']}"
        for listener in section.get("dynamic_listeners", ()):
            if listener.keys() & {"warming_state", "error_state", "draining_state"}:
                yield f"listener {listener['name']}: {listener.get('error_state', 'warming')}"


def in_dump(dump: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield what is active, by type and name."""
    for section in dump["configs"]:
        for type_url, (entries, holder, field) in SECTIONS.items():
            for entry in section.get(entries, ()):
                held = entry.get(holder, {}) if holder else entry
                if field not in held:
                    continue
                message = message_class(type_url.rpartition("/")[2])()
                data = {key: value for key, value in held[field].items() if key != "@type"}
                json_format.ParseDict(data, message, descriptor_pool=POOL)
                name = message.cluster_name if type_url == EDS else message.name
                yield (type_url, name), message
