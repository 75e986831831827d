"""Fault injection on a route: delays and aborts (traffic.md VS-36, VS-37)."""

from collections.abc import Iterator
from typing import Final

from pilothouse._pb.envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault_pb2
from pilothouse._pb.envoy.extensions.filters.http.fault.v3 import fault_pb2
from pilothouse._pb.envoy.type.v3 import percent_pb2
from pilothouse.api.virtual_service import FaultAbort, FaultDelay, HttpFault
from pilothouse.graph.findings import ConfigRef, Finding, Severity
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


def fault_findings(wanted: HttpFault, ref: ConfigRef) -> Iterator[Finding]:
    """Say which parts of the fault at `ref` never act, unless a written 0 % says so itself."""
    delay, abort = wanted.delay, wanted.abort
    if delay is not None:
        if delay.exponential_delay is not None and not delay.fixed_delay:
            yield _unsupported(ref, "delay.exponentialDelay", "Use fixedDelay.")
        elif delay.percentage is None and not delay.percent:
            yield _never(ref, "delay")
    if abort is not None:
        if abort.http2_error is not None:
            yield _unsupported(ref, "abort.http2Error", "Use httpStatus or grpcStatus.")
        elif abort.grpc_status is not None and abort.grpc_status not in GRPC_CODES:
            yield _unsupported(
                ref, "abort.grpcStatus", "Use a gRPC status name such as UNAVAILABLE."
            )
        elif abort.percentage is None:
            yield _never(ref, "abort")


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


def _unsupported(ref: ConfigRef, field: str, remedy: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "FaultNotSupported",
        ref.at(f"{ref.path}.{field}"),
        f"{field} cannot be injected; no request sees it.",
        remedy,
    )


def _never(ref: ConfigRef, part: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "FaultWithoutPercentage",
        ref.at(f"{ref.path}.{part}"),
        f"A fault {part} without a percentage happens to no request.",
        "Write percentage.value, 100 for every request.",
    )
