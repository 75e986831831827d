"""
The running mesh: a control plane, and for each workload its program and its Envoy.

Starts them in order, watches that none of them ends, and stops them all. What they are for is told
by `story.py`.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pilothouse.demo.bookinfo import SERVICE_PORT, BookinfoWorkload, app_path, workloads
from pilothouse.demo.envoy import EnvoyProcess, find_envoy
from pilothouse.demo.errors import DemoError, NotReady
from pilothouse.demo.ground import Ground
from pilothouse.demo.guard import owner
from pilothouse.demo.identity import Issuer
from pilothouse.demo.process import ChildProcess
from pilothouse.model.proxies import CertificateSource
from pilothouse.translators.envoy.bootstrap import (
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
)

FRONT: Final = "productpage-v1"
_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.03
_SOCKET_PATH_BYTES: Final = 107
_TEMPORARY: Final = "pilothouse-demo-"


class BookinfoMesh:
    """
    The example mesh on a `ground`; use as an async context manager.

    Args:
        ground: Where it runs.
        delta: Envoys ask for incremental xDS; otherwise state of the world.
        workdir: Where config, logs and sockets go; a temporary folder, removed at the end, if None.
        serve_options: More options of ``pilothouse serve``.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        delta: bool = True,
        workdir: Path | None = None,
        serve_options: Sequence[str] = (),
    ) -> None:
        self.ground = ground
        self.workdir = workdir or _new_temporary()
        self.config_dir = self.workdir / "mesh"
        self.envoys: dict[str, EnvoyProcess] = {}
        self.workloads: tuple[BookinfoWorkload, ...] = ()
        self.ports: dict[str, int] = {}
        self._is_temporary = workdir is None
        self._delta = delta
        self._serve_options = tuple(serve_options)
        self._children: list[ChildProcess] = []
        self._control_plane: ChildProcess | None = None
        self._issuer: Issuer | None = None

    @property
    def url(self) -> str:
        """The product page, behind its sidecar."""
        front = next(workload for workload in self.workloads if workload.name == FRONT)
        return f"http://{front.address}:{SERVICE_PORT}/productpage"

    @property
    def monitoring_url(self) -> str:
        """The control plane's HTTP port."""
        return f"http://127.0.0.1:{self.ports['monitoring']}"

    async def start(self) -> Self:
        """
        Start everything and wait until each part is ready.

        Raises: DemoError: A port is busy, the binary is missing, a program ended, or time is up.
        """
        binary = find_envoy()
        self.workdir.mkdir(parents=True, exist_ok=True)
        if self.ground.envoy_uid is not None:
            self.workdir.chmod(0o711)
        if self.config_dir.exists():
            raise DemoError(
                f"{self.config_dir} is already there, perhaps from an earlier demo. "
                "Give a new folder as --workdir."
            )
        self.ground.copy_mesh(self.config_dir)
        self.workloads = workloads(self.config_dir)
        self._check_socket_paths()
        await self.ground.open(self.workloads)
        for workload in self.workloads:
            await self._start_app(workload)
        issuer = self._issuer = Issuer.make(self.workdir / "ca")
        await self._start_control_plane()
        for workload in self.workloads:
            await self._start_envoy(workload, binary, issuer)
        await asyncio.gather(
            *(envoy.wait_ready(timeout_seconds=_START_SECONDS) for envoy in self.envoys.values())
        )
        # Envoys share a port silently (SO_REUSEPORT), programs end when theirs is taken: only they
        # show that a second mesh came up at the same time on the same addresses.
        self.raise_if_ended()
        return self

    async def stop(self) -> None:
        """Stop everything and remove what was made. Idempotent."""
        await asyncio.gather(
            *(envoy.stop() for envoy in self.envoys.values()),
            *(child.stop() for child in self._programs()),
        )
        await self.ground.close()
        if self._is_temporary:
            shutil.rmtree(self.workdir, ignore_errors=True)

    def raise_if_ended(self) -> None:
        """Raise ChildExited if one of the programs has ended."""
        for child in self._programs():
            child.raise_if_ended()
        for envoy in self.envoys.values():
            envoy.child.raise_if_ended()

    async def restart_control_plane(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Kill the control plane as a crash would, and start another on the same port."""
        if self._control_plane is not None:
            await self._control_plane.kill()
        if meanwhile is not None:
            meanwhile()
        await self._start_control_plane()

    def write(self, name: str, text: str) -> None:
        """Replace a file of the config in one step, as editors and `kubectl cp` do."""
        draft = self.config_dir / f".{name}.draft"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.config_dir / name)

    async def routes_updated(self, workload: str) -> datetime | None:
        """When the Envoy of `workload` last took new routes over, by its own clock; None: never."""
        dump = json.loads(
            await self.envoys[workload].admin("/config_dump?resource=dynamic_route_configs")
        )
        times = [entry["last_updated"] for entry in dump.get("configs", ())]
        return datetime.fromisoformat(max(times)) if times else None

    async def __aenter__(self) -> Self:
        """Start it; if that fails, what was started is stopped."""
        try:
            return await self.start()
        except BaseException:
            await self.stop()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        await self.stop()

    def _programs(self) -> list[ChildProcess]:
        """All children but the Envoys."""
        extra = [] if self._control_plane is None else [self._control_plane]
        return [*self._children, *extra]

    def _admin_path(self, workload: BookinfoWorkload) -> Path:
        return self.workdir / workload.name / "admin.sock"

    def _check_socket_paths(self) -> None:
        longest = max((str(self._admin_path(w)) for w in self.workloads), key=len)
        if len(longest.encode()) > _SOCKET_PATH_BYTES:
            raise DemoError(
                f"The work folder's path is too long for Unix sockets: {longest} has more than "
                f"{_SOCKET_PATH_BYTES} bytes. Choose a shorter --workdir."
            )

    async def _start_app(self, workload: BookinfoWorkload) -> None:
        upstreams = [f"--upstream={name}={where}" for name, where in workload.upstreams.items()]
        child = ChildProcess(
            f"{workload.name}-app",
            [
                sys.executable,
                "-s",
                "-B",
                str(app_path(workload.app)),
                f"--listen={workload.listen}",
                f"--version={workload.version}",
                *upstreams,
            ],
            log_dir=self.workdir,
            # The programs import their shared part from their own folder.
            environment={"PYTHONSAFEPATH": ""},
            netns=self.ground.netns(workload),
        )
        self._children.append(child)
        await child.start()

    async def _start_control_plane(self) -> None:
        ports_file = self.workdir / "ports.json"
        ports_file.unlink(missing_ok=True)
        address = self.ground.control_plane_address
        child = ChildProcess(
            "control-plane",
            [
                sys.executable,
                "-m",
                "pilothouse",
                "serve",
                f"--config-dir={self.config_dir}",
                f"--ca-dir={self.workdir / 'ca'}",
                "--grpc-addr=127.0.0.1:0",
                # After a restart the Envoys look for it where it was.
                f"--secure-grpc-addr={address}:{self.ports.get('secure_grpc', 0)}",
                "--monitoring-addr=127.0.0.1:0",
                f"--ports-file={ports_file}",
                "--log-format=json",
                *self._serve_options,
            ],
            log_dir=self.workdir,
            # Safe path: a folder named like a module in the current directory must not be taken.
            environment={"PYTHONSAFEPATH": "1"},
            netns=self.ground.control_plane_netns(),
        )
        self._control_plane = child
        await child.start()
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not (ports := _read_ports(ports_file)):
                    child.raise_if_ended()
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NotReady("The control plane", _START_SECONDS, "\n".join(child.tail())) from None
        self.ports = ports

    async def _start_envoy(self, workload: BookinfoWorkload, binary: Path, issuer: Issuer) -> None:
        folder, uid = self.workdir / workload.name, self.ground.envoy_uid
        config = bootstrap(
            Workload(
                name=workload.name,
                namespace=workload.namespace,
                addresses=(workload.address,),
                labels=workload.labels,
                service_account=workload.service_account,
                interception_mode=self.ground.interception_mode,
                certificates=CertificateSource.ADS,
            ),
            control_plane=SocketAddress(
                address=self.ground.control_plane_address, port=self.ports["secure_grpc"]
            ),
            tls=issuer.equip(folder, workload.namespace, workload.service_account, uid),
            admin=PipeAddress(path=str(self._admin_path(workload))),
            delta=self._delta,
        )
        envoy = EnvoyProcess(
            config,
            folder,
            name=f"{workload.name}-envoy",
            binary=binary,
            netns=self.ground.netns(workload),
            uid=uid,
        )
        self.envoys[workload.name] = envoy
        await envoy.start()


def _new_temporary() -> Path:
    """Make a folder named for this process, and remove those of processes that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*-*"):
        of_whom = old.name.removeprefix(_TEMPORARY).split("-")[0]
        pid = of_whom.split(".", maxsplit=1)[0]
        with suppress(OSError):  # somebody else may be removing it
            is_ours = old.lstat().st_uid == os.geteuid()
            if is_ours and pid.isdigit() and owner(int(pid)) != of_whom:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{owner(os.getpid())}-"))


def _read_ports(path: Path) -> dict[str, int]:
    try:
        ports: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # not there yet, or being written
    return ports
