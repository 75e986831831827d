"""Shares of requests: from the API's percentages to Envoy's fractions."""

from typing import Final

from pilothouse._pb.envoy.type.v3 import percent_pb2
from pilothouse.api.virtual_service import Percent

_MILLIONTHS_PER_PERCENT: Final = 10_000


def fraction(share: Percent) -> percent_pb2.FractionalPercent:
    """Return a share to the millionth; less than nothing is nothing, more than all is all."""
    # Rounded, not cut: 33.3 % is 332,999.99... in binary.
    millionths = round(min(max(share.value, 0.0), 100.0) * _MILLIONTHS_PER_PERCENT)
    return percent_pb2.FractionalPercent(
        numerator=millionths, denominator=percent_pb2.FractionalPercent.MILLION
    )


def whole(percent: int) -> percent_pb2.FractionalPercent:
    """Return a whole number of percent, held between 0 and 100."""
    return percent_pb2.FractionalPercent(
        numerator=min(max(percent, 0), 100), denominator=percent_pb2.FractionalPercent.HUNDRED
    )
