"""
A mesh whose certificates somebody else issues (security.md C-R-11): what the server still does.

It tells the roots that it was given, to workloads as ``ROOTCA`` and to the secure port for client
certificates, and again when their file is replaced. Nothing is signed here: there is no key, and
who asks for a certificate is sent to the mesh's authority. Tokens of ours go on to count, as they
prove who somebody is and do not issue anything.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from pilothouse.api.root_certificates import BadRoots, read_roots
from pilothouse.certs.front.control import Material
from pilothouse.certs.private_files import make_private_directory
from pilothouse.certs.root_store import BadRoot, lock_directory
from pilothouse.certs.rotation import Phase
from pilothouse.certs.rotation_files import RotationStatus, remove_request, write_status
from pilothouse.certs.service import send_elsewhere
from pilothouse.errors import MeshError, SourceError
from pilothouse.model.inputs import THE_MESH, TRUST_BUNDLE
from pilothouse.model.trust import TrustBundle
from pilothouse.runtime.commit import Change

if TYPE_CHECKING:
    import grpc

LOOK_AT_FILE_SECONDS: Final = 1.0
MAX_FILE_BYTES: Final = 1024 * 1024

log = structlog.get_logger()


class BadGivenRoots(SourceError):
    """The file of roots cannot be used."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem` is a sentence that does not quote the file."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"--ca-cert-file: {self.path} cannot be used as the mesh's roots: {self.problem}"


class OutsideAuthority:
    """The other one's roots. `start` it, `run` it on the same event loop, `close` it."""

    def __init__(
        self,
        roots_file: Path,
        *,
        directory: Path | None,
        put: Callable[[Iterable[Change]], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        """
        Tell the roots in `roots_file`; `put` commits rows and returns once they are published.

        `directory` (None: none) has tokens and what else a server keeps, and is held while it runs.
        """
        self._file = roots_file
        self._directory = directory
        self._put = put
        self._clock = clock
        self._lock: int | None = None
        self._roots_pem = b""
        self._stamp: object = None
        self.on_change: Callable[[], Awaitable[None]] = _nothing
        """Awaited when the trusted roots have changed."""

    # -- start and end ----------------------------------------------------------------------------

    def start(self) -> None:
        """
        Read the roots, and say in the directory that there is no authority here.

        Raises: BadGivenRoots: They cannot be used. BadRoot: Another server uses the directory.
        """
        self._stamp = _stamp(self._file)
        self._roots_pem = read_given(self._file)
        if self._directory is not None:
            self._hold(self._directory)
        count = self._roots_pem.count(b"-----BEGIN")
        log.info("authority.outside", roots_file=str(self._file), roots=count)

    def close(self) -> None:
        """Let go of the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold(self, directory: Path) -> None:
        try:
            make_private_directory(directory)
            self._lock = lock_directory(directory)
            status = RotationStatus(phase=Phase.STABLE, at=self._clock(), has_authority=False)
            write_status(directory, status)
            remove_request(directory)
        except OSError as failure:
            raise BadRoot(directory, f"{failure.strerror or failure}.") from failure

    # -- for others -------------------------------------------------------------------------------

    def rows(self) -> list[Change]:
        """Return the rows that others read the trusted roots from."""
        row = TrustBundle(roots_pem=self._roots_pem, is_issued_here=False)
        return [(TRUST_BUNDLE.name, THE_MESH, row)]

    async def port_material(self) -> Material:
        """Return what clients are verified by; the port's own certificate is the operator's."""
        return Material(certificate_pem="", key_pem="", roots_pem=self._roots_pem.decode("ascii"))

    def service(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the certificate service: it says that this is not the place."""
        return send_elsewhere()

    # -- while running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look for other roots until cancelled; what cannot be used leaves those that there are."""
        seen = used = self._stamp
        while True:
            await asyncio.sleep(LOOK_AT_FILE_SECONDS)
            before, seen = seen, _stamp(self._file)
            if seen == used or seen != before:
                continue  # nothing new, or still being written
            used = seen
            try:
                await self._use(read_given(self._file))
            except (MeshError, OSError) as failure:
                log.error(  # noqa: TRY400
                    "authority.change_refused",
                    problem=str(failure),
                    remedy="The server goes on with the roots it has.",
                )

    async def _use(self, roots_pem: bytes) -> None:
        if roots_pem == self._roots_pem:
            return
        self._roots_pem = roots_pem
        # Workloads first: what the port lets in is for them to talk to.
        await self._put(self.rows())
        await self.on_change()
        log.info("authority.changed", roots=roots_pem.count(b"-----BEGIN"))


def read_given(path: Path) -> bytes:
    """Return the roots in a file as PEM, each once. Raises: BadGivenRoots."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise BadGivenRoots(path, f"{failure.strerror or failure}.") from failure
    if len(content) > MAX_FILE_BYTES:
        raise BadGivenRoots(path, "it is too large.")
    try:
        return b"".join(dict.fromkeys(read_roots(content)))
    except BadRoots as problem:
        raise BadGivenRoots(path, f"{problem}") from problem


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


async def _nothing() -> None:
    return
