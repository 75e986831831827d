"""
The simulator's answers beside a real Envoy's, request by request.

Runs the config in a network namespace behind REDIRECT, replays the requests, and tells what Envoy
did and the simulator did not say.
"""

import asyncio
import ctypes
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from threading import Thread
from typing import Final

from probes import Ground, probes
from replay import Answer, observable, read_log, replay, serve_everything, static_resources

from pilothouse.demo.envoy import EnvoyProcess
from pilothouse.demo.interception import PROXY_UID
from pilothouse.demo.netns import NetworkNamespace, NetworkNamespaces
from pilothouse.simulator.actions import HttpForward, Redirect, TcpForward
from pilothouse.simulator.outcome import Closed, CloseReason, Outcome
from pilothouse.simulator.request import Direction, Request
from pilothouse.simulator.served import ServedConfig
from pilothouse.simulator.simulate import simulate

SECONDS: Final = 30
POLL_SECONDS: Final = 0.05
_CLONE_NEWNET: Final = 0x40000000


async def disagreements(served: ServedConfig, count: int, seed: int = 1) -> list[str]:
    """Replay `count` generated requests and return what came out differently, as texts."""
    with _folder() as folder:
        config = observable(served, folder / "up")
        requests, answers = await _replayed(config, folder, count, seed)
    return [
        f"{problem}\n  {request}\n  {answers[request.source_port]}\n  {_brief(outcome)}"
        for request in requests
        for outcome in (simulate(config, request),)
        for problem in differences(outcome, answers[request.source_port])
    ]


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder with a short path, for sockets, that Envoy's user may enter."""
    path = Path(tempfile.mkdtemp(prefix="sim"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


async def _replayed(
    config: ServedConfig, folder: Path, count: int, seed: int
) -> tuple[list[Request], dict[int, Answer]]:
    log = folder / "envoy" / "access.log"
    namespaces = NetworkNamespaces(subnet=IPv4Network("10.1.0.0/24"))
    await asyncio.to_thread(namespaces.create)
    try:
        pod = await asyncio.to_thread(namespaces.add, "pod", "10.1.0.200")
        await asyncio.to_thread(pod.intercept)
        # Served listeners may bind ports below 1024, as Envoy's user may in a pod.
        pod.run("sysctl", "-q", "-w", "net.ipv4.ip_unprivileged_port_start=0")
        ground = Ground(own_address=pod.address, peer_address=namespaces.hub.address)
        requests = list(probes(config, ground, count, seed))
        bootstrap = {
            "admin": {"address": {"pipe": {"path": f"{folder}/envoy/a"}}},
            "static_resources": static_resources(config, log),
        }
        envoy = EnvoyProcess(
            bootstrap,
            folder / "envoy",
            netns=pod.path,
            uid=PROXY_UID,
            arguments=("--file-flush-interval-msec", "20"),
        )
        async with await serve_everything(folder / "up"), envoy:
            await envoy.wait_ready(timeout_seconds=SECONDS)
            await replay(requests, _sockets(requests, pod, namespaces.hub))
            return requests, await _complete(log, requests)
    finally:
        await asyncio.to_thread(namespaces.close)


def _sockets(
    requests: list[Request], pod: NetworkNamespace, outside: NetworkNamespace
) -> list[socket.socket]:
    """Make a socket for each request where it starts."""
    starts = [
        outside if each.direction is Direction.INBOUND and each.is_captured else pod
        for each in requests
    ]
    made = {place: _sockets_in(place, starts.count(place)) for place in (pod, outside)}
    return [made[place].pop() for place in starts]


def _sockets_in(place: NetworkNamespace, count: int) -> list[socket.socket]:
    """Make many sockets in a namespace; entering it takes longer than making them."""
    made: list[socket.socket] = []

    def make() -> None:
        # A namespace belongs to a thread; this one enters and never returns.
        with place.path.open("rb") as namespace:
            entered = ctypes.CDLL(None).setns(namespace.fileno(), _CLONE_NEWNET) == 0
        if entered:
            made.extend(socket.socket() for _ in range(count))

    thread = Thread(target=make)
    thread.start()
    thread.join()
    assert len(made) == count
    for each in made:
        each.setblocking(False)
    return made


async def _complete(log: Path, requests: list[Request]) -> dict[int, Answer]:
    """Wait until Envoy has logged the end of every connection."""
    wanted = {request.source_port for request in requests}
    answers: dict[int, Answer] = {}
    async with asyncio.timeout(SECONDS):
        while True:
            answers = read_log(log)
            done = {port for port, each in answers.items() if "connection" in each.by_kind}
            if wanted <= done:
                return answers
            await asyncio.sleep(POLL_SECONDS)


def _brief(outcome: Outcome) -> str:
    places = (outcome.listener, outcome.filter_chain, outcome.virtual_host, outcome.route)
    return ", ".join([*(each.name for each in places if each), type(outcome.action).__name__])


def differences(outcome: Outcome, answer: Answer) -> Iterator[str]:
    """Yield what Envoy did and the simulator did not say."""
    said = {
        "listener": outcome.listener and outcome.listener.name,
        "chain": outcome.filter_chain and outcome.filter_chain.name,
    }
    connection = {name: answer.connection[name] for name in said}
    if said != connection:
        yield f"said {said}, was {connection}"
    action, served = outcome.action, answer.served
    if isinstance(action, Closed):
        if served.get("cluster"):
            yield f"closed for {action.reason}, went to {served['cluster']}"
        if action.reason is CloseReason.NO_FILTER_CHAIN and served:
            yield f"closed for {action.reason}, was served"
    elif isinstance(action, TcpForward):
        if served.get("cluster") not in outcome.clusters:
            yield f"said {outcome.clusters}, went to {served.get('cluster')}"
    else:
        yield from _http_differences(outcome, answer)


def _http_differences(outcome: Outcome, answer: Answer) -> Iterator[str]:
    served, action = answer.served, outcome.action
    taken = outcome.route.name if outcome.route else None
    if not served:
        yield f"said route {taken}, was not served"
        return
    if served["route"] != taken:
        yield f"said route {taken}, took {served['route']}"
    fault = outcome.fault
    is_aborted = fault is not None and fault.abort_share and served["status"] == fault.status
    if outcome.status is not None:
        if served["status"] != outcome.status:
            yield f"said status {outcome.status}, was {served['status']}"
    elif is_aborted:
        return
    elif served["status"] != 200 or served["cluster"] not in outcome.clusters:
        yield f"said {outcome.clusters}, was {served['status']} from {served['cluster']}"
    if isinstance(action, Redirect) and served["location"] != action.location:
        yield f"said location {action.location}, was {served['location']}"
    if isinstance(action, HttpForward) and outcome.status is None:
        by_name = {share.cluster: share for share in action.shares}
        host = by_name[served["cluster"]].host if served["cluster"] in by_name else None
        if served["path"] != action.path:
            yield f"said path {action.path}, was {served['path']}"
        if host is not None and served["host"] != host:
            yield f"said host {host}, was {served['host']}"
