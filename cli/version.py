"""``pilothouse version``: imports nothing heavy, so that scripts may ask often."""

import platform

import click

import pilothouse
from pilothouse.cli.output import print_json


@click.command()
@click.option("-o", "--output", type=click.Choice(["short", "json"]), default="short")
def version(output: str) -> None:
    """Show the version of Pilothouse."""
    if output == "json":
        print_json({"version": pilothouse.__version__, "python": platform.python_version()})
    else:
        click.echo(pilothouse.__version__)
