"""The tables of a run, for people."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from samples import Pushes, Series


def show(named: dict[str, str], results: dict[str, Any]) -> None:
    """Print the tables of a scenario."""
    out = Console()
    options = results["options"]
    scopes = "each with a Sidecar" if options["is_scoped"] else "each of its own class"
    out.print(
        f"\n[bold]{options['services']:,} services of {options['endpoints']} endpoints,"
        f" {options['namespaces']} namespaces, {options['proxies']} proxies[/] ({scopes})"
    )
    out.print(
        f"{named['cpu']}, {named['cores']} cores, load {named['load']}, Python {named['python']},"
        f" grpcio {named['grpcio']}, uvloop {named['uvloop']}"
    )
    out.print(f"one proxy gets {results['resources_of_a_proxy']}")
    out.print(_overview(results))
    out.print(_push_table(results["pushes"]))
    if "signing" in results:
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
    table.caption = _storm_line(results["storm"])
    return table


def _storm_line(storm: dict[str, Any]) -> str:
    refused = ", ".join(f"{count} {name}" for name, count in storm["refused"].items()) or "none"
    return (
        f"storm: {storm['answered'] / storm['seconds']:.0f} certificates a second over the secure"
        f" port; refused: {refused}"
    )


def show_storm(named: dict[str, str], results: dict[str, Any]) -> None:
    """Print what a storm does to pushes, and to the floor beneath them."""
    out = Console()
    out.print(f"{named['cpu']}, {named['cores']} cores, load {named['load']}")
    calm, stormy = results["pushes"]
    table = Table("median (p99), ms", "no storm", "storm", "ratio")
    rows: list[tuple[str, Callable[[Pushes], Series]]] = [
        ("rename to last byte", lambda p: p.whole),
        ("  of it notice", lambda p: p.notice),
        ("  of it commit to last byte", lambda p: p.commit),
        ("floor", lambda p: p.floor),
        ("CPU of the event loop until then", lambda p: p.loop),
        ("CPU of the server, requests included", lambda p: p.cpu),
        ("CPU of the floor", lambda p: p.floor_cpu),
    ]
    for name, of in rows:
        ratio = of(stormy).median / of(calm).median
        table.add_row(name, _ms(of(calm)), _ms(of(stormy)), f"[bold]{ratio:.2f}[/]")
    table.caption = f"{len(calm.whole.values)} samples each; {_storm_line(results['storm'])}"
    out.print(table)


def _ms(series: Series) -> str:
    return f"{series.median * 1e3:.1f} ({series.p99 * 1e3:.1f})"
