"""One sdist and one wheel for the whole folder, built as a user's pip would build them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command away from the tree and the caller's Python settings; return its output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))
    }
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A fresh virtual environment without pip; uv installs into it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *what: str | Path) -> None:
        run(PYTHON, "-m", "uv", "pip", "install", "--quiet", "--python", self.python, *what)

    def pip(self, *arguments: str | Path) -> None:
        run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments)

    def execute(self, script: str) -> str:
        """Run a script from a folder that holds nothing importable."""
        return run(self.python, "-c", script, cwd=self.folder)


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    def make() -> Environment:
        folder = tmp_path_factory.mktemp("environment") / "venv"
        run(PYTHON, "-m", "uv", "venv", "--quiet", "--python", PYTHON, folder)
        return Environment(folder=folder)

    return make


@pytest.fixture(scope="session", autouse=True)
def registry() -> None:
    """Skip, by name, where the package registry cannot be reached."""
    asked = subprocess.run(
        [PYTHON, "-m", "pip", "--retries", "0", "--timeout", "10", "index", "versions", "uv"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        pytest.skip("the package registry does not answer, and this builds isolated environments")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would hand out, with the generated package, free to be built in."""
    copy = tmp_path_factory.mktemp("tree") / "pilothouse"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, copy / name
        if not source.exists() and not source.is_symlink():
            continue  # deleted, not yet committed
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    shutil.copytree(
        ROOT / "src/pilothouse/_pb",
        copy / "src/pilothouse/_pb",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return copy


@pytest.fixture(scope="session")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(PYTHON, "-m", "build", "--sdist", "--installer", "uv", "--outdir", out, tree)
    (built,) = out.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made from the sdist alone, with no generator and no git at hand."""
    out = tmp_path_factory.mktemp("wheel")
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked, filter="data")
    (source,) = unpacked.iterdir()
    run(PYTHON, "-m", "build", "--wheel", "--installer", "uv", "--outdir", out, source)
    (built,) = out.glob("*.whl")
    return built
