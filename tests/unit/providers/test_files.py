"""The file store on a real directory: what is read, and what is seen live."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.errors import SourceError
from pilothouse.graph.findings import ConfigRef
from pilothouse.providers.directory_state import Change
from pilothouse.providers.files import FileStore


def service(name: str, port: int = 80) -> str:
    """Return a Service as text."""
    return (
        "apiVersion: v1\nkind: Service\n"
        f"metadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )


class Seen:
    """What the store reported so far."""

    def __init__(self) -> None:
        self.ports: dict[str, int | None] = {}
        self._changed = asyncio.Event()

    def take(self, changes: list[Change]) -> None:
        """Note the changes."""
        for each in changes:
            self.ports[each.key.name] = each.row.spec.ports[0].port if each.row else None
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; ten seconds at most."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def watching(store: FileStore) -> AsyncIterator[Seen]:
    """Scan, then watch until the block ends."""
    seen = Seen()
    seen.take(store.scan())
    task = asyncio.create_task(store.watch(seen.take))
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_nested_folders_and_links_are_read_and_backups_are_not(tmp_path: Path) -> None:
    """YAML and JSON at any depth; hidden files, backups and link loops are passed by."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a.yml").write_text(service("a"))
    (tmp_path / "b.json").write_text(
        '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"},'
        ' "spec": {"ports": [{"port": 1}]}}'
    )
    for name in (".hidden.yaml", "c.yaml~", "#d.yaml", ".e.yaml.swp", "f.txt"):
        (tmp_path / name).write_text(service("unwanted"))
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    (tmp_path / "g.yaml").symlink_to(tmp_path / "deep" / "er" / "gone.yaml")
    changes = FileStore(tmp_path).scan()
    assert sorted(each.key.name for each in changes) == ["a", "b"]


def test_a_missing_directory_is_said_plainly(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(SourceError, match="nowhere"):
        FileStore(tmp_path / "nowhere").scan()
    with pytest.raises(SourceError, match=r"mesh\.yaml"):
        FileStore(tmp_path, mesh_config=tmp_path / "mesh.yaml").scan()


def test_only_changed_files_are_read_again(tmp_path: Path) -> None:
    """A second look at an unchanged directory finds nothing."""
    (tmp_path / "a.yaml").write_text(service("a"))
    store = FileStore(tmp_path)
    assert len(store.scan()) == 1
    assert store.refresh() == []


def test_references_are_located(tmp_path: Path) -> None:
    """Any object and field gets file and line, also in a file with several documents."""
    (tmp_path / "a.yaml").write_text(service("a") + "---\n" + service("b"))
    store = FileStore(tmp_path)
    store.scan()
    located = store.locate(ConfigRef("Service", "default", "b", "spec.ports[0].port"))
    assert (located.file, located.line) == ("a.yaml", 15)
    assert store.locate(ConfigRef("Service", "default", "b")).line == 9
    unknown = ConfigRef("Service", "default", "z")
    assert store.locate(unknown) == unknown


async def test_edits_renames_additions_and_removals_are_seen(tmp_path: Path) -> None:
    """In place, by rename-over, in new folders, and gone."""
    (tmp_path / "a.yaml").write_text(service("a"))
    async with watching(FileStore(tmp_path)) as seen:
        assert seen.ports == {"a": 80}
        (tmp_path / "a.yaml").write_text(service("a", 81))
        await seen.until(lambda: seen.ports["a"] == 81)
        (tmp_path / "new.tmp").write_text(service("a", 82))
        (tmp_path / "new.tmp").replace(tmp_path / "a.yaml")
        await seen.until(lambda: seen.ports["a"] == 82)
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.yaml").write_text(service("b"))
        await seen.until(lambda: seen.ports.get("b") == 80)
        (tmp_path / "a.yaml").unlink()
        await seen.until(lambda: seen.ports["a"] is None)


async def test_a_broken_edit_keeps_the_last_good_version(tmp_path: Path) -> None:
    """The finding comes and goes with the mistake; the object stays."""
    (tmp_path / "a.yaml").write_text(service("a"))
    store = FileStore(tmp_path)
    async with watching(store) as seen:
        (tmp_path / "a.yaml").write_text("kind: [")
        await seen.until(lambda: bool(store.findings()))
        assert seen.ports == {"a": 80}
        (tmp_path / "a.yaml").write_text(service("a", 81))
        await seen.until(lambda: seen.ports["a"] == 81)
        assert store.findings() == ()


async def test_a_directory_may_vanish_and_come_back(tmp_path: Path) -> None:
    """While it is gone everything stays in use; then it is watched again."""
    root = tmp_path / "config"
    root.mkdir()
    (root / "a.yaml").write_text(service("a"))
    store = FileStore(root)
    async with watching(store) as seen:
        shutil.rmtree(root)
        await seen.until(lambda: "DirectoryGone" in [each.code for each in store.findings()])
        assert seen.ports["a"] == 80
        root.mkdir()
        (root / "a.yaml").write_text(service("a", 81))
        await seen.until(lambda: seen.ports["a"] == 81)
        (root / "a.yaml").write_text(service("a", 82))
        await seen.until(lambda: seen.ports["a"] == 82)


async def test_the_mesh_config_file_is_watched(tmp_path: Path) -> None:
    """A change of the file given beside the directory is live too."""
    root = tmp_path / "config"
    root.mkdir()
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text("trustDomain: one.example\n")
    store = FileStore(root, mesh_config=mesh)
    [change] = store.scan()
    assert change.row is not None
    assert change.row.trust_domain == "one.example"
    found: asyncio.Queue[list[Change]] = asyncio.Queue()
    task = asyncio.create_task(store.watch(found.put_nowait))
    try:
        mesh.write_text("trustDomain: two.example\n")
        [change] = await asyncio.wait_for(found.get(), 10)
        assert change.row is not None
        assert change.row.trust_domain == "two.example"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a hidden folder; the files themselves never change."""
    for version, port in (("..v1", 80), ("..v2", 81)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(service("a", port))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with watching(FileStore(tmp_path)) as seen:
        (tmp_path / "b.yaml").write_text(service("b"))
        await seen.until(lambda: "b" in seen.ports)  # so it watches, and its first look is over
        (tmp_path / "..new").symlink_to("..v2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await seen.until(lambda: seen.ports["a"] == 81)


async def test_a_system_without_notices_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel tells nothing, a change is found by looking."""
    monkeypatch.setattr("ctypes.CDLL", lambda *_args, **_more: object())
    (tmp_path / "a.yaml").write_text(service("a"))
    async with watching(FileStore(tmp_path)) as seen:
        for port in (81, 82):  # the first may be found by the look with which watching begins
            (tmp_path / "a.yaml").write_text(service("a", port))
            await seen.until(lambda port=port: seen.ports["a"] == port)
