"""``pilothouse agent``: keys made in place, for an Envoy on the same host."""

import asyncio
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pilothouse.cli.bootstrap import ROOT_FILE, SDS_SOCKET, TOKEN_FILE, own_address
from pilothouse.cli.serve import DurationType
from pilothouse.errors import MeshError
from pilothouse.translators.envoy.control_plane_tls import SERVER_NAME

if TYPE_CHECKING:
    from pilothouse.agent.run import HealthOptions

_KEY_KINDS = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096")


@click.command("agent", context_settings={"show_default": True, "allow_interspersed_args": False})
@click.option(
    "--control-plane",
    default=f"{SERVER_NAME}:15012",
    metavar="HOST:PORT",
    envvar="CA_ADDR",
    help="The secure port.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=TOKEN_FILE,
    metavar="FILE",
    help="Proves who the workload is; read anew for each call.",
)
@click.option(
    "--root-cert-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT_FILE,
    metavar="FILE",
    help="Roots that the control plane is verified by; read anew for each call.",
)
@click.option(
    "--sds-socket",
    type=click.Path(path_type=Path, dir_okay=False),
    default=SDS_SOCKET,
    metavar="PATH",
    help="Where secrets are served. If somebody listens there already, they serve them.",
)
@click.option(
    "--server-name",
    default=SERVER_NAME,
    metavar="NAME",
    help="The name in the control plane's certificate.",
)
@click.option("--key", type=click.Choice(_KEY_KINDS), default=_KEY_KINDS[0], help="Kind of key.")
@click.option(
    "--ttl",
    type=DurationType(),
    default="0s",
    help="Lifetime to ask for; 0s leaves it to the control plane.",
)
@click.option(
    "--renewal-spread",
    type=DurationType(),
    default="30s",
    help="When another root begins to sign, renew at a random moment within this time.",
)
@click.option("--name", default="", help="Name of the workload; by default this host's.")
@click.option("--ip", default="", metavar="IP", help="Its address; by default this host's.")
@click.option("--domain", default="cluster.local", help="DNS domain of Kubernetes services.")
@click.option(
    "--bootstrap",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="What the Envoy starts with; its workload is probed as its group says, and reported for.",
)
@click.option(
    "--workload-group",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="YAML with the WorkloadGroup whose spec.probe is run here.",
)
@click.argument("command", nargs=-1)
def agent(
    *,
    control_plane: str,
    token_file: Path,
    root_cert_file: Path,
    sds_socket: Path,
    server_name: str,
    key: str,
    ttl: timedelta,
    renewal_spread: timedelta,
    name: str,
    ip: str,
    domain: str,
    bootstrap: Path | None,
    workload_group: Path | None,
    command: tuple[str, ...],
) -> int:
    """Obtain a certificate, keep it renewed, and serve it to an Envoy on this host.

    The private key is made here and leaves this host never. COMMAND, if any, is run beside, and the
    agent ends with it: pilothouse agent -- envoy -c bootstrap.json.
    """  # fmt: skip
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported here for the start-up time of the other commands.
    from pilothouse.agent.control_plane import ControlPlaneAccess  # noqa: PLC0415
    from pilothouse.agent.keys import KeyKind  # noqa: PLC0415
    from pilothouse.agent.run import AgentOptions, run  # noqa: PLC0415
    from pilothouse.runtime.logs import configure_logs  # noqa: PLC0415

    configure_logs()
    options = AgentOptions(
        access=ControlPlaneAccess(
            target=control_plane,
            server_name=server_name,
            root_file=root_cert_file,
            token_file=token_file,
            name=name or socket.gethostname().partition(".")[0].lower(),
            address=ip or own_address(),
            domain=domain,
        ),
        socket=sds_socket,
        key_kind=KeyKind(key),
        lifetime=ttl,
        spread=renewal_spread,
        health=_health(bootstrap, workload_group),
        command=command,
    )
    return asyncio.run(run(options))


def _health(bootstrap: Path | None, workload_group: Path | None) -> "HealthOptions | None":
    """Return what to probe, and for whom, if both files are given."""
    if bootstrap is None and workload_group is None:
        return None
    if bootstrap is None or workload_group is None:
        raise click.UsageError("--bootstrap and --workload-group go together.")
    import json  # noqa: PLC0415 (start-up time, as below)

    import yaml  # noqa: PLC0415

    from pilothouse.agent.health import node_of  # noqa: PLC0415
    from pilothouse.agent.run import HealthOptions  # noqa: PLC0415
    from pilothouse.api.decode import decode  # noqa: PLC0415
    from pilothouse.api.workload import WorkloadGroup  # noqa: PLC0415

    try:
        data = json.loads(bootstrap.read_text(encoding="utf-8"))
        documents = list(yaml.safe_load_all(workload_group.read_text(encoding="utf-8")))
        node_of(data)
    except (OSError, ValueError, yaml.YAMLError, MeshError) as problem:
        raise click.ClickException(str(problem)) from problem
    wanted = data["node"].get("metadata", {}).get("AUTO_REGISTER_GROUP", "")
    for document in documents:
        found = decode(document).object
        if isinstance(found, WorkloadGroup) and wanted in ("", found.meta.name):
            if found.spec.probe is None:
                raise click.ClickException(f"WorkloadGroup {found.meta.name} has no probe.")
            return HealthOptions(probe=found.spec.probe, bootstrap=data)
    raise click.ClickException(
        f"{workload_group} has no WorkloadGroup{f' {wanted}' if wanted else ''} that can be used;"
        " pilothouse validate says why."
    )
