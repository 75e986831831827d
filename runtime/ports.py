"""Ports: what was bound, how it is told, and what to say when one cannot be bound."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from pilothouse.errors import MeshError
from pilothouse.runtime.addresses import Address


class CannotListen(MeshError):
    """A port could not be bound; names the address, the option, and why."""

    def __init__(self, option: str, address: Address, why: str) -> None:
        """Keep what is to be said."""
        super().__init__(option, address, why)
        self.option = option
        self.address = address
        self.why = why

    def __str__(self) -> str:
        """One sentence for people."""
        return (
            f"Cannot listen on {self.address} ({self.option}): {self.why}."
            f" Free it, or choose another address with {self.option} HOST:PORT (port 0: any free)."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPorts:
    """The addresses that are served, with the ports they got; None is turned off."""

    grpc: Address
    secure_grpc: Address | None
    monitoring: Address

    def write(self, path: Path) -> None:
        """Write the port numbers as JSON, whole or not at all."""
        ports = {
            "grpc": self.grpc.port,
            "secure_grpc": self.secure_grpc.port if self.secure_grpc else None,
            "monitoring": self.monitoring.port,
        }
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(ports) + "\n", encoding="utf-8")
        draft.replace(path)


def why_not(address: Address) -> str:
    """Ask the operating system why an address cannot be bound."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
            probe.listen(1)
    except OSError as error:
        return explain(error)
    return "it was in use a moment ago"


def explain(error: OSError) -> str:
    """Return the reason in words, without a full stop."""
    return (error.strerror or str(error)).rstrip(".").lower()
