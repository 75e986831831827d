"""
A certificate of the operator's for the secure port, in files (security.md C-R-12, "custom").

For agents that verify the server by another authority than the mesh's. Files are read again when
the port looks whether its certificate has to be renewed; what cannot be used then leaves the port
with what it has. The mesh's authority goes on to sign for workloads, and its roots stay trusted.
Where that one is elsewhere, the file of roots has its roots, and it is not for here to read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from pilothouse.certs.front.control import Material
from pilothouse.certs.front.supervisor import FrontFailed
from pilothouse.runtime.settings import Settings

MAX_FILE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFiles:
    """A chain, its key, and (None: none) certificates of further authorities of clients; PEM."""

    certificate: Path
    key: Path
    roots: Path | None = None

    def over(self, material: Material) -> Material:
        """
        Return material with what the files hold in the place of the authority's own.

        Raises: FrontFailed: A file cannot be read. Whether they fit is seen by who uses them.
        """
        return replace(
            material,
            certificate_pem=_read(self.certificate),
            key_pem=_read(self.key),
            roots_pem=material.roots_pem + (_read(self.roots) if self.roots is not None else ""),
        )


def port_files(settings: Settings) -> PortFiles | None:
    """Return the files that an operator chose, None if the mesh's authority issues for the port."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return PortFiles(
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        roots=settings.ca_cert_file if settings.ca_server else None,
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise FrontFailed(f"{path} cannot be read ({failure.strerror})") from failure
    if len(content) > MAX_FILE_BYTES:
        raise FrontFailed(f"{path} is too large")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as failure:
        raise FrontFailed(f"{path} is not PEM") from failure
