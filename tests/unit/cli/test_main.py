"""The command line's frame: quick, and with istioctl's exit codes."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

import pilothouse
from pilothouse.cli.main import COMMANDS, cli

HEAVY = ("grpc", "aiohttp", "rich", "yaml", "msgspec", "google.protobuf", "cryptography")


@pytest.fixture
def run() -> CliRunner:
    """Return a runner of the command line."""
    return CliRunner()


def test_version(run: CliRunner) -> None:
    """The version, plain and as JSON."""
    assert run.invoke(cli, ["version"]).output.strip() == pilothouse.__version__
    shown = json.loads(run.invoke(cli, ["version", "-o", "json"]).output)
    assert shown["version"] == pilothouse.__version__


@pytest.mark.parametrize("arguments", [["version"], ["-h"], []])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    """Scripts ask for the version often; help must not pay for grpc."""
    program = (
        "import sys\n"
        "from pilothouse.cli.main import cli\n"
        "try:\n"
        f"    cli.main({arguments!r}, 'pilothouse')\n"
        "finally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_lists_what_is_there(run: CliRunner) -> None:
    """Help names every command but the hidden ones, by -h too."""
    shown = run.invoke(cli, ["-h"])
    assert shown.exit_code == 0
    for name, command in COMMANDS.items():
        if command.exists():
            assert (f"\n  {name} " in shown.output) is not command.hidden


@pytest.mark.parametrize("arguments", [["nonsense"], ["version", "--nonsense"], ["serve"]])
def test_usage_errors_exit_64(run: CliRunner, arguments: list[str]) -> None:
    """As istioctl does (security.md 6.2)."""
    done = run.invoke(cli, arguments)
    assert done.exit_code == 64
    assert "Error: " in done.output


def test_module_runs() -> None:
    """``python -m pilothouse`` is the console script."""
    done = subprocess.run(
        [sys.executable, "-m", "pilothouse", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == pilothouse.__version__
