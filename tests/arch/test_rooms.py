"""The tree's own rules: rooms and their links, names, sizes, module docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "pilothouse"
ROOMS = {
    "agent",
    "api",
    "certs",
    "cli",
    "demo",
    "graph",
    "model",
    "providers",
    "runtime",
    "simulator",
    "translators",
    "xds",
}
#: Lines above which a file must be split.
LONGEST_FILE = 600
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}


def python_files(*folders: str) -> Iterator[Path]:
    """Every Python file of the named root folders."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_each_room_is_a_root_folder_linked_into_the_package() -> None:
    links = {path.name: path.readlink() for path in SOURCE.iterdir() if path.is_symlink()}
    assert {"examples", *ROOMS} == set(links)
    for name, target in links.items():
        assert Path("../..") / name == target
        assert not (ROOT / name).is_symlink()
    for room in ROOMS:
        assert (ROOT / room / "__init__.py").is_file()


def test_the_package_holds_nothing_of_its_own_but_what_is_above_all_rooms() -> None:
    own = {path.name for path in SOURCE.iterdir() if not path.is_symlink()} - {"__pycache__"}
    assert own <= {"__init__.py", "__main__.py", "errors.py", "py.typed", "_pb"}


def test_no_file_has_a_name_that_says_nothing() -> None:
    named = [
        path.relative_to(ROOT)
        for path in python_files(*ROOMS, "tools", "benchmarks", "tests")
        if path.stem in VAGUE_NAMES or path.stem.startswith("base_")
    ]
    assert named == []


def test_files_stay_readable_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in python_files(*ROOMS, "tools", "tests")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) >= LONGEST_FILE
    }
    assert long == {}


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_each_module_says_why_it_exists(room: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files(room)
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_rooms_are_imported_under_the_package_only() -> None:
    """A bare `import xds` loads a second copy of every class of the room."""
    bare = []
    for path in python_files(*ROOMS, "tests", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            bare += [
                f"{path.relative_to(ROOT)}:{node.lineno}"
                for name in names
                if name.partition(".")[0] in ROOMS
            ]
    assert bare == []
