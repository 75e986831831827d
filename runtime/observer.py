"""
What streams do, made metrics and log lines.

Counts everything, logs what people ask about: who came, went, was refused, and what a proxy
rejected, with the objects at fault. Error texts come cut to a bounded length.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import SDS, SHORT_NAMES
from pilothouse.runtime.few_lines import FewLines
from pilothouse.runtime.metrics import Metrics
from pilothouse.xds.progress import Acked
from pilothouse.xds.rejections import RejectedResource, truncated
from pilothouse.xds.status import StreamInfo

MAX_LISTED: Final = 10


class ProxyFollower(Protocol):
    """Somebody who has something for each connected proxy."""

    def connected(self, proxy: Proxy) -> None:
        """A stream was let in."""
        ...

    def disconnected(self, proxy: Proxy) -> None:
        """A stream has ended."""
        ...


class StreamObserver:
    """The observer of a server's streams."""

    def __init__(
        self,
        metrics: Metrics,
        on_rejection: Callable[[], None],
        followers: Callable[[], Iterable["ProxyFollower"]] = tuple,
    ) -> None:
        """Count into `metrics`; `on_rejection` is called when findings may have changed."""
        self._metrics = metrics
        self._followers = followers
        self._on_rejection = on_rejection
        self._labels: dict[int, str] = {}
        self._refusals = FewLines(time.monotonic, "xds.more_refused")
        self._rejections = FewLines(time.monotonic, "xds.more_rejected")
        # Bound once: finding the configured logger anew costs more than a filtered-out line.
        self._log = structlog.get_logger().bind()

    def connected(self, stream: StreamInfo) -> None:
        """Count and log a proxy that was let in."""
        self._labels[stream.number] = self._metrics.connected(stream.proxy.istio_version)
        for follower in self._followers():
            follower.connected(stream.proxy)
        self._log.info("xds.connected", **_who(stream), variant=stream.variant.value)

    def disconnected(self, stream: StreamInfo, reason: str) -> None:
        """Count and log the end of a stream."""
        self._metrics.disconnected(self._labels.pop(stream.number))
        self._on_rejection()  # what it refused is no longer in use
        for follower in self._followers():
            follower.disconnected(stream.proxy)
        self._log.info("xds.disconnected", **_who(stream), **({"reason": reason} if reason else {}))

    def refused(self, peer: str, reason: str) -> None:
        """Count and log a stream that was not let in."""
        self._metrics.stream_refused()
        if self._refusals.passes():
            self._log.warning("xds.refused", peer=peer, reason=truncated(reason))

    def subscribed(self, stream: StreamInfo, type_url: str) -> None:  # noqa: ARG002 (by type)
        """See that what is said of a secret is heard: nothing need be sent for it."""
        if type_url == SDS:
            self._on_rejection()

    def pushed(self, stream: StreamInfo, type_url: str, count: int, size_bytes: int) -> None:
        """Count a response."""
        self._metrics.pushed(type_url, size_bytes)
        self._log.debug(
            "xds.pushed",
            proxy=_name(stream),
            type=SHORT_NAMES.get(type_url, type_url),
            count=count,
            size_bytes=size_bytes,
        )

    def acked(self, stream: StreamInfo, acked: Acked) -> None:  # noqa: ARG002 (never by proxy)
        """Count an acknowledgement."""
        self._metrics.acknowledged(acked.type_url, acked.round_trip_seconds)
        if acked.convergence_seconds is not None:
            self._metrics.converged(acked.convergence_seconds)

    def rejected(
        self, stream: StreamInfo, type_url: str, error: str, found: tuple[RejectedResource, ...]
    ) -> None:
        """Count and log a refusal, with the resources and objects at fault if they are known."""
        self._metrics.rejected(type_url)
        self._on_rejection()
        if not self._rejections.passes():
            return
        objects = {str(ref): None for resource in found for ref in resource.sources}
        self._log.warning(
            "xds.rejected",
            proxy=_name(stream),
            type=SHORT_NAMES.get(type_url, type_url),
            error=truncated(error),
            resources=[resource.name for resource in found[:MAX_LISTED]],
            objects=list(objects)[:MAX_LISTED],
        )

    def stale(self, stream: StreamInfo, type_url: str) -> None:  # noqa: ARG002 (never by proxy)
        """Count an answer to a response that was replaced."""
        self._metrics.stale_nonce()


def _name(stream: StreamInfo) -> str:
    return f"{stream.proxy.name}.{stream.proxy.namespace}"


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"proxy": _name(stream), "node": stream.proxy.id, "peer": stream.peer}
