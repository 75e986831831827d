"""How commands print: JSON, YAML and tables, each imported only when asked for."""

from collections.abc import Sequence

import click

from pilothouse.graph.findings import Finding, Severity

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}

_PIPE_COLUMNS = 4_000
"""In a pipe a row is a line, however long."""


def print_json(value: object) -> None:
    """Print indented JSON."""
    import json  # noqa: PLC0415 (start-up time)

    click.echo(json.dumps(value, indent=2))


def print_yaml(value: object) -> None:
    """Print block-style YAML in the order given."""
    import yaml  # noqa: PLC0415 (start-up time)

    click.echo(yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False), nl=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or as wide as it needs in a pipe."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 (start-up time)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # names hold brackets, which are not markup
    console.print(table)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings for people, the worst first, each with its remedy."""
    from rich.console import Console  # noqa: PLC0415 (start-up time)
    from rich.text import Text  # noqa: PLC0415

    console = Console(soft_wrap=True)
    for finding in sorted(findings, key=lambda found: (-found.severity, found)):
        ref = finding.ref
        place = f"{ref.file}:{ref.line}" if ref.file and ref.line else ref.file
        head = Text()
        head.append(f"{finding.severity.name.lower()} ", _STYLES[finding.severity])
        head.append(finding.code, "bold")
        if place:
            head.append(f"  {place}", "dim")
        console.print(head)
        subject = f"{ref.kind} {ref.object_name}" if ref.kind else ref.object_name
        where = f"{subject}  {ref.path}".strip()
        if where:
            console.print(Text(f"  {where}"))
        console.print(Text(f"  {finding.message}"))
        if finding.remedy:
            console.print(Text(f"  {finding.remedy}", "dim"))
