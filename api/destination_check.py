"""Rules for destinations, weights and gateway names, which rules of all protocols share."""

from collections.abc import Iterator, Sequence

from pilothouse.api import names, paths
from pilothouse.api.problem import Problem, port
from pilothouse.api.virtual_service import Destination


def check_gateways(gateways: Sequence[str], path: str) -> Iterator[Problem]:
    """Yield problems of a list of gateways: `mesh`, a name, or ``namespace/name``."""
    for index, gateway in enumerate(gateways):
        namespace, slash, name = gateway.rpartition("/")
        problem = names.object_name(name)
        if not problem and slash and namespace != ".":
            problem = names.dns_label(namespace)
        if problem:
            yield Problem(
                paths.item(path, index),
                f'"{gateway}" is no gateway: its name {problem}.',
                "Write mesh, a name, or namespace/name.",
            )


def check_destination(destination: Destination, path: str) -> Iterator[Problem]:
    """Yield problems of a destination: its host, subset and port."""
    problem = names.host(destination.host)
    if not problem and destination.host == "*":
        problem = "names no service"
    if problem:
        yield Problem(f"{path}.host", f'The host "{destination.host}" {problem}.')
    if destination.subset and names.dns_label(destination.subset):
        yield Problem(
            f"{path}.subset",
            f'The subset "{destination.subset}" {names.dns_label(destination.subset)}.',
        )
    if destination.port is not None:
        yield from port(destination.port.number, f"{path}.port.number")


def check_weights(weights: Sequence[int], path: str) -> Iterator[Problem]:
    """Yield problems of the weights of sibling destinations."""
    for index, weight in enumerate(weights):
        if weight < 0:
            yield Problem(f"{path}[{index}].weight", f"The weight {weight} is negative.")
    if len(weights) > 1 and not any(weights):
        yield Problem(path, "All weights are 0, so nothing gets the traffic.", "Set weights.")
