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
import statistics
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
from mesh import NAMESPACES, Mesh
from processes import HERE, Helper, Server
from rich.console import Console
from rich.table import Table
from signing import WHO, signing

from pilothouse.certs.authority import Authority
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.resource import CDS, EDS, RDS

BETWEEN_SAMPLES_SECONDS: Final = 0.15
"""Longer than the quiet time, so that each change comes to an idle server, as most do."""
TIMEOUT_SECONDS: Final = 60.0
STORM: Final = 5_000
"""Requests for certificates that are under way at any moment of a storm."""
console = Console(stderr=True)


@dataclass(slots=True)
class Series:
    """Samples of one quantity."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.values.append(value)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        return sorted(self.values)[min(len(self.values) - 1, int(len(self.values) * 0.99))]


@dataclass(slots=True)
class Pushes:
    """
    What a kind of change cost; seconds and bytes.

    `whole` from the rename of the file to the last byte at the last proxy, `notice` of it until
    the commit began, `commit` the rest; `floor` the bare fan-out of the same bytes.
    """

    title: str
    message_bytes: int = 0
    whole: Series = field(default_factory=Series)
    notice: Series = field(default_factory=Series)
    commit: Series = field(default_factory=Series)
    floor: Series = field(default_factory=Series)
    cpu: Series = field(default_factory=Series)
    floor_cpu: Series = field(default_factory=Series)
    nodes: Series = field(default_factory=Series)


@dataclass(frozen=True, slots=True)
class Options:
    services: int
    endpoints: int
    proxies: int
    samples: int
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
        data = await self.swarm.do("recorded", type_url=type_url)
        await self.floor.do("record", name=title, data=data)
        await self._echo(title, Pushes("warm-up"))
        for index in range(1, samples + 1):
            console.print(f"\r{title}: {index}/{samples} ", end="", highlight=False)
            await self._change(type_url, change(index), pushes)
            await self._echo(title, pushes)
        console.print()
        self.results.setdefault("pushes", []).append(pushes)

    async def _change(self, type_url: str, files: tuple[Path, Path], pushes: Pushes) -> None:
        await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        await self.swarm.do("forget")
        before = self.server.metrics()
        cpu = self.server.cpu_seconds()
        changed_at, epoch = time.monotonic(), time.time() - time.monotonic()
        os.rename(*files)  # noqa: PTH104 (the very system call is what starts the clock)
        push = await self.swarm.do("await_push", type_url=type_url, timeout=TIMEOUT_SECONDS)
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

    async def _echo(self, title: str, pushes: Pushes) -> None:
        await asyncio.sleep(BETWEEN_SAMPLES_SECONDS)
        await self.swarm.do("forget")
        cpu = self.floor.cpu_seconds()
        began = await self.floor.do("push", name=title)
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
        mesh = Mesh(scratch / "mesh", options.services, options.endpoints)
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
    """Run every phase; then changes once more without debounce."""
    console.print(f"{options.services} services, cold start ...")
    async with bench(options) as run:
        await run.start()
        console.print("idle ...")
        await run.idle()
        await run.connect_floor()
        await _endpoint_changes(run, "one endpoint")
        await run.push(
            "one VirtualService",
            RDS,
            max(2, options.samples // 2),
            lambda index: run.mesh.route_change(index % NAMESPACES, 99 - index % 90),
        )
        await run.push(
            "one DestinationRule",
            CDS,
            max(2, options.samples // 2),
            lambda index: run.mesh.rule_change(index % NAMESPACES, 11 + index % 60),
        )
        await run.no_op()
        results = run.results
        results["rss_after_changes_bytes"] = run.server.rss_bytes()
    await _storm(options, results)
    async with bench(options, "--debounce", "0") as run:
        await run.start()
        await run.connect_floor()
        await _endpoint_changes(run, "one endpoint, --debounce 0")
        results["pushes"] += run.results["pushes"]
    console.print("signing ...")
    results["signing"] = await signing(max(2, options.samples // 4), options.batch)
    return results


async def _storm(options: Options, results: dict[str, Any]) -> None:
    """Measure endpoint changes while certificates are asked for, and right before."""
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
                await _endpoint_changes(run, "one endpoint, before a storm")
                await storm.do("begin", count=options.storm)
                await _endpoint_changes(
                    run, f"one endpoint, {options.storm:,} requests for certificates"
                )
                results["storm"] = await storm.do("end")
            finally:
                await storm.stop()
            results["pushes"] += run.results["pushes"]


async def _endpoint_changes(run: Bench, title: str) -> None:
    # The first change must be one, whatever an earlier series ended with.
    count = run.options.endpoints + 2 * len(run.results.get("pushes", ()))
    await run.push(
        title,
        EDS,
        run.options.samples,
        lambda index: run.mesh.endpoint_change(5, count + 1 if index % 2 == 0 else count - 1),
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


def show(options: Options, named: dict[str, str], results: dict[str, Any]) -> None:
    """Print the tables."""
    out = Console()
    out.print(
        f"\n[bold]{options.services} services of {options.endpoints} endpoints,"
        f" {NAMESPACES} namespaces, {options.proxies} proxies[/] (each of its own class)"
    )
    out.print(
        f"{named['cpu']}, {named['cores']} cores, load {named['load']}, Python {named['python']},"
        f" grpcio {named['grpcio']}, uvloop {named['uvloop']}"
    )
    out.print(f"one proxy gets {results['resources_of_a_proxy']}")
    out.print(_overview(results))
    out.print(_push_table(results["pushes"]))
    out.print(_signing_table(results))
    out.print(
        "[dim]rename: from the rename of the file to the last byte at the last proxy."
        " commit: from the start of the commit. notice: what lies between.\n"
        "floor: a bare grpc.aio server sending the same bytes to as many streams, samples"
        " alternating. p99 of few samples is nearly the worst.[/]"
    )


def _overview(results: dict[str, Any]) -> Table:
    table = Table("", "", box=None, show_header=False)
    mib = 2**20
    for name, text in (
        ("cold start to /ready", f"{results['cold_start_to_ready_seconds']:.2f} s"),
        ("cold start to first proxy", f"{results['cold_start_to_first_proxy_seconds']:.2f} s"),
        (
            "other proxies, all at once",
            f"{results['connect_seconds']:.2f} s, CPU {results['connect_cpu_seconds']:.2f} s,"
            f" {results['connect_bytes'] / mib:.0f} MiB",
        ),
        (
            "idle",
            f"RSS {results['idle_rss_bytes'] / mib:.0f} MiB"
            f" (one proxy: {results['rss_one_proxy_bytes'] / mib:.0f} MiB, after the changes:"
            f" {results['rss_after_changes_bytes'] / mib:.0f} MiB),"
            f" CPU {results['idle_cpu_share']:.1%} of a core",
        ),
        (
            "change that concerns nobody",
            f"{results['no_op_bytes']} bytes sent,"
            f" CPU {results['no_op_cpu_seconds_each'] * 1e3:.1f} ms,"
            f" {results['no_op_nodes_each']:.0f} nodes recomputed",
        ),
        ("rejected, streams lost", f"{results['rejected']:.0f}, {len(results['streams_lost'])}"),
    ):
        table.add_row(name, text)
    return table


def _push_table(all_pushes: list[Pushes]) -> Table:
    table = Table("milliseconds")
    for pushes in all_pushes:
        table.add_column(f"{pushes.title}\nmedian (p99)", justify="right")
    rows: list[tuple[str, Callable[[Pushes], str]]] = [
        ("rename to last byte", lambda p: _ms(p.whole)),
        ("  of it notice", lambda p: _ms(p.notice)),
        ("  of it commit to last byte", lambda p: _ms(p.commit)),
        ("floor", lambda p: _ms(p.floor)),
        ("rename / floor", lambda p: f"[bold]{p.whole.median / p.floor.median:.2f}[/]"),
        ("commit / floor", lambda p: f"[bold]{p.commit.median / p.floor.median:.2f}[/]"),
        ("CPU", lambda p: _ms(p.cpu)),
        ("CPU of the floor", lambda p: _ms(p.floor_cpu)),
        ("CPU / floor", lambda p: f"[bold]{p.cpu.median / p.floor_cpu.median:.2f}[/]"),
        ("nodes recomputed", lambda p: f"{p.nodes.median:.0f}"),
        ("bytes to each proxy", lambda p: f"{p.message_bytes:,}"),
        ("samples", lambda p: str(len(p.whole.values))),
    ]
    for name, cell in rows:
        table.add_row(name, *(cell(pushes) for pushes in all_pushes))
    return table


def _signing_table(results: dict[str, Any]) -> Table:
    table = Table("certificates", "a second", "raw", "ratio", "one, ms", "raw, ms")
    for each in results["signing"]:
        rate, raw = each["rate_per_second"], each["raw_rate_per_second"]
        table.add_row(
            str(each["algorithm"]), f"{rate:.0f}", f"{raw:.0f}", f"[bold]{rate / raw:.2f}[/]",
            f"{each['latency_seconds'] * 1e3:.2f}", f"{each['raw_latency_seconds'] * 1e3:.2f}",
        )  # fmt: skip
    storm = results["storm"]
    refused = ", ".join(f"{count} {name}" for name, count in storm["refused"].items()) or "none"
    table.caption = (
        f"storm: {storm['answered'] / storm['seconds']:.0f} certificates a second over the secure"
        f" port; refused: {refused}"
    )
    return table


def _ms(series: Series) -> str:
    return f"{series.median * 1e3:.1f} ({series.p99 * 1e3:.1f})"


@click.command()
@click.option("--services", default=1_000, show_default=True)
@click.option("--endpoints", default=10, show_default=True, help="Of each service.")
@click.option("--proxies", default=100, show_default=True)
@click.option("--samples", default=40, show_default=True, help="Endpoint changes to measure.")
@click.option("--quick", is_flag=True, help="A small mesh, in a few seconds.")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "results.json")
def main(
    *, services: int, endpoints: int, proxies: int, samples: int, quick: bool, output: Path
) -> None:
    """Measure the control plane and the floor beneath it."""
    options = Options(services, endpoints, min(proxies, services), samples)
    if quick:
        options = Options(50, 5, 10, 5, storm=200, batch=40)
    named = machine()
    results = asyncio.run(measure(options))
    output.write_text(
        json.dumps(
            {"machine": named, "options": asdict(options), **results}, default=asdict, indent=2
        )
    )
    show(options, named, results)


if __name__ == "__main__":
    main()
