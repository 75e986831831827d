"""
Metrics, under istiod's names where the meaning is istiod's (security.md 8.1).

Dashboards and alert rules key on these names and labels. istiod's counters have no ``_total``,
which the client library insists on, so it is taken off when the text is made. A registry belongs
to one server, never to the process. Label values are bounded: never a proxy, an object or an error
text. Children are bound once, because ``labels()`` costs more than the count itself.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

import pilothouse
from pilothouse.graph.findings import Severity
from pilothouse.model.resource import PUSH_ORDER, SHORT_NAMES

CONVERGENCE_BUCKETS: Final = (0.1, 0.5, 1, 3, 5, 10, 20, 30)
"""Seconds; istiod's, with finer ones in front because most of ours end before its first."""
FINE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
SIZE_BUCKETS_BYTES: Final = (1, 1e4, 1e6, 4e6, 1e7, 4e7)

_MAX_VERSIONS: Final = 32
_MAX_VERSION_CHARACTERS: Final = 64

UPDATE_KINDS: Final = ("config", "svc", "eds")
"""istiod's values of the label `type` of pilot_inbound_updates."""
_ENDPOINT_KINDS: Final = frozenset(
    {"EndpointSlice", "Endpoints", "WorkloadEntry", "Pod", "ResolvedName"}
)
_SERVICE_KINDS: Final = frozenset({"Service", "ServiceEntry"})
_TRIGGERS: Final = {"config": "config", "svc": "service", "eds": "endpoint"}


def update_kind(kind: str) -> str:
    """Sort a kind of object into istiod's three."""
    if kind in _ENDPOINT_KINDS:
        return "eds"
    return "svc" if kind in _SERVICE_KINDS else "config"


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=registry)


class Metrics:
    """All metrics of one server. Times are seconds, sizes bytes."""

    def __init__(self) -> None:
        """Register everything, with the children that are always there."""
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("pilot_info", "Version of the server.", ["version"], registry=registry).labels(
            pilothouse.__version__
        ).set(1)
        Gauge(
            "istio_build", "Build, as Istio components show it.", ["component", "tag"],
            registry=registry,
        ).labels("pilot", f"pilothouse-{pilothouse.__version__}").set(1)  # fmt: skip
        self._connected = Gauge(
            "pilot_xds", "Proxies connected, by Istio version.", ["version"], registry=registry
        )
        self._connected_by_version: dict[str, int] = {}
        names = [SHORT_NAMES[url] for url in PUSH_ORDER]
        pushes = _counter(registry, "pilot_xds_pushes", "Responses sent, by type.", "type")
        self._pushes = {name: pushes.labels(name.lower()) for name in names}
        rejects = _counter(
            registry, "pilot_total_xds_rejects", "Responses that proxies rejected.", "type"
        )
        self._rejects = {name: rejects.labels(name.lower()) for name in names}
        self._rejects_by_type = {
            name: _counter(
                registry, f"pilot_xds_{name.lower()}_reject", f"{name} that proxies rejected."
            )
            for name in names
        }
        self.pushed_bytes = 0
        size = Histogram(
            "pilot_xds_config_size_bytes", "Size of responses.", ["type"],
            buckets=SIZE_BUCKETS_BYTES, registry=registry,
        )  # fmt: skip
        self._size = {name: size.labels(name.lower()) for name in names}
        ack = Histogram(
            "pilothouse_xds_ack_seconds", "From sending a response to its acknowledgement.",
            ["type"], buckets=FINE_BUCKETS + CONVERGENCE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._ack_times = {name: ack.labels(name.lower()) for name in names}
        self._convergence = Histogram(
            "pilot_proxy_convergence_time", "From a commit to its acknowledgement by a proxy.",
            buckets=FINE_BUCKETS + CONVERGENCE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._stale_nonces = _counter(
            registry, "pilot_xds_expired_nonce", "Requests that answered a replaced response."
        )
        self._refused = _counter(
            registry, "pilothouse_xds_streams_refused", "Streams that were not let in."
        )
        self._debounce_time = Histogram(
            "pilot_debounce_time", "From the first change to its commit.",
            buckets=FINE_BUCKETS + CONVERGENCE_BUCKETS, registry=registry,
        )  # fmt: skip
        updates = _counter(registry, "pilot_inbound_updates", "Changes received.", "type")
        self._updates = {kind: updates.labels(kind) for kind in UPDATE_KINDS}
        triggers = _counter(registry, "pilot_push_triggers", "Commits, by what they held.", "type")
        self._triggers = {kind: triggers.labels(_TRIGGERS[kind]) for kind in UPDATE_KINDS}
        self._commit_time = Histogram(
            "pilothouse_commit_seconds", "Applying and publishing one revision.",
            buckets=FINE_BUCKETS + CONVERGENCE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._last_commit = Gauge(
            "pilothouse_last_commit_timestamp_seconds", "When the last commit began, epoch time.",
            registry=registry,
        )  # fmt: skip
        self.services = Gauge("pilot_services", "Services known.", registry=registry)
        self.virtual_services = Gauge(
            "pilot_virt_services", "VirtualServices known.", registry=registry
        )
        self._recomputed = _counter(
            registry, "pilothouse_graph_nodes_recomputed", "Graph nodes run, by query.", "query"
        )
        self._recomputed_by_query: dict[str, Counter] = {}
        self.graph_nodes = Gauge("pilothouse_graph_nodes", "Graph nodes held.", registry=registry)
        self.revision = Gauge("pilothouse_graph_revision", "Commits made.", registry=registry)
        self.proxy_classes = Gauge(
            "pilothouse_proxy_classes", "Classes of proxies connected.", registry=registry
        )
        findings = Gauge(
            "pilothouse_findings", "Current findings about config.", ["severity"],
            registry=registry,
        )  # fmt: skip
        self._secret_errors = _counter(
            registry,
            "pilot_sds_certificate_errors",
            "Secrets that proxies asked for and could not be given.",
        )
        self._findings = {s: findings.labels(s.name.lower()) for s in Severity}

    # -- what xds tells ---------------------------------------------------------------------------

    def connected(self, version: str) -> str:
        """Count a proxy of that Istio version ("" unknown) in; return the label to give back."""
        label = version or "unknown"
        known = self._connected_by_version
        # The version is the proxy's own word, so the number of values is bounded.
        if label not in known and (
            len(known) >= _MAX_VERSIONS or len(label) > _MAX_VERSION_CHARACTERS
        ):
            label = "other"
        self._count_connected(label, 1)
        return label

    def disconnected(self, label: str) -> None:
        """Count a proxy out, by what `connected` returned."""
        self._count_connected(label, -1)

    def _count_connected(self, label: str, step: int) -> None:
        count = self._connected_by_version.get(label, 0) + step
        if count > 0:
            self._connected_by_version[label] = count
            self._connected.labels(label).set(count)
        elif self._connected_by_version.pop(label, None) is not None:
            self._connected.remove(label)

    def pushed(self, type_url: str, size_bytes: int) -> None:
        """Count a response that was sent."""
        name = SHORT_NAMES.get(type_url, "")
        if name:
            self._pushes[name].inc()
            self._size[name].observe(size_bytes)
            self.pushed_bytes += size_bytes

    def acknowledged(self, type_url: str, seconds: float) -> None:
        """Count an acknowledgement that came so long after its response."""
        name = SHORT_NAMES.get(type_url, "")
        if name:
            self._ack_times[name].observe(seconds)

    def converged(self, seconds: float) -> None:
        """Note that a proxy acknowledged a commit so long after it was made."""
        self._convergence.observe(seconds)

    def rejected(self, type_url: str) -> None:
        """Count a response that a proxy refused."""
        name = SHORT_NAMES.get(type_url, "")
        if name:
            self._rejects[name].inc()
            self._rejects_by_type[name].inc()

    def stale_nonce(self) -> None:
        """Count a request that answered a replaced response."""
        self._stale_nonces.inc()

    def stream_refused(self) -> None:
        """Count a stream that was not let in."""
        self._refused.inc()

    # -- what the commit cycle tells --------------------------------------------------------------

    def offered(self, kinds: Mapping[str, int]) -> None:
        """Count changes as they arrive."""
        for kind, count in kinds.items():
            self._updates[update_kind(kind)].inc(count)

    def committed(self, kinds: Mapping[str, int], waited_seconds: float) -> None:
        """Count a commit."""
        self._debounce_time.observe(waited_seconds)
        for trigger in {update_kind(kind) for kind in kinds}:
            self._triggers[trigger].inc()

    def published(self, seconds: float) -> None:
        """Note how long a commit took with its publishing, which has just ended."""
        self._commit_time.observe(seconds)
        self._last_commit.set(time.time() - seconds)

    def recomputed(self, nodes: Mapping[str, int]) -> None:
        """Count nodes that ran, by query."""
        for query, count in nodes.items():
            child = self._recomputed_by_query.get(query)
            if child is None:
                child = self._recomputed_by_query[query] = self._recomputed.labels(query)
            child.inc(count)

    def found(self, counts: Mapping[Severity, int]) -> None:
        """Set the number of current findings."""
        for severity, child in self._findings.items():
            child.set(counts.get(severity, 0))

    def secrets_failed(self, count: int) -> None:
        """Count secrets that are newly refused, missing or unusable (D-Z-5)."""
        self._secret_errors.inc(count)

    # -- out --------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """Return everything in Prometheus' text format 0.0.4."""
        text = generate_latest(_Exposed(self.registry))
        for name in _ISTIO_COUNTERS:
            text = text.replace(f"{name}_total".encode(), name.encode())
        return text


class _Exposed(CollectorRegistry):
    """A registry's metrics without the creation times, which double the text for no use here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._inner = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._inner.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


_ISTIO_COUNTERS: Final = (
    "pilot_xds_pushes",
    "pilot_total_xds_rejects",
    *(f"pilot_xds_{SHORT_NAMES[url].lower()}_reject" for url in PUSH_ORDER),
    "pilot_xds_expired_nonce",
    "pilot_inbound_updates",
    "pilot_push_triggers",
    "citadel_server_authentication_failure_count",
    "citadel_server_csr_count",
    "citadel_server_success_cert_issuance_count",
    "citadel_server_csr_parsing_err_count",
    "citadel_server_csr_sign_err_count",
)
