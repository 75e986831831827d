"""
Ports that a proxy keeps for itself, or may not open (traffic.md LS-09).

A listener of ours on one of them would take the address of one that the proxy has already, and
Envoy would refuse it.
"""

from typing import Final

from pilothouse.graph.core import Ctx
from pilothouse.model.mesh import mesh_config

READINESS_PORT: Final = 15021
STATISTICS_PORT: Final = 15090
FIRST_UNPRIVILEGED_PORT: Final = 1024


def reserved_ports(ctx: Ctx) -> frozenset[int]:
    """Return the ports of the bootstrap's listeners, and those that traffic is redirected to."""
    mesh = ctx.get(mesh_config, None)
    redirected = (mesh.proxy_listen_port, mesh.proxy_inbound_listen_port)
    return frozenset((READINESS_PORT, STATISTICS_PORT, *redirected))


def is_privileged(port: int) -> bool:
    """Tell whether a process without privileges cannot bind a port."""
    return 0 < port < FIRST_UNPRIVILEGED_PORT
