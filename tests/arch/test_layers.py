"""The import contracts of pyproject.toml hold, and would notice a breach."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_contracts(config: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-logo", "--no-cache", "--config", config],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold() -> None:
    finished = run_contracts(ROOT / "pyproject.toml")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_breach_is_noticed(tmp_path: Path) -> None:
    """The same contracts turned upside down must break, or they check nothing."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    upside_down = text.replace('"model",\n    "api",\n', '"api",\n    "model",\n')
    assert upside_down != text
    config = tmp_path / "pyproject.toml"
    config.write_text(upside_down, encoding="utf-8")
    finished = run_contracts(config)
    assert finished.returncode != 0
    assert "rooms are layered BROKEN" in finished.stdout
