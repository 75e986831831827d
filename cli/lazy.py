"""
A command group that imports a command only when it is used, and options with hidden spellings.

``pilothouse version`` must not pay for grpc, aiohttp or rich: the group knows its commands by name
and one line of help, and imports the rest on demand.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NoReturn

import click

from pilothouse.errors import MeshError


class Exit(IntEnum):
    """Exit codes, istioctl's where it has one."""

    OK = 0
    FAILED = 1
    USAGE = 64
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command lives: module, attribute, and its line of help."""

    module: str
    attribute: str
    help: str
    hidden: bool = False

    def exists(self) -> bool:
        """Whether its module is there (an optional room may not be)."""
        package = self.module.rpartition(".")[0]
        return find_spec(package) is not None and find_spec(self.module) is not None

    def load(self) -> click.Command:
        """Import it."""
        command = getattr(import_module(self.module), self.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.module}:{self.attribute} is not a command")
        return command


class LazyGroup(click.Group):
    """A group over a table of lazy commands, with exit codes as istioctl has them."""

    def __init__(
        self,
        name: str | None = None,
        *,
        commands_by_name: Mapping[str, LazyCommand],
        **attributes: Any,  # noqa: ANN401 (what click's decorator passes on)
    ) -> None:
        """Keep the table."""
        super().__init__(name, **attributes)
        self._lazy = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Name the commands that are there, in the table's order."""
        return [name for name, command in self._lazy.items() if command.exists()]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's signature)
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command of that name."""
        command = self._lazy.get(cmd_name)
        return command.load() if command is not None and command.exists() else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = [
            (name, self._lazy[name].help)
            for name in self.list_commands(ctx)
            if not self._lazy[name].hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(  # type: ignore[override]  # click overloads the return by standalone_mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 (click's signature)
    ) -> NoReturn:
        """Run, and end the process with the exit code."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, prog_name, **extra)
        except click.exceptions.NoArgsIsHelpError as help_text:
            click.echo(help_text.format_message())
            sys.exit(Exit.OK)
        except click.UsageError as error:
            error.show()
            sys.exit(Exit.USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(Exit.FAILED)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(Exit.INTERRUPTED)
        except MeshError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(Exit.FAILED)
        sys.exit(code if isinstance(code, int) else Exit.OK)


class AliasedOption(click.Option):
    """
    An option with further spellings that help does not show.

    The first spelling with two dashes is shown (and one-letter forms); the others are what users
    of istiod type.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option by its shown spellings only."""
        spelled = self.opts
        first = next(name for name in spelled if name.startswith("--"))
        self.opts = [name for name in spelled if len(name) == 2 or name == first]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = spelled

    def get_error_hint(self, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Name the option in errors by its first spelling."""
        return f"'{next(name for name in self.opts if name.startswith('--'))}'"
