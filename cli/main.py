"""The ``pilothouse`` command: a table of commands and nothing else."""

from typing import Final

import click

from pilothouse.cli.lazy import LazyCommand, LazyGroup

_SERVE: Final = "Serve the mesh in a directory to its proxies."

COMMANDS: Final = {
    "serve": LazyCommand("pilothouse.cli.serve", "serve", _SERVE),
    "discovery": LazyCommand("pilothouse.cli.serve", "serve", _SERVE, hidden=True),
    "demo": LazyCommand(
        "pilothouse.demo.command", "demo", "Run a small mesh of real Envoys on this machine."
    ),
    "validate": LazyCommand(
        "pilothouse.cli.validate", "validate", "Check files of config without a server."
    ),
    "config-dump": LazyCommand(
        "pilothouse.cli.config_dump", "config_dump", "Show what a proxy would be served."
    ),
    "secret": LazyCommand(
        "pilothouse.cli.secret", "secret", "Show the certificates that a proxy holds."
    ),
    "bootstrap": LazyCommand(
        "pilothouse.cli.bootstrap", "bootstrap_command", "Write what an Envoy starts with."
    ),
    "agent": LazyCommand(
        "pilothouse.cli.agent", "agent", "Make keys in place and serve them to an Envoy."
    ),
    "token": LazyCommand(
        "pilothouse.cli.token", "token", "Make, list and revoke tokens of workloads."
    ),
    "ca": LazyCommand(
        "pilothouse.cli.ca", "ca", "Show the certificate authority and rotate its root."
    ),
    "version": LazyCommand("pilothouse.cli.version", "version", "Show the version."),
}
"""``discovery`` is how istiod's own command is called."""


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def cli() -> None:
    """Pilothouse, a service-mesh control plane that speaks Istio and Envoy.

    Every option can also be set by environment: --grpc-addr by PILOTHOUSE_GRPC_ADDR.
    """


def main() -> None:
    """Run the command line (the console script)."""
    cli.main(prog_name="pilothouse")
