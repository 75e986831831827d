"""Rules across the fields of a WorkloadEntry, an inline endpoint and a WorkloadGroup."""

from collections.abc import Iterator

from pilothouse.api import names, paths
from pilothouse.api.problem import Problem, labels, one_of, port
from pilothouse.api.workload import WorkloadEntry, WorkloadEntrySpec, WorkloadGroup

_UNIX = "unix://"


def check_entry(row: WorkloadEntry) -> Iterator[Problem]:
    """Yield what is wrong with one WorkloadEntry."""
    yield from check_endpoint(row.spec, "spec")


def check_group(row: WorkloadGroup) -> Iterator[Problem]:
    """Yield what is wrong with one WorkloadGroup."""
    template = row.spec.template
    yield from labels(template.labels, "spec.template.labels")
    for name, number in template.ports.items():
        yield from port(number, paths.child("spec.template.ports", name))
    if row.spec.probe is not None:
        yield from one_of(
            row.spec.probe, "spec.probe", "http_get", "tcp_socket", "exec", "grpc", required=True
        )


def check_endpoint(spec: WorkloadEntrySpec, path: str) -> Iterator[Problem]:
    """Yield problems of one endpoint (WE-01 to WE-05)."""
    address = spec.address
    at = f"{path}.address"
    if not address:
        if not spec.network:
            yield Problem(at, "An endpoint needs an address, or a network to be reached through.")
    elif address.startswith(_UNIX):
        socket = address.removeprefix(_UNIX)
        if not socket.startswith(("/", "@")) or socket.endswith("/"):
            yield Problem(at, f'"{socket}" is no absolute path of a socket.')
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
