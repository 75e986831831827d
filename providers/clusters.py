"""
Where a mesh of several clusters comes from: the stores of all of them as one source of changes.

Of another cluster only what says where services run is read, as istiod does; config comes from one
place. Who finds the objects of a cluster need not know of others: `ClusterView` makes their keys,
rows and findings those of their cluster, whatever they were read by.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from pilothouse.api.kinds import KINDS, MESH_CONFIG, MESH_NETWORKS
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.inputs import CLUSTERS, THE_MESH
from pilothouse.model.topology_labels import LOCAL_CLUSTER
from pilothouse.providers.directory_state import Change

READ_OF_OTHERS: Final = frozenset(
    {"Service", "EndpointSlice", "Endpoints", "Pod", "Namespace", "Node", "WorkloadEntry"}
)
"""Kinds that say where services run; WorkloadEntry as istiod by default (multicluster.go)."""

_HELD: Final = frozenset(kind.name for kind in KINDS)
_MESH_PARTS: Final = frozenset({MESH_CONFIG, MESH_NETWORKS})


class Store(Protocol):
    """Something that has the objects of one cluster; see `pilothouse.providers.files.FileStore`."""

    def scan(self) -> list[Change]:
        """Read everything once."""
        ...

    async def watch(self, on_change: Callable[[list[Change]], None]) -> None:
        """Tell of changes until cancelled."""
        ...

    def findings(self) -> tuple[Finding, ...]:
        """Return what there is to say about what was read."""
        ...

    def locate(self, ref: ConfigRef) -> ConfigRef:
        """Return a reference with file and line, if they are known."""
        ...


class ClusterView:
    """What is read of one remote cluster, as the mesh sees it; keeps which objects there are."""

    def __init__(self, cluster: str) -> None:
        """Begin with nothing known; `cluster` is the name."""
        self.cluster = cluster
        self._present: set[tuple[str, ObjectKey]] = set()
        self._unread: dict[str, set[ObjectKey]] = {}

    def take(self, changes: Iterable[Change]) -> list[Change]:
        """Return changes of objects of the cluster as changes of the mesh's rows."""
        found = []
        for kind, key, row in changes:
            if kind not in READ_OF_OTHERS:
                self._note_unread(kind, key, row)
                continue
            there = key._replace(cluster=self.cluster)
            (self._present.discard if row is None else self._present.add)((kind, there))
            found.append(Change(kind, there, row if row is None else self._stamped(row)))
        return found

    def remove(self) -> list[Change]:
        """Return the changes that take all of the cluster's objects away."""
        gone = [Change(kind, key, None) for kind, key in sorted(self._present)]
        self._present.clear()
        self._unread.clear()
        return gone

    def _stamped(self, row: Any) -> Any:
        meta = msgspec.structs.replace(row.meta, cluster=self.cluster)
        return msgspec.structs.replace(row, meta=meta)

    def _note_unread(self, kind: str, key: ObjectKey, row: Any | None) -> None:
        if kind in _HELD:
            keys = self._unread.setdefault(kind, set())
            (keys.discard if row is None else keys.add)(key)

    def findings(self, found: Iterable[Finding]) -> Iterator[Finding]:
        """Yield findings of what is read as of the cluster, and one for each kind that is not."""
        for each in found:
            # What is wrong with an object that nobody reads is no matter.
            if each.ref.kind not in (_HELD | _MESH_PARTS) - READ_OF_OTHERS:
                yield replace(each, ref=replace(each.ref, cluster=self.cluster))
        for kind, keys in sorted(self._unread.items()):
            if keys:
                yield self._not_read(kind, sorted(keys))

    def _not_read(self, kind: str, keys: list[ObjectKey]) -> Finding:
        first, *more = keys
        others = f" and {len(more)} more" if more else ""
        return Finding(
            Severity.INFO,
            "NotReadOfCluster",
            ConfigRef(kind, first.namespace, first.name, cluster=self.cluster),
            f"Of cluster {self.cluster} only what says where services run is read; this {kind}"
            f"{others} has no effect.",
            "Put what the whole mesh is to use into the directory of config.",
        )


class Cluster(NamedTuple):
    """A remote cluster: its view, and where its objects are found."""

    view: ClusterView
    store: Store


def _take(
    view: ClusterView, on_change: Callable[[list[Change]], None], changes: list[Change]
) -> None:
    on_change(view.take(changes))


class ClusterStores:
    """
    The config's own store, and those of other clusters, as one.

    A remote cluster that cannot be read is told of and never keeps the mesh from being served.
    Raises SourceError from `scan` if the config itself is not there.
    """

    def __init__(
        self, config: Store, others: Iterable[tuple[str, Store]] = (), *, own: str = LOCAL_CLUSTER
    ) -> None:
        """Take stores by name of cluster; `own` is the name of the cluster the config is from."""
        self._config = config
        self._others = {name: Cluster(ClusterView(name), store) for name, store in others}
        self._known = KnownClusters(own=own, others=tuple(sorted(self._others)))

    def scan(self) -> list[Change]:
        """Read everything once; return every object, and which clusters there are."""
        found = self._config.scan()
        if self._known != KnownClusters():
            found.append(Change(CLUSTERS.name, THE_MESH, self._known))
        for view, store in self._others.values():
            found.extend(view.take(store.scan()))
        return found

    async def watch(self, on_change: Callable[[list[Change]], None]) -> None:
        """Call `on_change` with each batch of changes of any cluster; runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._config.watch(on_change), name="watch config")
            for view, store in self._others.values():
                told = partial(_take, view, on_change)
                tasks.create_task(store.watch(told), name=f"watch cluster {view.cluster}")

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings of all that was read, with file and line."""
        of_others = (
            finding
            for view, store in self._others.values()
            for finding in view.findings(store.findings())
        )
        return (*self._config.findings(), *of_others)

    def locate(self, ref: ConfigRef) -> ConfigRef:
        """Return the reference with file and line filled in, as far as they can be found."""
        if not ref.cluster:
            return self._config.locate(ref)
        other = self._others.get(ref.cluster)
        if other is None:
            return ref
        return replace(other.store.locate(replace(ref, cluster="")), cluster=ref.cluster)
