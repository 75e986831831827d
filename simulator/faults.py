"""
Faults that a route injects: delays, and aborts that end the request.

Source: envoyproxy/envoy, docs of the HTTP fault filter.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pilothouse._pb.envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from pilothouse.simulator.filter_overrides import Levels, override
from pilothouse.simulator.http_request import HttpRequest
from pilothouse.simulator.matchers import NotSimulatedMatcher, header_matches, share_of

GRPC_TRANSPORT_STATUS: Final = 200
"""A gRPC status comes with this HTTP status to gRPC clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    What may happen to a request; shares run from 0 to 1 and are drawn apart.

    `delay` None is no delay. An abort answers `status`, or gRPC status `grpc_status`.
    """

    delay: timedelta | None = None
    delay_share: float = 0.0
    status: int | None = None
    grpc_status: int | None = None
    abort_share: float = 0.0

    @property
    def always_aborts(self) -> bool:
        """Tell whether no request survives."""
        return self.abort_share >= 1.0


def fault_of(
    levels: Levels, filter_name: str, own: HTTPFault | None, request: HttpRequest
) -> Fault | None:
    """Return the fault for a request; None if none can happen to it."""
    config = override(levels, filter_name, HTTPFault) or own
    if config is None:
        return None
    route = levels[-1]
    if config.upstream_cluster and config.upstream_cluster != route.route.cluster:
        return None
    try:
        if not all(header_matches(each, request) for each in config.headers):
            return None
    except NotSimulatedMatcher:
        return None
    delay_share = share_of(config.delay.percentage) if config.HasField("delay") else 0.0
    abort_share = share_of(config.abort.percentage) if config.HasField("abort") else 0.0
    kind = config.abort.WhichOneof("error_type")
    if kind not in {"http_status", "grpc_status"}:
        abort_share = 0.0
    if not config.delay.HasField("fixed_delay"):
        delay_share = 0.0
    if not (delay_share or abort_share):
        return None
    return Fault(
        delay=config.delay.fixed_delay.ToTimedelta() if delay_share else None,
        delay_share=delay_share,
        status=config.abort.http_status if abort_share and kind == "http_status" else None,
        grpc_status=config.abort.grpc_status if abort_share and kind == "grpc_status" else None,
        abort_share=abort_share,
    )
