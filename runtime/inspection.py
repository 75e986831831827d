"""
What the server shows of itself, gathered when asked.

The shape of syncz is istioctl's (security.md Z-1), with our own members beside. Reads state and
changes none; the self-check computes in a graph of its own.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pilothouse.graph import explain
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import SERVICE_ENTRIES, SERVICES, VIRTUAL_SERVICES
from pilothouse.model.registration import entry_key
from pilothouse.model.resource import CDS, ECDS, EDS, LDS, RDS, SDS, SHORT_NAMES
from pilothouse.providers.clusters import Store
from pilothouse.runtime.bundle_fetches import BundleFetches
from pilothouse.runtime.commit import CommitCycle
from pilothouse.runtime.metrics import Metrics
from pilothouse.runtime.registrations import Registrations
from pilothouse.xds.config_dump import config_dump
from pilothouse.xds.publisher import Publisher
from pilothouse.xds.rejections import RejectedResource
from pilothouse.xds.status import StreamStatus, TypeStatus
from pilothouse.xds.streams import Streams

_SYNCZ_NAMES: Final = {
    CDS: "cluster", LDS: "listener", RDS: "route", EDS: "endpoint", ECDS: "extensionconfig",
}  # fmt: skip


class ServerInspection:
    """The inspection of a running server."""

    def __init__(
        self,
        *,
        graph: Graph,
        store: Store,
        cycle: CommitCycle,
        publisher: Publisher,
        streams: Streams,
        metrics: Metrics,
        registrations: Registrations,
        bundles: BundleFetches,
        clock_offset_seconds: float,
    ) -> None:
        """Look at these; `clock_offset_seconds` added to the streams' clock is the epoch's."""
        self._graph = graph
        self._store = store
        self._cycle = cycle
        self._publisher = publisher
        self._streams = streams
        self._metrics = metrics
        self._registrations = registrations
        self._bundles = bundles
        self._clock_offset_seconds = clock_offset_seconds
        self.is_closing = False

    @property
    def is_ready(self) -> bool:
        """Whether the config has been read and committed once, and we are not shutting down."""
        return self._streams.is_ready and not self.is_closing

    def metrics(self) -> bytes:
        """Return metrics, with the gauges as of now."""
        self._cycle.count_nodes()
        metrics, graph = self._metrics, self._graph
        metrics.graph_nodes.set(graph.node_count())
        metrics.revision.set(graph.revision)
        metrics.services.set(
            # A name in several clusters is one service.
            len({key[:2] for key in graph.store(SERVICES).rows})
            + len(graph.store(SERVICE_ENTRIES).rows)
        )
        metrics.virtual_services.set(len(graph.store(VIRTUAL_SERVICES).rows))
        metrics.proxy_classes.set(self._publisher.channel_count)
        return metrics.text()

    def syncz(self) -> list[dict[str, Any]]:
        """Return one entry per stream."""
        return [self._stream(status) for status in self._streams.status()]

    def config_dump(self, proxy_id: str, types: frozenset[str]) -> Iterator[bytes] | None:
        """Yield what a proxy has; `proxy_id` is a node id or ``name.namespace``."""
        node_id = self._node_id(proxy_id)
        resources = self._streams.resources(proxy_id)
        if resources is None:
            return None
        chosen = {
            url: found for url, found in resources.items() if SHORT_NAMES.get(url, "") in types
        }
        awaited = self._streams.awaited(node_id, SDS) if SHORT_NAMES[SDS] in types else ()
        return config_dump(chosen, awaited=awaited)

    def findings(self) -> Sequence[Finding]:
        """Return everything there is to say, located, the worst last."""
        found = {self.located(finding): None for finding in self.unlocated_findings()}
        return sorted(found)

    def unlocated_findings(self) -> Iterator[Finding]:
        """Yield the findings of files, of the graph, of proxies, registrations and added roots."""
        yield from self._store.findings()
        yield from self._graph.findings()
        yield from self._rejections()
        yield from self._registrations.findings()
        yield from self._bundles.findings()

    def located(self, finding: Finding) -> Finding:
        """Return a finding with file and line, if its object was read from a file."""
        ref = finding.ref
        if ref.file or not ref.kind:
            return finding
        return Finding(
            finding.severity,
            finding.code,
            self._store.locate(ref),
            finding.message,
            finding.remedy,
        )

    def graph(self) -> dict[str, Any]:
        """Return sizes of the graph and the work of the last commit."""
        graph = self._graph
        recomputed = sorted(graph.stats.recomputed.items(), key=lambda item: -item[1])
        return {
            "revision": graph.revision,
            "nodes": graph.node_count(),
            "roots": self._publisher.root_count,
            "proxy_classes": self._publisher.channel_count,
            "rows": {store.table.name: len(store.rows) for store in graph.tables()},
            "recomputed_since_last_commit": dict(recomputed),
            "waiting_for_commit": self._cycle.waiting_count,
        }

    def registrations(self) -> list[dict[str, Any]]:
        """Return the workloads that hold a WorkloadEntry, or its health."""
        return self._registrations.status()

    def selfcheck(self) -> list[str]:
        """Compute everything anew and name what differs."""
        return explain.mismatches(self._graph)

    # -- parts ------------------------------------------------------------------------------------

    def _node_id(self, proxy_id: str) -> str:
        for status in self._streams.status():
            proxy = status.stream.proxy
            if proxy_id in {proxy.id, f"{proxy.name}.{proxy.namespace}"}:
                return proxy.id
        return proxy_id

    def _stream(self, status: StreamStatus) -> dict[str, Any]:
        info = status.stream
        proxy = info.proxy
        shown: dict[str, Any] = {
            "cluster_id": proxy.cluster_id,
            "proxy": f"{proxy.name}.{proxy.namespace}",
            "proxy_type": proxy.type.value,
            "istio_version": proxy.istio_version,
        }
        for kind in status.types:
            name = _SYNCZ_NAMES.get(kind.type_url)
            if name is not None:
                shown[f"{name}_sent"] = kind.sent_nonce
                shown[f"{name}_acked"] = kind.acked_nonce
        shown["resources"] = {kind.type_url: self._type(kind) for kind in status.types}
        shown |= {
            "node": proxy.id,
            "profile": proxy.profile.value,
            "peer": info.peer,
            "variant": info.variant.value,
            "connected_at": _rfc3339(info.connected_at_epoch_seconds),
        }
        entry = entry_key(proxy)
        if entry is not None:
            shown["workload_entry"] = f"{entry.namespace}/{entry.name}"
        rejected = [each for kind in status.types for each in kind.rejected]
        if rejected:
            shown["rejected"] = [_rejected(each) for each in rejected]
        return {key: value for key, value in shown.items() if value not in ("", {})}

    def _type(self, kind: TypeStatus) -> dict[str, Any]:
        shown = {
            "state": kind.state,
            "sent": kind.sent_nonce,
            "acked": kind.acked_nonce,
            "count": kind.resource_count,
            "lastError": kind.error,
        }
        for name, moment in (("sentTime", kind.sent_at), ("ackedTime", kind.acked_at)):
            if moment:
                shown[name] = _rfc3339(moment + self._clock_offset_seconds)
        return {key: value for key, value in shown.items() if value != ""}

    def _rejections(self) -> Iterator[Finding]:
        proxies: dict[RejectedResource, dict[str, None]] = {}
        for proxy, rejected in self._streams.rejected():
            proxies.setdefault(rejected, {})[f"{proxy.name}.{proxy.namespace}"] = None
        for rejected, names in proxies.items():
            yield _rejection_finding(rejected, list(names))


def _rejection_finding(rejected: RejectedResource, proxies: list[str]) -> Finding:
    kind = SHORT_NAMES.get(rejected.type_url, rejected.type_url)
    who = proxies[0] if len(proxies) == 1 else f"{len(proxies)} proxies ({proxies[0]} ...)"
    ref = rejected.sources[0] if rejected.sources else ConfigRef("", "", rejected.name)
    return Finding(
        Severity.ERROR,
        "RejectedByProxy",
        ref,
        f"The {kind} resource {rejected.name!r} made from it is refused by {who}, which keeps the"
        f" last good one: {rejected.error}",
        "Correct what Envoy names; if the config is right, please report it.",
    )


def _rejected(rejected: RejectedResource) -> dict[str, Any]:
    return {
        "type": rejected.type_url,
        "name": rejected.name,
        "version": rejected.version,
        "error": rejected.error,
        "sources": [str(ref) for ref in rejected.sources],
    }


def _rfc3339(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds")
