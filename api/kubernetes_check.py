"""
Rules for Kubernetes objects that an API server would have enforced.

Files are not checked by an API server, so the few that matter for traffic are checked here.
"""

from collections.abc import Iterator
from typing import Final

from pilothouse.api import names, paths
from pilothouse.api.kubernetes_core import Endpoints, EndpointSlice, Pod, Secret, Service
from pilothouse.api.problem import Problem, port, warning
from pilothouse.api.sessions import check_sessions

REMOTE_CLUSTER_LABEL: Final = "istio/multiCluster"


def check_service(row: Service) -> Iterator[Problem]:
    """Yield what is wrong with the ports and addresses of a Service."""
    spec = row.spec
    if spec.type == "ExternalName":
        if not spec.external_name:
            yield Problem("spec.externalName", "A Service of type ExternalName needs it.")
        return
    yield from check_sessions(row.meta.labels)
    seen: set[str] = set()
    for index, each in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        yield from port(each.port, f"{path}.port")
        if isinstance(each.target_port, int):
            yield from port(each.target_port, f"{path}.targetPort", optional=True)
        if not each.name and len(spec.ports) > 1:
            yield Problem(f"{path}.name", "With several ports each needs a name.")
        elif each.name in seen:
            yield Problem(f"{path}.name", f'The port name "{each.name}" is there twice.')
        seen.add(each.name)
    for address in (spec.cluster_ip, *spec.cluster_ips):
        if address and address != "None" and not names.is_address(address):
            yield Problem("spec.clusterIP", f'"{address}" is no IP address.', "Or write None.")


def check_endpoints(row: Endpoints) -> Iterator[Problem]:
    """Yield what is wrong with the addresses and ports of an Endpoints object."""
    for index, subset in enumerate(row.subsets or ()):
        at = f"subsets[{index}]"
        for number, listed in enumerate(subset.ports):
            yield from port(listed.port, f"{at}.ports[{number}].port")
        for number, address in enumerate(subset.addresses):
            yield from _ip(address.ip, f"{at}.addresses[{number}].ip")
        for number, address in enumerate(subset.not_ready_addresses):
            yield from _ip(address.ip, f"{at}.notReadyAddresses[{number}].ip")


def check_secret(row: Secret) -> Iterator[Problem]:
    """Yield a warning for what istiod reaches other clusters by (K8-22), whatever its values."""
    if row.meta.labels.get(REMOTE_CLUSTER_LABEL) == "true":
        names = ", ".join(sorted({*row.data, *row.string_data})) or "the cluster"
        yield warning(
            paths.child("metadata.labels", REMOTE_CLUSTER_LABEL),
            f"Clusters are not reached by kubeconfigs in this version; nothing is known of {names}"
            " by this Secret.",
            "Start the server with --remote-cluster NAME=DIR, a directory of its objects.",
            "FieldNotTranslated",
        )


def check_pod(row: Pod) -> Iterator[Problem]:
    """Yield what is wrong with the addresses of a Pod."""
    if row.status.pod_ip:
        yield from _ip(row.status.pod_ip, "status.podIP")
    for index, each in enumerate(row.status.pod_ips):
        yield from _ip(each.ip, f"status.podIPs[{index}].ip")


def _ip(text: str, path: str) -> Iterator[Problem]:
    if not names.is_address(text):
        yield Problem(path, f'"{text}" is no IP address.')


def check_endpoint_slice(row: EndpointSlice) -> Iterator[Problem]:
    """Yield what is wrong with the addresses and ports of an EndpointSlice."""
    for index, each in enumerate(row.ports or ()):
        yield from port(each.port, f"ports[{index}].port")
    if row.address_type not in ("IPv4", "IPv6"):
        return
    for index, endpoint in enumerate(row.endpoints or ()):
        for number, address in enumerate(endpoint.addresses):
            if not names.is_address(address):
                at = f"endpoints[{index}].addresses[{number}]"
                yield Problem(at, f'"{address}" is no {row.address_type} address.')
