"""Metrics keep istiod's names and stay bounded."""

from prometheus_client.parser import text_string_to_metric_families

from pilothouse.graph.findings import Severity
from pilothouse.model.resource import CDS, EDS, LDS
from pilothouse.runtime.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample of the text; the parser puts ``_total`` on every counter."""
    for family in text_string_to_metric_families(metrics.text().decode()):
        for found in family.samples:
            if found.name in {name, f"{name}_total"} and found.labels == labels:
                return float(found.value)
    return None


def test_istio_counters_have_istio_names() -> None:
    """PU-12: dashboards ask for ``pilot_xds_pushes``, without ``_total`` (security.md 8.1)."""
    metrics = Metrics()
    metrics.pushed(CDS, 500)
    metrics.pushed(CDS, 500)
    metrics.rejected(LDS)
    text = metrics.text().decode()
    assert 'pilot_xds_pushes{type="cds"} 2.0' in text
    assert "# TYPE pilot_xds_pushes counter" in text
    assert 'pilot_total_xds_rejects{type="lds"} 1.0' in text
    assert "pilot_xds_lds_reject 1.0" in text
    assert "pilot_xds_pushes_total" not in text
    assert "_created" not in text


def test_connected_proxies_by_version() -> None:
    """``pilot_xds`` follows connections and forgets a version that is gone."""
    metrics = Metrics()
    metrics.connected("1.30.0")
    metrics.connected("1.30.0")
    metrics.connected("")
    assert sample(metrics, "pilot_xds", version="1.30.0") == 2
    assert sample(metrics, "pilot_xds", version="unknown") == 1
    metrics.disconnected("1.30.0")
    metrics.disconnected("1.30.0")
    assert sample(metrics, "pilot_xds", version="1.30.0") is None


def test_versions_that_proxies_claim_are_bounded() -> None:
    """A proxy names its own version, so the label is cut off at a number of values."""
    metrics = Metrics()
    for number in range(100):
        metrics.connected(f"1.{number}")
    metrics.connected("x" * 1000)
    text = metrics.text().decode()
    assert text.count("pilot_xds{") <= 33
    assert sample(metrics, "pilot_xds", version="other") == 69


def test_changes_are_sorted_as_istio_does() -> None:
    """Update and trigger types are istiod's words."""
    metrics = Metrics()
    metrics.offered({"EndpointSlice": 3, "Service": 1, "VirtualService": 2})
    metrics.committed({"EndpointSlice": 3, "WorkloadEntry": 1}, 0.2)
    assert sample(metrics, "pilot_inbound_updates", type="eds") == 3
    assert sample(metrics, "pilot_inbound_updates", type="svc") == 1
    assert sample(metrics, "pilot_inbound_updates", type="config") == 2
    assert sample(metrics, "pilot_push_triggers", type="endpoint") == 1
    assert sample(metrics, "pilot_push_triggers", type="config") == 0
    assert sample(metrics, "pilot_debounce_time_count") == 1


def test_own_metrics() -> None:
    """Work of the graph and findings are counted under our own names."""
    metrics = Metrics()
    metrics.recomputed({"model.services.service": 4})
    metrics.recomputed({"model.services.service": 1})
    metrics.published(0.01)
    metrics.found({Severity.ERROR: 2})
    metrics.acknowledged(EDS, 0.02)
    metrics.converged(0.02)
    assert (
        sample(metrics, "pilothouse_graph_nodes_recomputed_total", query="model.services.service")
        == 5
    )
    assert sample(metrics, "pilothouse_findings", severity="error") == 2
    assert sample(metrics, "pilothouse_findings", severity="warning") == 0
    assert sample(metrics, "pilot_proxy_convergence_time_count") == 1


def test_two_servers_do_not_share_counts() -> None:
    """A registry belongs to one server."""
    one, other = Metrics(), Metrics()
    one.rejected(CDS)
    assert sample(other, "pilot_total_xds_rejects", type="cds") == 0
