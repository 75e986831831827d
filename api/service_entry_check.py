"""Rules across the fields of a ServiceEntry, as Istio publishes them."""

from collections.abc import Iterator

from pilothouse.api import names
from pilothouse.api.problem import Problem, export_to, hosts, port, selector, warning
from pilothouse.api.service_entry import ServiceEntry, ServiceEntrySpec
from pilothouse.api.sessions import check_sessions
from pilothouse.api.workload_check import check_endpoint

_NAMES_ITS_HOST = ("HTTP", "HTTP2", "GRPC", "TLS")
"""Protocols whose first bytes say which host is meant, and that DYNAMIC_DNS can carry."""


def check(row: ServiceEntry) -> Iterator[Problem]:
    """Yield what is wrong with one ServiceEntry."""
    spec = row.spec
    if not spec.hosts:
        yield Problem("spec.hosts", "At least one host must be given.")
    yield from hosts(spec.hosts, "spec.hosts")
    for index, host in enumerate(spec.hosts):
        if host == "*":
            message = 'The host "*" would stand for everything.'
            yield Problem(f"spec.hosts[{index}]", message, "Name a domain, such as *.example.com.")
    for index, address in enumerate(spec.addresses):
        at = f"spec.addresses[{index}]"
        problem = names.subnet(address)
        if problem:
            yield Problem(at, f'"{address}" {problem}.')
        elif "/" in address and spec.resolution not in ("NONE", "STATIC"):
            message = "Address blocks go only with resolution NONE or STATIC."
            yield Problem(at, message, "Write single addresses.")
    yield from check_sessions(row.meta.labels)
    yield from _check_ports(row)
    yield from _check_port_protocols(spec)
    yield from _check_endpoints(spec)
    yield from _check_resolution(spec)
    if spec.workload_selector is not None:
        if spec.endpoints:
            message = "Only one of workloadSelector and endpoints may be set."
            yield Problem("spec.workloadSelector", message)
        yield from _check_selector(spec, spec.workload_selector.labels)
    namespace = row.meta.namespace
    yield from export_to(spec.export_to, "spec.exportTo", namespace, allows_nobody=True)


def _check_selector(spec: ServiceEntrySpec, labels: dict[str, str]) -> Iterator[Problem]:
    path = "spec.workloadSelector"
    if not labels:
        yield warning(path, "Without labels the selector picks no workload.", "Add labels.")
    if spec.resolution == "NONE":
        message = "With resolution NONE connections go where clients sent them, not to workloads."
        yield warning(path, message, "Set resolution to STATIC.")
    yield from selector(labels, f"{path}.labels")


def _check_ports(row: ServiceEntry) -> Iterator[Problem]:
    spec = row.spec
    if not spec.ports:
        yield warning("spec.ports", "Without ports the service receives no traffic.", "Add ports.")
    numbers: set[int] = set()
    port_names: set[str] = set()
    for index, each in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        yield from port(each.number, f"{path}.number")
        yield from port(each.target_port, f"{path}.targetPort", optional=True)
        if each.number in numbers:
            yield Problem(f"{path}.number", f"The port {each.number} is there twice.")
        if each.name in port_names:
            yield Problem(f"{path}.name", f'The port name "{each.name}" is there twice.')
        numbers.add(each.number)
        port_names.add(each.name)
        if not each.name:
            yield Problem(f"{path}.name", "A port needs a name.")
        elif problem := names.dns_label(each.name):
            yield Problem(f"{path}.name", f'The port name "{each.name}" {problem}.')
        if each.protocol and each.protocol.upper() not in names.PROTOCOLS:
            yield Problem(
                f"{path}.protocol",
                f'"{each.protocol}" is no protocol known to the mesh.',
                "Write HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.",
            )
        is_raw = each.protocol.upper() in ("TCP", "")
        if is_raw and not spec.addresses and not row.finds_addresses:
            yield warning(
                path,
                "TCP to a service without addresses cannot be told from other TCP on this port.",
                "Add addresses, or set the protocol.",
            )


def _check_port_protocols(spec: ServiceEntrySpec) -> Iterator[Problem]:
    for index, each in enumerate(spec.ports):
        protocol = each.protocol.upper()
        path = f"spec.ports[{index}].protocol"
        if spec.resolution == "DYNAMIC_DNS" and protocol not in _NAMES_ITS_HOST:
            message = "With DYNAMIC_DNS the protocol must tell the host: HTTP, HTTP2, GRPC or TLS."
            yield Problem(path, message, "Declare another protocol, or use resolution DNS.")
        is_mute = protocol not in _NAMES_ITS_HOST and protocol not in ("GRPC-WEB", "HTTPS")
        if is_mute and len(spec.hosts) > 1 and spec.resolution not in ("NONE", "DYNAMIC_DNS"):
            yield Problem(
                path,
                "Connections that are neither HTTP nor TLS do not tell which of several hosts they "
                "are for.",
                "Give each host an entry of its own.",
            )


def _check_endpoints(spec: ServiceEntrySpec) -> Iterator[Problem]:
    port_names = {each.name for each in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        path = f"spec.endpoints[{index}]"
        yield from check_endpoint(endpoint, path)
        for name in endpoint.ports:
            if name not in port_names:
                message = f'The service has no port named "{name}".'
                yield Problem(f"{path}.ports", message)
        address = endpoint.address
        if address.startswith("unix://") and len(spec.ports) != 1:
            message = "An entry with a Unix socket has exactly one port."
            yield Problem(f"{path}.address", message, "Give each port an entry of its own.")
        is_name = bool(address) and not names.is_address(address)
        if spec.resolution == "STATIC" and is_name and not address.startswith("unix://"):
            message = f'With resolution STATIC "{address}" must be an IP address.'
            yield Problem(f"{path}.address", message, "Set resolution to DNS.")
        if spec.resolution in ("DNS", "DNS_ROUND_ROBIN") and address.startswith("unix://"):
            message = "A Unix socket needs resolution STATIC."
            yield Problem(f"{path}.address", message)


def _check_resolution(spec: ServiceEntrySpec) -> Iterator[Problem]:
    wild = [host for host in spec.hosts if "*" in host]
    match spec.resolution:
        case "NONE" if spec.endpoints:
            message = "With resolution NONE there are no endpoints to name."
            yield Problem("spec.endpoints", message, "Set resolution to STATIC or DNS.")
        case "STATIC" if not spec.endpoints and spec.workload_selector is None:
            message = "With resolution STATIC and no endpoints requests get 503."
            yield warning("spec.endpoints", message, "Add endpoints or workloadSelector.")
        case "DNS" | "DNS_ROUND_ROBIN":
            if wild and not spec.endpoints:
                message = f'"{wild[0]}" cannot be looked up: a wildcard is no name.'
                yield Problem("spec.hosts", message, "Add endpoints, or use resolution NONE.")
            if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
                message = "With DNS_ROUND_ROBIN there can be one endpoint at most."
                yield Problem("spec.endpoints", message, "Use resolution DNS.")
        case "DYNAMIC_DNS":
            if len(wild) < len(spec.hosts):
                message = "With DYNAMIC_DNS every host must begin with *."
                yield Problem("spec.hosts", message, "Use resolution DNS.")
            if spec.endpoints or spec.workload_selector is not None:
                message = "With DYNAMIC_DNS there are no endpoints to name."
                yield Problem("spec.endpoints", message)
            if spec.addresses:
                message = "With DYNAMIC_DNS hosts tell where to connect, not addresses."
                yield Problem("spec.addresses", message, "Remove them.")
        case _:
            pass
