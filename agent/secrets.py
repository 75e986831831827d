"""
The secrets an agent has to give, by name, with who waits for them.

Encoded once per change. Names of files are read when they are asked for, and again while somebody
listens. Source: security.md D-A-3.
"""

import asyncio
import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.agent.identity import HeldIdentity, Trust
from pilothouse.model.credentials import (
    ROOTS,
    SYSTEM_ROOTS,
    WORKLOAD,
    CertificateFiles,
    RootsFile,
)
from pilothouse.model.names import BadName
from pilothouse.model.resource import content_version

SYSTEM_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
LOOK_AT_FILES_SECONDS: Final = 2.0
MAX_FILE_BYTES: Final = 1024 * 1024

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")
_PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[^-]*-----END (?:[A-Z]+ )?PRIVATE KEY-----"
)


class Encoded(NamedTuple):
    """A secret as bytes, and the hash of its content."""

    version: str
    data: bytes

    def __repr__(self) -> str:
        """Show the version only."""
        return f"Encoded({self.version})"


class Asked:
    """
    What a stream of a proxy asks for, what it was sent, and what of that it has accepted.

    Both as versions by name; `nonce` is of what was sent last. `fault` is why the stream is ended.
    """

    __slots__ = ("accepted", "fault", "names", "nonce", "sent")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.names: tuple[str, ...] = ()
        self.nonce = ""
        self.sent: dict[str, str] = {}
        self.accepted: dict[str, str] = {}
        self.fault = ""


class AgentSecrets:
    """What there is to give, and who has it; `changed` is notified whenever either changes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.changed = asyncio.Condition()
        self._held: dict[str, Encoded] = {}
        self.streams: set[Asked] = set()

    async def show(self, held: HeldIdentity) -> None:
        """Give this certificate and these roots from now on."""
        workload = Secret(name=WORKLOAD)
        workload.tls_certificate.certificate_chain.inline_bytes = held.chain_pem
        workload.tls_certificate.private_key.inline_bytes = held.key_pem
        self._held[WORKLOAD] = _encoded(workload)
        await self.show_trust(held.trust)

    async def show_trust(self, trust: Trust) -> None:
        """Give these roots from now on."""
        roots = Secret(name=ROOTS)
        roots.validation_context.trusted_ca.inline_bytes = trust.roots_pem
        if trust.crl_pem:
            roots.validation_context.crl.inline_bytes = trust.crl_pem
        self._held[ROOTS] = _encoded(roots)
        async with self.changed:
            self.changed.notify_all()

    async def taken(self) -> None:
        """Return once every proxy that listens has accepted the certificate and roots shown."""
        async with self.changed:
            await self.changed.wait_for(self._is_taken)

    def _is_taken(self) -> bool:
        return all(
            asked.accepted.get(name) == self._held[name].version
            for asked in self.streams
            for name in asked.names
            if name in self._held
        )

    def get(self, name: str) -> Encoded | None:
        """Return a secret, None while there is none of that name. Reads files."""
        found = self._held.get(name)
        return found if found is not None else _from_files(name)


def is_in_files(name: str) -> bool:
    """Tell whether a name is one of files."""
    return name.startswith(("file-cert:", "file-root:"))


def _encoded(secret: Secret) -> Encoded:
    data = secret.SerializeToString(deterministic=True)
    return Encoded(content_version(data), data)


def _from_files(name: str) -> Encoded | None:
    secret = Secret(name=name)
    try:
        if name.startswith("file-cert:"):
            files = CertificateFiles.parse(name)
            certificate = secret.tls_certificate
            certificate.certificate_chain.inline_bytes = _pem(_CERTIFICATE, Path(files.chain))
            certificate.private_key.inline_bytes = _pem(_PRIVATE_KEY, Path(files.key))
        else:
            path = SYSTEM_BUNDLE if name == SYSTEM_ROOTS else Path(RootsFile.parse(name).path)
            secret.validation_context.trusted_ca.inline_bytes = _pem(_CERTIFICATE, path)
    except (BadName, OSError, ValueError):
        return None
    return _encoded(secret)


def _pem(kind: re.Pattern[bytes], path: Path) -> bytes:
    """
    Return the PEM blocks of a kind in a file: who asks names any file that we may read.

    Raises: OSError, ValueError: There is none, or it is not a plain file of a sensible size.
    """
    # Without waiting: to open a pipe could take for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is not a plain file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)
    blocks = kind.findall(content)
    if len(content) > MAX_FILE_BYTES or not blocks:
        raise ValueError("it is too large, or not what was asked for")
    return b"\n".join(blocks) + b"\n"
