"""
Reads the example mesh: which workloads there are, which program each runs, where it listens.

The YAML of ``examples/bookinfo`` is the only place that says so. The demo works on a copy of it,
because it edits the files and they may be installed read-only.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

import pilothouse

LOOPBACK: Final = "127.0"
SERVICE_PORT: Final = 9080

_CALLS: Final = {"productpage": ("details", "reviews"), "reviews": ("ratings",)}
_SILENT: Final = {("reviews", "v1")}


@dataclass(frozen=True, slots=True, kw_only=True)
class BookinfoWorkload:
    """
    One workload: a program and its sidecar.

    `address` is where the mesh knows it (its sidecar answers there on port 9080), `listen` and
    `upstreams` (by service name) are the ``IP:PORT`` texts its program is started with, `ports`
    the addresses that must be free on this machine.
    """

    name: str
    namespace: str
    app: str
    version: str
    address: str
    service_account: str
    listen: str
    upstreams: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[tuple[str, int], ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels that routes and selectors go by."""
        return {"app": self.app, "version": self.version}


def examples() -> Path:
    """Return the folder of the example, in a checkout as well as installed."""
    return Path(pilothouse.__file__).parent / "examples" / "bookinfo"


def app_path(app: str) -> Path:
    """Return the program of `app`."""
    return examples() / "apps" / f"{app}.py"


def stage_text(name: str, *, loopback: str = LOOPBACK) -> str:
    """Return the YAML of the stage file `name`."""
    return _moved((examples() / "stages" / name).read_text(encoding="utf-8"), loopback)


def copy_mesh(target: Path, *, transparent: bool = False, loopback: str = LOOPBACK) -> None:
    """
    Copy the mesh to the new folder `target`.

    With `transparent` the services and workloads of that variant replace their namesakes, and
    there are no Sidecars. `loopback` replaces the first two octets of every loopback address.
    """
    target.mkdir(parents=True)
    files = {path.name: path for path in sorted((examples() / "mesh").glob("*.yaml"))}
    if transparent:
        del files["sidecars.yaml"]
        files |= {path.name: path for path in (examples() / "transparent").glob("*.yaml")}
    for name, path in files.items():
        shutil.copyfile(path, target / name)
        if not transparent:
            (target / name).write_text(
                _moved(path.read_text(encoding="utf-8"), loopback), encoding="utf-8"
            )


def workloads(mesh: Path) -> tuple[BookinfoWorkload, ...]:
    """Read the workloads of a mesh that `copy_mesh` made, sorted by name."""
    objects = list(_objects(mesh))
    sidecars = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Sidecar"}
    addresses = {
        o["metadata"]["name"]: o["spec"].get("clusterIP", "")
        for o in objects
        if o["kind"] == "Service"
    }
    found = [
        _workload(o, sidecars.get(o["metadata"]["name"]), addresses)
        for o in objects
        if o["kind"] == "WorkloadEntry"
    ]
    return tuple(sorted(found, key=lambda workload: workload.name))


def _workload(
    entry: Mapping[str, Any], sidecar: Mapping[str, Any] | None, addresses: Mapping[str, str]
) -> BookinfoWorkload:
    spec = entry["spec"]
    app, version, address = spec["labels"]["app"], spec["labels"]["version"], spec["address"]
    called = () if (app, version) in _SILENT else _CALLS.get(app, ())
    if sidecar is None:
        listen = f"{address}:{SERVICE_PORT}"
        upstreams = {service: f"{addresses[service]}:{SERVICE_PORT}" for service in called}
        ports: tuple[tuple[str, int], ...] = ()
    else:
        ingress = sidecar["ingress"][0]
        app_port = int(ingress["defaultEndpoint"].rpartition(":")[2])
        listen = f"{address}:{app_port}"
        ports = ((ingress["bind"], ingress["port"]["number"]), (address, app_port))
        binds = [(e["bind"], e["port"]["number"]) for e in sidecar["egress"] if "bind" in e]
        sidecar_address = f"{binds[0][0]}:{binds[0][1]}" if binds else ""
        upstreams = dict.fromkeys(called, sidecar_address)
        ports += tuple(binds)
    return BookinfoWorkload(
        name=entry["metadata"]["name"],
        namespace=entry["metadata"]["namespace"],
        app=app,
        version=version,
        address=address,
        service_account=spec["serviceAccount"],
        listen=listen,
        upstreams=upstreams,
        ports=ports,
    )


def _objects(mesh: Path) -> Iterator[Any]:
    for path in sorted(mesh.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def _moved(text: str, loopback: str) -> str:
    return text.replace(f" {LOOPBACK}.", f" {loopback}.")
