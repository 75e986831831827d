"""Rules across the fields of a WorkloadEntry, an inline endpoint and a WorkloadGroup."""

from collections.abc import Iterator

from pilothouse.api import names, paths
from pilothouse.api.problem import Problem, labels, not_negative, one_of, port, warning
from pilothouse.api.workload import (
    ReadinessProbe,
    WorkloadEntry,
    WorkloadEntrySpec,
    WorkloadGroup,
)

_UNIX = "unix://"
_MAX_SOCKET_BYTES = 107


def check_entry(row: WorkloadEntry) -> Iterator[Problem]:
    """Yield what is wrong with one WorkloadEntry."""
    yield from check_endpoint(row.spec, "spec")


def check_group(row: WorkloadGroup) -> Iterator[Problem]:
    """Yield what is wrong with one WorkloadGroup."""
    template = row.spec.template
    if template.address:
        message = "Each workload is registered with its own address, so this one is not used."
        yield warning("spec.template.address", message, "Remove it.")
    yield from labels(template.labels, "spec.template.labels")
    for name, number in template.ports.items():
        yield from port(number, paths.child("spec.template.ports", name))
    if row.spec.metadata is not None:
        yield from labels(row.spec.metadata.labels, "spec.metadata.labels")
    if row.spec.probe is not None:
        yield from _check_probe(row.spec.probe)


def _check_probe(probe: ReadinessProbe) -> Iterator[Problem]:
    path = "spec.probe"
    yield from one_of(probe, path, "http_get", "tcp_socket", "exec", "grpc", required=True)
    yield from not_negative(
        probe,
        path,
        "period_seconds",
        "initial_delay_seconds",
        "timeout_seconds",
        "success_threshold",
        "failure_threshold",
    )
    if probe.http_get is not None:
        yield from port(probe.http_get.port, f"{path}.httpGet.port")
        if probe.http_get.scheme not in ("", "HTTP", "HTTPS"):
            message = f'"{probe.http_get.scheme}" is no scheme of a probe.'
            yield Problem(f"{path}.httpGet.scheme", message, "Write HTTP or HTTPS.")
        for index, header in enumerate(probe.http_get.http_headers):
            problem = names.header(header.name)
            if problem:
                at = f"{path}.httpGet.httpHeaders[{index}].name"
                yield Problem(at, f'The header "{header.name}" {problem}.')
    if probe.tcp_socket is not None:
        yield from port(probe.tcp_socket.port, f"{path}.tcpSocket.port")
    if probe.grpc is not None:
        yield from port(probe.grpc.port, f"{path}.grpc.port", optional=True)
    if probe.exec is not None and not probe.exec.command:
        yield Problem(f"{path}.exec.command", "A probe that runs a command needs one.")


def check_endpoint(spec: WorkloadEntrySpec, path: str) -> Iterator[Problem]:
    """Yield problems of one endpoint (WE-01 to WE-05)."""
    address = spec.address
    at = f"{path}.address"
    if not address:
        if not spec.network:
            yield Problem(at, "An endpoint needs an address, or a network to be reached through.")
        else:
            message = "Without an address the endpoint is only reached from other networks."
            yield warning(at, message, "Set the address.")
    elif address.startswith(_UNIX):
        socket = address.removeprefix(_UNIX)
        if not socket.startswith(("/", "@")) or socket.endswith("/"):
            yield Problem(at, f'"{socket}" is no absolute path of a socket.')
        if len(socket.encode()) > _MAX_SOCKET_BYTES:
            message = f"The socket's path has more than {_MAX_SOCKET_BYTES} bytes."
            yield Problem(at, message, "Use a shorter path; the kernel takes no longer one.")
        if spec.ports:
            yield Problem(f"{path}.ports", "A Unix socket has no ports.", "Remove them.")
    elif not names.is_address(address):
        problem = names.host(address) or ("has a wildcard" if "*" in address else "")
        if problem:
            yield Problem(at, f'The address "{address}" {problem}.')
    for name, number in spec.ports.items():
        yield from port(number, paths.child(f"{path}.ports", name))
    yield from labels(spec.labels, f"{path}.labels")
    if spec.weight < 0:
        yield Problem(f"{path}.weight", f"The weight {spec.weight} is negative.")
