"""
`make bench`: measure a mesh from cold start to single changes, beside the floor of the same run.

Three processes: the server as users start it, the simulated proxies (`swarm.py`) and a bare
grpc.aio server that sends the same bytes to as many streams (`floor.py`). Samples of the server
and of the floor alternate, so that whatever else the machine does hits both. Ratios are the
result; absolute times are of the machine named above the table. Nothing passes or fails here.
"""

import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click
from mesh import Mesh
from processes import HERE, Helper, Server
from report import show, show_storm
from rich.console import Console
from samples import Pushes
from signing import WHO, signing

from pilothouse.certs.authority import Authority
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.resource import CDS, EDS, RDS

BETWEEN_SAMPLES_SECONDS: Final = 0.15
"""Longer than the quiet time, so that each change comes to an idle server, as most do."""
TIMEOUT_SECONDS: Final = 60.0
STORM: Final = 5_000
"""Requests for certificates that are under way at any moment of a storm."""
STORM_TURNS: Final = 5
CALM_SECONDS: Final = 0.5
CALM_SHARE: Final = 0.05
"""Of a processor: a server that takes less has done what the storm left behind."""
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Options:
    """A scenario; with `is_scoped` every proxy has a Sidecar."""

    services: int
    endpoints: int
    proxies: int
    samples: int
    namespaces: int = 10
    is_scoped: bool = False
    storm: int = STORM
    batch: int = 400


@dataclass(slots=True)
class Bench:
    """One run: the parts, and the results so far."""

    options: Options
    mesh: Mesh
    scratch: Path
    swarm: Helper
    floor: Helper
    server: Server
    results: dict[str, Any] = field(default_factory=dict)

    async def start(self) -> None:
        """Cold start until the first proxy has everything, then the other proxies."""
        identities = [asdict(each) for each in self.mesh.proxies(self.options.proxies)]
        first = await self._connect(identities[:1])
        server = self.server
        self.results["resources_of_a_proxy"] = first["resources"]
        self.results["cold_start_to_ready_seconds"] = server.ready_at - server.started_at
        self.results["cold_start_to_first_proxy_seconds"] = first["complete_at"] - server.started_at
        self.results["rss_one_proxy_bytes"] = server.rss_bytes()
        cpu, began = server.cpu_seconds(), time.monotonic()
        rest = await self._connect(identities[1:])
        self.results["connect_seconds"] = rest["complete_at"] - began
        self.results["connect_cpu_seconds"] = server.cpu_seconds() - cpu
        self.results["connect_bytes"] = rest["size_bytes"]

    async def _connect(self, identities: list[dict[str, str]]) -> Any:
        return await self.swarm.do(
            "connect", port=self.server.grpc_port, proxies=identities, timeout=TIMEOUT_SECONDS
        )

    async def idle(self) -> None:
        """Memory and processor time while nothing happens."""
        await asyncio.sleep(1)
        cpu, began = self.server.cpu_seconds(), time.monotonic()
        await asyncio.sleep(2)
        share = (self.server.cpu_seconds() - cpu) / (time.monotonic() - began)
        self.results["idle_cpu_share"] = share
        self.results["idle_rss_bytes"] = self.server.rss_bytes()

    async def connect_floor(self) -> None:
        port = await self.floor.do("start")
        await self.swarm.do("connect_echoes", port=port, count=self.options.proxies)
        while await self.floor.do("streams") < self.options.proxies:
            await asyncio.sleep(0.01)

    async def push(
        self, title: str, type_url: str, samples: int, change: Callable[[int], tuple[Path, Path]]
    ) -> None:
        """Measure changes one by one, each followed by the floor's turn."""
        pushes = Pushes(title)
        await self._change(type_url, change(0), Pushes("warm-up"))
        await self._record(type_url)
        for index in range(1, samples + 1):
            console.print(f"\r{title}: {index}/{samples} ", end="", highlight=False)
            await self._change(type_url, change(index), pushes)
            await self._echo(type_url, pushes)
        console.print()
        self.results.setdefault("pushes", []).append(pushes)

    async def _record(self, type_url: str) -> None:
        """Let the floor send what the last change sent."""
        data = await self.swarm.do("recorded", type_url=type_url)
        await self.floor.do("record", name=type_url, data=data)
        await self._echo(type_url, Pushes("warm-up"))

    async def in_turns(
        self,
        storm: Helper,
        titles: tuple[str, str],
        type_url: str,
        change: Callable[[int], tuple[Path, Path]],
    ) -> None:
        """Measure changes in calm and in a storm, some of each by turns."""
        calm, stormy = (Pushes(title) for title in titles)
        index = 0
        await self._change(type_url, change(index), Pushes("warm-up"))
        await self._record(type_url)
        for turn in range(STORM_TURNS):
            await self._calm_down()
            for pushes in (calm, stormy):
                if pushes is stormy:
                    await storm.do("begin", count=self.options.storm)
                for _ in range(max(2, self.options.samples // STORM_TURNS)):
                    index += 1
                    await self._change(type_url, change(index), pushes)
                    await self._echo(type_url, pushes)
            await storm.do("end")
            console.print(
                f"\rin turns with a storm: {turn + 1}/{STORM_TURNS} ", end="", highlight=False
            )
        console.print()
        self.results.setdefault("pushes", []).extend((calm, stormy))

    async def _calm_down(self) -> None:
        """Wait until the server has nothing to do."""
        while True:
            cpu = self.server.cpu_seconds()
            await asyncio.sleep(CALM_SECONDS)
            if self.server.cpu_seconds() - cpu < CALM_SECONDS * CALM_SHARE:
                return

    async def _change(self, type_url: str, files: tuple[Path, Path], pushes: Pushes) -> None:
        await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        await self.swarm.do("forget")
        before = self.server.metrics()
        cpu, loop = self.server.cpu_seconds(), self.server.loop_seconds()
        changed_at, epoch = time.monotonic(), time.time() - time.monotonic()
        os.rename(*files)  # noqa: PTH104 (the very system call is what starts the clock)
        push = await self.swarm.do("await_push", type_url=type_url, timeout=TIMEOUT_SECONDS)
        pushes.loop.add(self.server.loop_seconds() - loop)
        await asyncio.sleep(0.02)  # the acknowledgements are part of the cost
        pushes.cpu.add(self.server.cpu_seconds() - cpu)
        last = max(push["last_bytes_at"])
        after = self.server.metrics()
        committed_at = after["pilothouse_last_commit_timestamp_seconds"] - epoch
        pushes.whole.add(last - changed_at)
        pushes.notice.add(committed_at - changed_at)
        pushes.commit.add(last - committed_at)
        name = "pilothouse_graph_nodes_recomputed_total"
        pushes.nodes.add(after[name] - before[name])
        pushes.message_bytes = push["size_bytes"]

    async def _echo(self, type_url: str, pushes: Pushes) -> None:
        await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        await self.swarm.do("forget")
        cpu = self.floor.cpu_seconds()
        began = await self.floor.do("push", name=type_url)
        echo = await self.swarm.do("await_echo", timeout=TIMEOUT_SECONDS)
        await asyncio.sleep(0.02)
        pushes.floor_cpu.add(self.floor.cpu_seconds() - cpu)
        pushes.floor.add(max(echo["last_bytes_at"]) - began)

    async def no_op(self) -> None:
        """A change that no proxy should hear of."""
        await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        await self.swarm.do("forget")
        name = "pilothouse_graph_nodes_recomputed_total"
        before, cpu = self.server.metrics(), self.server.cpu_seconds()
        for index in range(5):
            os.rename(*self.mesh.irrelevant_change(7, f"mark {index}"))  # noqa: PTH104
            await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        traffic = await self.swarm.do("traffic")
        after = self.server.metrics()
        self.results["no_op_bytes"] = traffic["size_bytes"]
        self.results["no_op_cpu_seconds_each"] = (self.server.cpu_seconds() - cpu) / 5
        self.results["no_op_nodes_each"] = (after[name] - before[name]) / 5
        self.results["rejected"] = after["pilot_total_xds_rejects"]
        self.results["streams_lost"] = traffic["ended"]


@asynccontextmanager
async def bench(options: Options, *server_options: str) -> AsyncIterator[Bench]:
    """Start all processes over a new mesh; end them whatever happens."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-") as folder:
        scratch = Path(folder)
        scoped = options.proxies if options.is_scoped else 0
        root = scratch / "mesh"
        mesh = Mesh(root, options.services, options.endpoints, options.namespaces, scoped)
        mesh.write()
        swarm = await Helper.start("swarm.py")
        floor = await Helper.start("floor.py")
        running = [swarm, floor]
        try:
            await swarm.do("forget")  # it is up, and its imports do not compete
            await floor.do("streams")
            server = await Server.start(mesh.root, scratch, *server_options)
            running.append(server)
            yield Bench(options, mesh, scratch, swarm, floor, server)
        finally:
            for each in running:
                await each.stop()


async def measure(options: Options) -> dict[str, Any]:
    """Run every phase of a scenario."""
    console.print(f"{options.services:,} services, {options.proxies} proxies: cold start ...")
    async with bench(options) as run:
        await run.start()
        console.print("idle ...")
        await run.idle()
        await run.connect_floor()
        await _endpoint_changes(run, "one endpoint")
        mesh, samples = run.mesh, max(2, options.samples // 2)
        await run.push(
            "one VirtualService",
            RDS,
            samples,
            lambda index: mesh.route_change(mesh.changed_namespace(index), 99 - index % 90),
        )
        await run.push(
            "one DestinationRule",
            CDS,
            samples,
            lambda index: mesh.rule_change(mesh.changed_namespace(index), 11 + index % 60),
        )
        await run.no_op()
        run.results["rss_after_changes_bytes"] = run.server.rss_bytes()
        run.results["options"] = asdict(options)
        return run.results


async def measure_without_debounce(options: Options) -> list[Pushes]:
    """Return what the endpoint change costs under `--debounce 0`."""
    console.print("without debounce ...")
    async with bench(options, "--debounce", "0") as run:
        await run.start()
        await run.connect_floor()
        await _endpoint_changes(run, "one endpoint, --debounce 0")
        found: list[Pushes] = run.results["pushes"]
        return found


async def measure_all(options: Options, large: Options | None) -> dict[str, Any]:
    """Run the scenarios; the large one's results are under `large`."""
    results = await measure(options)
    stormy = await measure_storm(options)
    results["pushes"] += stormy["pushes"]
    results["storm"] = stormy["storm"]
    results["pushes"] += await measure_without_debounce(options)
    console.print("signing ...")
    results["signing"] = await signing(max(2, options.samples // 4), options.batch)
    if large is not None:
        results["large"] = await measure(large)
    return results


async def measure_storm(options: Options) -> dict[str, Any]:
    """Measure endpoint changes in turns with a storm of requests for certificates and without."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-bench-ca-") as folder:
        authority = Path(folder) / "ca"
        async with bench(options, "--ca-dir", str(authority)) as run:
            await run.start()
            await run.connect_floor()
            storm = await Helper.start("storm.py")
            try:
                token, _ = TokenStore(authority).create(WHO, datetime.now(UTC))
                roots = Authority.open(authority, "cluster.local", datetime.now(UTC)).root_pem
                await storm.do(
                    "prepare", port=run.server.secure_port, roots=roots.decode(), token=token
                )
                stormy = f"one endpoint, {options.storm:,} requests for certificates"
                mesh, more = run.mesh, options.endpoints + 1
                await run.in_turns(
                    storm,
                    ("one endpoint, no storm", stormy),
                    EDS,
                    lambda index: mesh.endpoint_change(mesh.seen_by_all, more - 2 * (index % 2)),
                )
                told: dict[str, Any] = await storm.do("told")
            finally:
                await storm.stop()
            return {"storm": told, "pushes": run.results["pushes"], "options": asdict(options)}


async def _endpoint_changes(run: Bench, title: str) -> None:
    # The first change must be one, whatever an earlier series ended with.
    count = run.options.endpoints + 2 * len(run.results.get("pushes", ()))
    await run.push(
        title,
        EDS,
        run.options.samples,
        lambda index: run.mesh.endpoint_change(
            run.mesh.seen_by_all, count + 1 if index % 2 == 0 else count - 1
        ),
    )


def machine() -> dict[str, str]:
    """Name what the numbers belong to."""
    info = Path("/proc/cpuinfo")
    model = next(
        (line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    ) if info.exists() else platform.processor()  # fmt: skip
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{each:.1f}" for each in os.getloadavg()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "uvloop": version("uvloop"),
    }


@click.command()
@click.option("--services", default=1_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each service.")
@click.option("--proxies", default=100, show_default=True)
@click.option("--samples", default=40, show_default=True, help="Endpoint changes to measure.")
@click.option("--quick", is_flag=True, help="A small mesh, in a few seconds.")
@click.option(
    "--large",
    is_flag=True,
    help="Also 10,000 services in 100 namespaces and 200 proxies with a Sidecar each.",
)
@click.option("--storm", is_flag=True, help="Only pushes during a storm of requests.")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "results.json")
def main(
    *,
    services: int,
    endpoints: int,
    proxies: int,
    samples: int,
    quick: bool,
    large: bool,
    storm: bool,
    output: Path,
) -> None:
    """Measure the control plane and the floor beneath it."""
    options = Options(services, endpoints, min(proxies, services), samples)
    second = Options(10_000, 10, 200, samples, 100, is_scoped=True)
    if quick:
        options = Options(50, 5, 10, 5, storm=200, batch=40)
        second = Options(100, 5, 20, 4, 10, is_scoped=True)
    named = machine()
    if storm:
        results = asyncio.run(measure_storm(options))
        output.write_text(json.dumps({"machine": named, **results}, default=asdict, indent=2))
        show_storm(named, results)
        return
    results = asyncio.run(measure_all(options, second if large else None))
    output.write_text(json.dumps({"machine": named, **results}, default=asdict, indent=2))
    show(named, results)
    if large:
        show(named, results["large"])


if __name__ == "__main__":
    main()
