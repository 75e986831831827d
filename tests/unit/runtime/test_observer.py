"""What streams do, in the log: a proxy must not be able to fill a disk."""

from structlog.testing import capture_logs

from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.model.resource import CDS
from pilothouse.runtime.few_lines import LINES
from pilothouse.runtime.metrics import Metrics
from pilothouse.runtime.observer import StreamObserver
from pilothouse.xds.requests import Variant
from pilothouse.xds.status import StreamInfo

STREAM = StreamInfo(
    number=1,
    proxy=Proxy(
        id="sidecar~10.0.0.1~a.default~x",
        type=NodeType.SIDECAR,
        ips=("10.0.0.1",),
        name="a",
        namespace="default",
        domain="x",
    ),
    peer="10.0.0.1:1",
    variant=Variant.DELTA,
    connected_at_epoch_seconds=0.0,
)


def test_a_proxy_that_refuses_everything_writes_a_few_lines() -> None:
    """Each is counted, a few are told, and each line is short."""
    metrics = Metrics()
    heard: list[None] = []
    with capture_logs() as lines:
        observer = StreamObserver(metrics, lambda: heard.append(None))
        for _ in range(LINES * 3):
            observer.rejected(STREAM, CDS, "no good " * 10_000, ())
    assert [line["event"] for line in lines] == ["xds.rejected"] * LINES
    assert max(len(line["error"]) for line in lines) <= 1_024
    assert len(heard) == LINES * 3
    assert f"pilot_xds_cds_reject {LINES * 3}.0" in metrics.text().decode()
