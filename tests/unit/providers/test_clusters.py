"""The stores of several clusters as one: K8-20, K8-22, 3.12."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.api.meta import ObjectKey
from pilothouse.errors import SourceError
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.clusters import KnownClusters
from pilothouse.providers.clusters import ClusterStores, ClusterView
from pilothouse.providers.directory_state import Change, DirectoryState
from pilothouse.providers.files import FileStore

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: %d}]}\n"
CONFIG = (
    "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: %s}\n"
    "spec: {egress: [{hosts: ['./*']}]}\n"
)
MESH = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
    "data: {mesh: 'trustDomain: stolen'}\n"
)
OWN, WEST = ObjectKey("default", "web"), ObjectKey("default", "web", "west")


class Mesh:
    """Directories of two clusters, and what their stores said so far."""

    def __init__(self, folder: Path) -> None:
        self.own, self.west = folder / "own", folder / "west"
        self.own.mkdir()
        self.west.mkdir()
        self.stores = ClusterStores(
            FileStore(self.own), [("west", FileStore(self.west, cluster="west"))], own="home"
        )
        self.rows: dict[tuple[str, ObjectKey], Any] = {}
        self._changed = asyncio.Event()

    def take(self, changes: list[Change]) -> None:
        """Note changes."""
        self.rows.update({(each.kind, each.key): each.row for each in changes})
        self._changed.set()

    def port(self, key: ObjectKey) -> int | None:
        """The port of a Service that is known, None if it is not."""
        row = self.rows.get(("Service", key))
        return row.spec.ports[0].port if row else None

    def codes(self) -> list[str]:
        """What there is to say."""
        return [each.code for each in self.stores.findings()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; ten seconds at most."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Scan, then watch until the block ends."""
        self.take(self.stores.scan())
        task = asyncio.create_task(self.stores.watch(self.take))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_objects_of_other_clusters_are_kept_apart(tmp_path: Path) -> None:
    """Keys, rows and references name the cluster; which there are is a row itself."""
    mesh = Mesh(tmp_path)
    (mesh.own / "a.yaml").write_text(SERVICE % 80)
    (mesh.west / "a.yaml").write_text(SERVICE % 81)
    mesh.take(mesh.stores.scan())
    assert (mesh.port(OWN), mesh.port(WEST)) == (80, 81)
    assert mesh.rows["Service", WEST].meta.key == WEST
    assert mesh.rows["Clusters", ObjectKey("", "mesh")] == KnownClusters("home", ("west",))
    ref = mesh.rows["Service", WEST].meta.ref("spec.ports")
    assert str(mesh.stores.locate(ref)) == "Service default/web @west spec.ports (a.yaml:4)"
    assert mesh.stores.locate(mesh.rows["Service", OWN].meta.ref()).cluster == ""
    stranger = ConfigRef("Service", "default", "web", cluster="east")
    assert mesh.stores.locate(stranger) == stranger


def test_a_mesh_of_one_cluster_says_nothing_of_clusters(tmp_path: Path) -> None:
    """No row, no finding: as it ever was."""
    (tmp_path / "a.yaml").write_text(SERVICE % 80)
    stores = ClusterStores(FileStore(tmp_path))
    assert [each.kind for each in stores.scan()] == ["Service"]
    assert stores.findings() == ()


def test_config_comes_from_one_place(tmp_path: Path) -> None:
    """Istio's objects and the mesh config of another cluster have no effect, and that is said."""
    mesh = Mesh(tmp_path)
    (mesh.west / "a.yaml").write_text("---\n".join([CONFIG % "a", CONFIG % "b", MESH]))
    (mesh.west / "b.yaml").write_text(CONFIG.replace("./*", "nowhere") % "broken")
    assert [each.kind for each in mesh.stores.scan()] == ["Clusters"]
    shown = [(each.code, each.ref.object_name) for each in mesh.stores.findings()]
    assert shown == [
        ("NotReadOfCluster", "istio-system/istio @west"),
        ("NotReadOfCluster", "default/a @west"),
    ]
    assert "and 1 more" in mesh.stores.findings()[1].message


def test_workload_entries_of_other_clusters_are_read() -> None:
    """What istiod does unless PILOT_ENABLE_CROSS_CLUSTER_WORKLOAD_ENTRY says otherwise."""
    text = (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm}\n"
        "spec: {address: 10.0.0.1}\n"
    )
    found = ClusterView("west").take(DirectoryState().update("a.yaml", text))
    assert [(each.kind, each.key.cluster) for each in found] == [("WorkloadEntry", "west")]


def test_findings_of_another_cluster_name_it(tmp_path: Path) -> None:
    """A broken Service there is a finding there, with file and line."""
    mesh = Mesh(tmp_path)
    (mesh.west / "a.yaml").write_text(SERVICE % 99999)
    mesh.stores.scan()
    (found,) = mesh.stores.findings()
    assert str(found.ref) == "Service default/web @west spec.ports[0].port (a.yaml:4)"


def test_a_cluster_that_is_removed_takes_its_objects_along() -> None:
    """Whoever finds clusters asks for the changes; afterwards the view is empty."""
    view = ClusterView("west")
    view.take(DirectoryState().update("a.yaml", SERVICE % 80 + "---\n" + CONFIG % "a"))
    assert view.remove() == [Change("Service", WEST, None)]
    assert view.remove() == []
    assert list(view.findings(())) == []


async def test_changes_of_every_cluster_are_seen(tmp_path: Path) -> None:
    """Both directories are watched; each change is one of its cluster only."""
    mesh = Mesh(tmp_path)
    (mesh.west / "a.yaml").write_text(SERVICE % 80)
    async with mesh.watched():
        (mesh.west / "a.yaml").write_text(SERVICE % 81)
        await mesh.until(lambda: mesh.port(WEST) == 81)
        (mesh.own / "a.yaml").write_text(SERVICE % 82)
        await mesh.until(lambda: mesh.port(OWN) == 82)
        (mesh.west / "a.yaml").unlink()
        await mesh.until(lambda: mesh.port(WEST) is None)
    assert mesh.port(OWN) == 82


async def test_a_directory_that_is_gone_keeps_its_objects(tmp_path: Path) -> None:
    """The last good stays and a finding says so; what comes back is taken."""
    mesh = Mesh(tmp_path)
    (mesh.west / "a.yaml").write_text(SERVICE % 80)
    async with mesh.watched():
        shutil.move(mesh.west, tmp_path / "away")
        await mesh.until(lambda: mesh.codes() == ["DirectoryGone"])
        (found,) = mesh.stores.findings()
        assert "cluster west is gone" in found.message
        assert found.ref.cluster == "west"
        assert mesh.port(WEST) == 80
        (tmp_path / "away" / "a.yaml").write_text(SERVICE % 81)
        shutil.move(tmp_path / "away", mesh.west)
        await mesh.until(lambda: mesh.port(WEST) == 81)
        await mesh.until(lambda: mesh.codes() == [])


async def test_a_broken_file_keeps_its_objects(tmp_path: Path) -> None:
    """As of the config itself: what cannot be read leaves the last good in place."""
    mesh = Mesh(tmp_path)
    (mesh.west / "a.yaml").write_text(SERVICE % 80)
    async with mesh.watched():
        (mesh.west / "a.yaml").write_text("kind: [")
        await mesh.until(lambda: mesh.codes() == ["Unreadable"])
        assert mesh.stores.findings()[0].ref.cluster == "west"
        assert mesh.port(WEST) == 80


async def test_the_mesh_is_served_without_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    """Only the config itself is needed at the start; the cluster joins when its directory comes."""
    mesh = Mesh(tmp_path)
    mesh.west.rmdir()
    async with mesh.watched():
        (found,) = mesh.stores.findings()
        assert (found.code, found.ref.cluster) == ("DirectoryGone", "west")
        assert "nothing is known of the cluster" in found.message
        mesh.west.mkdir()
        (mesh.west / "a.yaml").write_text(SERVICE % 80)
        await mesh.until(lambda: mesh.port(WEST) == 80)
    mesh.own.rmdir()
    with pytest.raises(SourceError):
        mesh.stores.scan()
