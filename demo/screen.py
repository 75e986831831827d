"""Shows the story with rich: live tables on a terminal, plain lines elsewhere."""

from collections import Counter
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pilothouse.demo.story import JASON, Outcome, Stage
from pilothouse.demo.traffic import Seen

_BAR_CELLS: Final = 5
_VERSIONS: Final = ("v1", "v2", "v3")


class RichScreen:
    """A `Screen` on a rich console; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Nothing is shown yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        self._end_live()

    def say(self, text: str) -> None:
        """Print a line (rich markup)."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def stage(self, number: int, stage: Stage) -> None:
        """Print the title and the promise."""
        self._console.print()
        self._console.print(Rule(f"[bold]{number}. {stage.title}[/bold]", align="left"))
        self.say(f"Promise: {stage.promise}.")

    def edit(self, target: str, diff: str) -> None:
        """Print the edit as a diff."""
        self.say(f"Editing [bold]{target}[/bold]:")
        if self._console.is_terminal:
            self._console.print(Syntax(diff, "diff", theme="ansi_dark", background_color="default"))
        else:
            self._console.print(diff, markup=False, highlight=False, soft_wrap=True)

    def table(self, anyone: Seen, jason: Seen) -> None:
        """Refresh the live table; on plain paper only the last one is printed."""
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(_table(anyone, jason), refresh=True)

    def outcome(self, outcome: Outcome) -> None:
        """Print the last table and the verdict."""
        self._end_live()
        self._console.print(_table(outcome.anyone, outcome.jason))
        self._console.print(_callers(outcome.anyone, outcome.jason))
        if outcome.applied is not None:
            first = (
                f"; the first answer that showed it came after {_ms(outcome.first_seen)}"
                if outcome.first_seen is not None
                else ""
            )
            self.say(
                f"Push: the proxy had the new routes {_ms(outcome.applied)} after the edit{first}."
            )
        verdict = (
            "[green]Seen in traffic, as promised.[/green]"
            if outcome.is_seen
            else "[red]NOT seen in traffic: the mesh did not do what was promised.[/red]"
        )
        self.say(verdict)

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _table(anyone: Seen, jason: Seen) -> Table:
    # Fits in 80 columns.
    table = Table(box=box.SIMPLE)
    table.add_column("reader")
    table.add_column("seen", justify="right")
    for version in _VERSIONS:
        table.add_column(version, no_wrap=True)
    table.add_column("status")
    table.add_column("ratings")
    table.add_column("median", justify="right")
    for name, seen in (("anyone", anyone), (JASON, jason)):
        table.add_row(
            name,
            str(seen.count),
            *(_bar(seen.share(version)) for version in _VERSIONS),
            _codes(seen.statuses),
            _codes(seen.ratings),
            f"{seen.median_seconds * 1000:.0f} ms",
        )
    return table


def _callers(anyone: Seen, jason: Seen) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("service")
    table.add_column("called by, over mutual TLS", overflow="fold")
    table.add_column("calls", justify="right")
    for (service, identity), count in sorted((anyone.callers + jason.callers).items()):
        shown = Text(identity) if identity else Text("nobody known: plain text", style="red")
        table.add_row(service, shown, str(count))
    return table


def _bar(share: float) -> Text:
    if not share:
        return Text("-", style="dim")
    cells = round(share * _BAR_CELLS)
    return Text(f"{share:4.0%} ") + Text("█" * cells, style="cyan")


def _codes(codes: Counter[int]) -> Text:
    if not codes:
        return Text("-", style="dim")
    parts = [
        Text(
            f"{code or 'none'}" + ("" if len(codes) == 1 else f" x{count}"),
            style="green" if code == 200 else "red",
        )
        for code, count in sorted(codes.items())
    ]
    return Text(" ").join(parts)


def _ms(duration: timedelta | None) -> str:
    return "" if duration is None else f"{duration / timedelta(milliseconds=1):.0f} ms"
