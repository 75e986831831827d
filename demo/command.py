"""
``pilothouse demo``: options, signals and exit codes around the story.

Exit code 0 means that every stage was seen in traffic; 1 that one was not, or that the demo could
not run; 130 that it was interrupted.
"""

import asyncio
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.markup import escape

from pilothouse.demo.bookinfo import LOOPBACK
from pilothouse.demo.errors import DemoError
from pilothouse.demo.ground import Ground, LoopbackGround
from pilothouse.demo.mesh import BookinfoMesh
from pilothouse.demo.screen import RichScreen
from pilothouse.demo.story import READERS, Pace, tell
from pilothouse.demo.traffic import Traffic

OK: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130

_READING_SECONDS: Final = 2.5
_LOOPBACK_FORM: Final = re.compile(r"127\.(25[0-5]|2[0-4]\d|1?\d?\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked of the demo; `pace_seconds` is the pause for reading."""

    transparent: bool = False
    keep: bool = False
    delta: bool = True
    pace_seconds: float = _READING_SECONDS
    loopback: str = LOOPBACK
    workdir: Path | None = None


async def run(options: Options, console: Console | None = None) -> int:
    """Run the demo to its end, to a failure, or to SIGINT or SIGTERM; returns the exit code."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    keeping = asyncio.Event()
    show = asyncio.create_task(_show(options, console or Console(), keeping, interrupted))
    stop = asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({show, stop}, return_when=asyncio.FIRST_COMPLETED)
        if show.done():
            return show.result()
        if not keeping.is_set():
            show.cancel()  # every child is stopped on the way out
        with suppress(asyncio.CancelledError):
            return await show
        return INTERRUPTED
    finally:
        stop.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _show(
    options: Options, console: Console, keeping: asyncio.Event, interrupted: asyncio.Event
) -> int:
    with RichScreen(console) as screen:
        try:
            mesh = BookinfoMesh(_ground(options), delta=options.delta, workdir=options.workdir)
            screen.say(
                "[bold]Pilothouse demo.[/bold] Starting a control plane, six programs and an Envoy "
                "beside each ..."
            )
            async with mesh:
                screen.say(f"The mesh's config is in [bold]{mesh.config_dir}[/bold].")
                pace = Pace(read_seconds=options.pace_seconds)
                async with Traffic(mesh.url, READERS, connector=mesh.ground.connector) as traffic:
                    seen = await tell(mesh, traffic, screen, pace)
                if options.keep:
                    keeping.set()
                    _invite(screen, mesh)
                    await _wait(mesh, interrupted)
        except DemoError as error:
            screen.say(f"[red]{escape(str(error))}[/red]")
            return FAILED
        except SystemExit:
            return FAILED  # rich, when whoever read our output has gone
        screen.say("")
        if seen:
            screen.say("[green]All stages were seen in traffic.[/green] Everything is stopped.")
        return OK if seen else FAILED


async def _wait(mesh: BookinfoMesh, interrupted: asyncio.Event) -> None:
    while not interrupted.is_set():
        mesh.raise_if_ended()
        with suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), 0.5)


def _invite(screen: RichScreen, mesh: BookinfoMesh) -> None:
    visit = mesh.ground.visit
    screen.say("")
    screen.say("[bold]The mesh keeps running.[/bold] Ctrl-C stops it.")
    screen.say(f"  Product page    {visit(mesh.url)}")
    screen.say(f"  as jason        {visit(mesh.url + '?u=jason')}")
    screen.say(f"  Config          {mesh.config_dir}  (edit a file and load the page again)")
    screen.say(f"  Logs            {mesh.workdir}")
    screen.say(f"  Proxies         {visit(mesh.monitoring_url + '/debug/syncz')}")
    screen.say(f"  Metrics         {visit(mesh.monitoring_url + '/metrics')}")
    for name in mesh.envoys:
        socket = mesh.workdir / name / "admin.sock"
        screen.say(f"  {name:15} curl --unix-socket {socket} http://envoy/config_dump")


def _ground(options: Options) -> Ground:
    if options.transparent:
        from pilothouse.demo.transparent import NamespaceGround  # noqa: PLC0415 (needs root)

        return NamespaceGround()
    return LoopbackGround(loopback=options.loopback)


def _checked_loopback(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not _LOOPBACK_FORM.fullmatch(value):
        raise click.BadParameter("give the first two octets of a loopback address, such as 127.50")
    return value


@click.command()
@click.option(
    "--transparent",
    is_flag=True,
    help="Give each workload a network namespace and intercept its traffic, as in a pod. Needs "
    "root.",
)
@click.option("--keep", is_flag=True, help="Keep the mesh running after the story, until Ctrl-C.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    default=_READING_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Pause for reading before and after each edit.",
)
@click.option("--fast", is_flag=True, help="No pauses; for machines.")
@click.option(
    "--xds",
    type=click.Choice(["delta", "sotw"]),
    default="delta",
    show_default=True,
    help="How the Envoys ask for config: incremental, or state of the world.",
)
@click.option(
    "--loopback",
    default=LOOPBACK,
    show_default=True,
    callback=_checked_loopback,
    metavar="A.B",
    help="First two octets of the loopback addresses used.",
)
@click.option(
    "--workdir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="New folder for config and logs, kept afterwards. A temporary one by default.",
)
def demo(
    *,
    transparent: bool,
    keep: bool,
    pace: float,
    fast: bool,
    xds: str,
    loopback: str,
    workdir: Path | None,
) -> int:
    """Run a small mesh of real Envoys on this machine and show how it obeys its config.

    Four services behind their sidecars, live requests, and four edits of a VirtualService.
    """
    options = Options(
        transparent=transparent,
        keep=keep,
        delta=xds == "delta",
        pace_seconds=0.0 if fast else pace,
        loopback=loopback,
        workdir=workdir.resolve() if workdir else None,
    )
    return asyncio.run(run(options))
