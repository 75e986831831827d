"""Statistics' names of clusters and TCP chains, as the mesh config words them (traffic.md N-62)."""

from typing import NamedTuple

from pilothouse.model.services import Port, Service


class StatSubject(NamedTuple):
    """What statistics are about; `target_port` is 0 for outbound ones."""

    service: Service
    port: Port
    subset: str = ""
    target_port: int = 0


def stat_name(pattern: str, subject: StatSubject, otherwise: str) -> str:
    """Fill in the pattern's variables; without a pattern the name is as `otherwise` says."""
    if not pattern:
        return otherwise
    service = subject.service
    is_short = service.is_kubernetes
    values = {
        "%SERVICE%": f"{service.key.name}.{service.namespace}" if is_short else service.host,
        "%SERVICE_NAME%": service.key.name if is_short else service.host,
        "%SERVICE_FQDN%": service.host,
        "%SUBSET_NAME%": subject.subset,
        "%TARGET_PORT%": str(subject.target_port),
        "%SERVICE_PORT%": str(subject.port.number),
        "%SERVICE_PORT_NAME%": subject.port.name,
    }
    for variable, value in values.items():
        pattern = pattern.replace(variable, value)
    return pattern
