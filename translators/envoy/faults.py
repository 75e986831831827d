"""Fault injection on a route: delays and aborts (traffic.md VS-36, VS-37)."""

from typing import Final

from pilothouse._pb.envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from pilothouse._pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from pilothouse._pb.envoy.type.v3 import percent_pb2
from pilothouse.api.virtual_service import FaultAbort, FaultDelay, HttpFault
from pilothouse.translators.envoy.percentages import fraction, whole

FAULT_FILTER: Final = "envoy.filters.http.fault"

GRPC_CODES: Final = {
    name: code
    for code, name in enumerate(
        (
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        )
    )
}
"""gRPC status names and numbers (grpc/grpc doc/statuscodes.md)."""


def http_fault(wanted: HttpFault) -> fault_pb2.HTTPFault | None:
    """Build the per-route config of the fault filter; None if it would never act."""
    delay = _delay(wanted.delay) if wanted.delay is not None else None
    abort = _abort(wanted.abort) if wanted.abort is not None else None
    if delay is None and abort is None:
        return None
    return fault_pb2.HTTPFault(delay=delay, abort=abort)


def _delay(wanted: FaultDelay) -> common_fault_pb2.FaultDelay | None:
    share = whole(wanted.percent) if wanted.percentage is None else fraction(wanted.percentage)
    if not wanted.fixed_delay or not share.numerator:
        return None
    return common_fault_pb2.FaultDelay(fixed_delay=wanted.fixed_delay, percentage=share)


def _abort(wanted: FaultAbort) -> fault_pb2.FaultAbort | None:
    # Unlike elsewhere, no percentage means no request.
    share = fraction(wanted.percentage) if wanted.percentage else percent_pb2.FractionalPercent()
    if not share.numerator:
        return None
    if wanted.http_status is not None:
        return fault_pb2.FaultAbort(http_status=wanted.http_status, percentage=share)
    if wanted.grpc_status in GRPC_CODES:
        return fault_pb2.FaultAbort(grpc_status=GRPC_CODES[wanted.grpc_status], percentage=share)
    return None
