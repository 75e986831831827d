"""Which check belongs to which kind."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from pilothouse.api import (
    destination_rule_check,
    gateway_check,
    kubernetes_check,
    mesh_config_check,
    mesh_networks,
    peer_authentication_check,
    service_entry_check,
    sidecar_check,
    virtual_service_check,
    workload_check,
)
from pilothouse.api.problem import Problem

CHECKS: Final[dict[str, Callable[[Any], Iterator[Problem]]]] = {
    "VirtualService": virtual_service_check.check,
    "DestinationRule": destination_rule_check.check,
    "ServiceEntry": service_entry_check.check,
    "WorkloadEntry": workload_check.check_entry,
    "WorkloadGroup": workload_check.check_group,
    "Sidecar": sidecar_check.check,
    "Gateway": gateway_check.check,
    "PeerAuthentication": peer_authentication_check.check,
    "Service": kubernetes_check.check_service,
    "EndpointSlice": kubernetes_check.check_endpoint_slice,
    "Endpoints": kubernetes_check.check_endpoints,
    "Pod": kubernetes_check.check_pod,
    "Secret": kubernetes_check.check_secret,
    "MeshConfig": mesh_config_check.check,
    "MeshNetworks": mesh_networks.check,
}
"""Checks of one object alone, by kind; a kind that is not here has no rules of its own."""
