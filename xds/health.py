"""
Health reports: what an agent says of its workload on a discovery stream (GN-06, security.md Y-3).

They have the form of requests of a type of their own and are answered by nothing. An agent may send
one before its Envoy has asked for anything.
"""

from typing import Final

from pilothouse.xds.rejections import truncated
from pilothouse.xds.requests import Request

HEALTH_TYPE: Final = "type.googleapis.com/istio.v1.HealthInformation"


def is_report(request: Request) -> bool:
    """Tell whether a request is a health report."""
    return request.type_url == HEALTH_TYPE


def reported_problem(request: Request) -> str | None:
    """Return what is wrong with the workload, of bounded length; None if it is healthy."""
    return None if request.error is None else truncated(request.error)
