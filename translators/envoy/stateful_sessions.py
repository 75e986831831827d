"""
The HTTP filter by which sessions stick to a workload (traffic.md K8-11, 3.12).

The filter of a listener does nothing by itself; the virtual host of a service that asks for
sessions says how. What the client holds is the workload's address, which Envoy uses as long as load
assignments name it, healthy or draining.
"""

from functools import lru_cache
from typing import Final

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import health_check_pb2
from pilothouse._pb.envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from pilothouse._pb.envoy.extensions.http.stateful_session.header.v3 import header_pb2
from pilothouse._pb.google.protobuf import any_pb2
from pilothouse.api.sessions import Session
from pilothouse.translators.envoy.encoding import pack

SESSION_FILTER: Final = "envoy.filters.http.stateful_session"
_COOKIE_STATE: Final = "envoy.http.stateful_session.cookie"
_HEADER_STATE: Final = "envoy.http.stateful_session.header"
_REACHABLE: Final = (
    health_check_pb2.HEALTHY,
    health_check_pb2.DRAINING,
    health_check_pb2.UNKNOWN,
    health_check_pb2.DEGRADED,
)


def session_filter() -> hcm_pb2.HttpFilter:
    """Return the filter for a listener, where virtual hosts say what it does."""
    return hcm_pb2.HttpFilter(
        name=SESSION_FILTER, typed_config=pack(stateful_session_pb2.StatefulSession())
    )


@lru_cache(maxsize=256)
def session_override(session: Session) -> any_pb2.Any:
    """
    Return what a virtual host says of its sessions.

    The cookie has no time to live: the client forgets it with its own session, as upstream.
    """
    override = stateful_session_pb2.StatefulSessionPerRoute()
    state = override.stateful_session.session_state
    if session.cookie:
        cookie = cookie_pb2.CookieBasedSessionState()
        cookie.cookie.name = session.cookie
        cookie.cookie.path = session.path
        state.name = _COOKIE_STATE
        state.typed_config.CopyFrom(pack(cookie))
    else:
        state.name = _HEADER_STATE
        state.typed_config.CopyFrom(pack(header_pb2.HeaderBasedSessionState(name=session.header)))
    return pack(override)


def keep_draining(cluster: cluster_pb2.Cluster) -> None:
    """Let requests that name a draining workload reach it, and no others."""
    cluster.common_lb_config.override_host_status.statuses.extend(_REACHABLE)
